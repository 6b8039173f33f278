"""The ETL script, before and after: the same rows, and after a kill it goes on."""

import difflib
import os
import re
import signal
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url

from servers import Server

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
PAGE = EXAMPLES.parent / "docs/howto/etl-script.md"
ROWS = 3_500

# Kills itself in the middle of a batch, after the rows of the third one were written.
DYING = """
import os, signal, {script}
real, calls = {script}.load, []
def load(warehouse, orders):
    real(warehouse, orders)
    calls.append(len(orders))
    if len(calls) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
{script}.load = load
{script}.main()
"""
RUNNING = "import {script}; {script}.main()"


pytestmark = pytest.mark.once


@pytest.fixture
def databases(postgres: Server) -> Any:
    urls = [postgres.create_database() for _ in range(2)]
    shop, warehouse = urls
    execute(shop, "CREATE TABLE orders (id integer PRIMARY KEY, customer text, cents integer)")
    execute(shop, f"INSERT INTO orders SELECT n, ' anna ' || n, n * 7 FROM generate_series(1, {ROWS}) n")
    execute(warehouse, "CREATE TABLE orders (id integer, customer text, euros numeric)")
    execute(warehouse, "INSERT INTO orders VALUES (0, 'of yesterday', 1)")
    yield urls
    for url in urls:
        postgres.give_back(url)


def execute(url: str, statement: str) -> list[Any]:
    import psycopg

    with psycopg.connect(libpq(url)) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


def libpq(url: str) -> str:
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


def run(code: str, databases: list[str]) -> int:
    path = os.pathsep.join([str(EXAMPLES), *sys.path])
    shop, warehouse = map(libpq, databases)
    environment = os.environ | {"PYTHONPATH": path, "SHOP": shop, "WAREHOUSE": warehouse}
    return subprocess.run([sys.executable, "-c", code], env=environment, check=False, timeout=120).returncode


def loaded(databases: list[str]) -> list[Any]:
    return execute(databases[1], "SELECT id, customer, euros FROM orders ORDER BY id")


def expected(rows: int = ROWS) -> list[Any]:
    return [(number, f"Anna {number}", Decimal(number * 7) / 100) for number in range(1, rows + 1)]


def test_the_page_shows_the_difference() -> None:
    before, after = ((EXAMPLES / f"etl_{when}.py").read_text(encoding="utf-8") for when in ("before", "after"))
    difference = list(difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=2))
    shown = re.search(r"^```diff\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert shown is not None
    # Editors take blanks at the end of a line away.
    assert shown[1].splitlines() == [line.rstrip() for line in difference[2:]]


@pytest.mark.kills
def test_the_same_rows_and_after_a_kill_it_goes_on(databases: list[str]) -> None:
    assert run(RUNNING.format(script="etl_before"), databases) == 0
    assert loaded(databases) == expected()
    assert run(DYING.format(script="etl_after"), databases) == -signal.SIGKILL
    assert loaded(databases) == expected(2_000)  # the third batch was open
    assert run(RUNNING.format(script="etl_after"), databases) == 0
    assert loaded(databases) == expected()
    attempts = execute(databases[1], "SELECT outcome FROM resumable_sync_attempts ORDER BY fencing_token")
    assert attempts == [("died",), ("completed",)]
