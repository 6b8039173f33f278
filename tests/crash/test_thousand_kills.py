"""Processes are killed at random moments, a thousand per backend; a few of them in every run of the tests."""

import os
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import attrs
import pytest
from sqlalchemy import make_url

from crash.programs import JOB_ID, Program
from resumable_sync._formats import COPY_TEXT, RECORDS, SQLITE_WINDOW
from resumable_sync.stores.sql import SQLJobStore
from resumable_sync.testing import CrashReport, kill_randomly

KINDS = ["sqlite", "postgresql", "mariadb"]
FORMATS = {"sqlite": SQLITE_WINDOW, "postgresql": COPY_TEXT}
KILLS = int(os.environ.get("RESUMABLE_SYNC_KILLS", "1000"))
NewDatabase = Callable[[str], str]


def _run(program: Program, kills: int) -> CrashReport:
    program.fill()

    def reset() -> None:
        _check_lineage(program)
        program.reset()

    report = kill_randomly(
        program.make, expected=program.expected, delivered=program.delivered, reset=reset, kills=kills
    )
    _check_lineage(program)
    print(program.store.split(":")[0], program.target.split(":")[0], program.sink, report)
    report.check()
    assert report.deaths == kills
    return report


def _check_lineage(program: Program) -> None:
    """See that every attempt began where the one before had died, and that records went as they were meant to."""
    with SQLJobStore(program.store) as store:
        job, attempts, history = store.load(JOB_ID), list(store.attempts(JOB_ID)), store.history(JOB_ID)
    for one, after in pairwise(attempts):
        assert (one.outcome, one.to_cursor, one.to_records) == ("died", after.from_cursor, after.from_records)
        assert after.attempt in (one.attempt, one.attempt + 1)
        assert one.pid != after.pid
    if attempts:
        assert job is not None
        assert (attempts[-1].outcome, attempts[-1].to_records) == (job.status, job.processed_records)
        assert history is None or history.format == _format(program)  # who is killed at the very end keeps none


def _format(program: Program) -> str:
    fast = program.sink != "plain" and program.options.get("fast_path", True)
    return FORMATS.get(make_url(program.target).get_backend_name(), RECORDS) if fast else RECORDS


def _program(
    new_database: NewDatabase,
    store: str,
    target: str,
    sink: str,
    *,
    mode: str = "append",
    rows: int = 2_000,
    **options: Any,
) -> Program:
    there = new_database(target)
    return Program(
        source=new_database(target),
        store=there if store == target else new_database(store),
        target=there,
        sink=sink,
        mode=mode,
        rows=rows,
        options={"batch_size": 50, **options},
    )


@pytest.mark.parametrize(
    ("kind", "mode", "fast_path"),
    [
        ("sqlite", "append", True),
        ("sqlite", "append", False),
        ("postgresql", "upsert", True),
        ("mariadb", "upsert", True),
    ],
)
def test_a_few_kills(new_database: NewDatabase, kind: str, mode: str, fast_path: bool) -> None:
    program = _program(new_database, kind, kind, "store", mode=mode, rows=500, fast_path=fast_path)
    assert _run(program, 6).repeated == 0


@pytest.mark.crash
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("kind", KINDS)
def test_in_the_transaction_of_the_store(new_database: NewDatabase, kind: str) -> None:
    assert _run(_program(new_database, kind, kind, "store"), KILLS).repeated == 0


@pytest.mark.crash
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("kind", list(FORMATS))
def test_as_python_values(new_database: NewDatabase, kind: str) -> None:
    assert _run(_program(new_database, kind, kind, "store", fast_path=False), KILLS).repeated == 0


@pytest.mark.crash
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("kind", KINDS)
def test_with_batches_that_find_their_size(new_database: NewDatabase, kind: str) -> None:
    # Batches of some milliseconds grow from 1,000 records to all that are left.
    program = _program(new_database, kind, kind, "store", rows=20_000)
    program = attrs.evolve(program, options={"batch_size": "auto"})
    assert _run(program, KILLS).repeated == 0


@pytest.mark.crash
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("sink", ["store", "own"])
@pytest.mark.parametrize("kind", KINDS)
def test_with_upsert(new_database: NewDatabase, kind: str, sink: str) -> None:
    assert _run(_program(new_database, kind, kind, sink, mode="upsert"), KILLS).repeated == 0


@pytest.mark.crash
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("kind", KINDS)
def test_with_a_plain_callable(new_database: NewDatabase, kind: str) -> None:
    report = _run(_program(new_database, kind, kind, "plain"), KILLS)
    assert report.repeated <= 50 * report.deaths


@pytest.mark.crash
@pytest.mark.timeout(7200)
@pytest.mark.parametrize(("store", "target"), [("sqlite", "postgresql"), ("postgresql", "sqlite")])
def test_between_two_databases(new_database: NewDatabase, store: str, target: str) -> None:
    assert _run(_program(new_database, store, target, "own"), KILLS).repeated == 0
