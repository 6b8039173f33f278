"""The sync file of the README, killed and run again: PostgreSQL into Parquet files, an API into PostgreSQL."""

import re
import signal
import threading
from pathlib import Path

import pytest
from pyarrow import parquet

from cli.commands import ROWS, SECONDS, Shop, rows_of, write
from connectors.http_api import Reply, Request, api_of, orders
from resumable_sync.stores.sql import SQLJobStore
from waiting import until

pytestmark = pytest.mark.kills

README = Path(__file__).parent.parent.parent / "README.md"
LINES = re.compile(r"^```toml\n(\[jobs\.orders\].*?)^```$", re.MULTILINE | re.DOTALL)
SLOWLY = "\n[options]\nbatch_size = 100\nthrottle = 1000\n"
"""A second at least for 1,000 records, so that it is killed before it gets to the end."""


def test_both_go_on_where_they_were_killed(tmp_path: Path, postgres_url: str) -> None:
    (lines,) = LINES.findall(README.read_text(encoding="utf-8"))
    assert lines.count("\n") == 6
    path = tmp_path / "sync.toml"
    path.write_text(lines + SLOWLY, encoding="utf-8")
    (tmp_path / "lake").mkdir()
    store = f"sqlite:///{tmp_path / 'resumable_sync.db'}"
    shop = Shop(tmp_path, postgres_url, postgres_url)
    write(
        postgres_url,
        "CREATE TABLE orders (id INTEGER PRIMARY KEY, total NUMERIC(12, 2) NOT NULL)",
        f"INSERT INTO orders SELECT i, i / 100.0 FROM generate_series(1, {ROWS}) AS i",
        "CREATE TABLE customers (id INTEGER, name TEXT, changed TEXT)",
    )

    def records() -> int:
        with SQLJobStore(store) as jobs:
            job = jobs.load("orders")
        return 0 if job is None else job.processed_records

    with api_of(orders(500), size=50) as api:
        environment = {"SHOP_URL": postgres_url, "WAREHOUSE_URL": postgres_url, "API_URL": f"{api.url}/keyset"}
        with shop.start("run", "sync.toml", **environment) as process:
            until(lambda: process.poll() is not None or records() >= 300, SECONDS)
            process.kill()
            _, err = process.communicate(timeout=SECONDS)
        assert process.returncode == -signal.SIGKILL, err
        path.write_text(lines, encoding="utf-8")
        asked, killed = threading.Event(), threading.Event()

        def hang(_request: Request) -> Reply | None:
            asked.set()
            killed.wait(SECONDS)
            return None

        api.next(*([lambda _request: None] * 5), hang)
        with shop.start("run", "sync.toml", **environment) as process:
            assert asked.wait(SECONDS)
            process.kill()
            out, err = process.communicate(timeout=SECONDS)
        killed.set()
        assert "orders: resume at record" in err
        assert "orders: completed" in out
        done = shop.run("run", "sync.toml", "customers", **environment)
    assert done.returncode == 0, done.stderr
    assert "customers: resume at record" in done.stderr
    assert [row[0] for row in rows_of(postgres_url, "customers")] == [record["id"] for record in orders(500)]
    files = sorted((tmp_path / "lake" / "orders").glob("*.parquet"))
    copied = [tuple(row.values()) for file in files for row in parquet.read_table(file).to_pylist()]
    assert copied == rows_of(postgres_url, "orders")
