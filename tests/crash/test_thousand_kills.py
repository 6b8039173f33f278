"""Processes are killed at random moments, a thousand per backend; a few of them in every run of the tests."""

import os
from collections.abc import Callable
from itertools import pairwise

import attrs
import pytest

from crash.programs import JOB_ID, Program
from resumable_sync.stores.sql import SQLJobStore
from resumable_sync.testing import CrashReport, kill_randomly

KINDS = ["sqlite", "postgresql", "mariadb"]
KILLS = int(os.environ.get("RESUMABLE_SYNC_KILLS", "1000"))
NewDatabase = Callable[[str], str]


def _run(program: Program, kills: int) -> CrashReport:
    program.fill()

    def reset() -> None:
        _check_lineage(program.store)
        program.reset()

    report = kill_randomly(
        program.make, expected=program.expected, delivered=program.delivered, reset=reset, kills=kills
    )
    _check_lineage(program.store)
    print(program.store.split(":")[0], program.target.split(":")[0], program.sink, report)
    report.check()
    assert report.deaths == kills
    return report


def _check_lineage(url: str) -> None:
    """See that every attempt began where the one before had died."""
    with SQLJobStore(url) as store:
        job, attempts = store.load(JOB_ID), list(store.attempts(JOB_ID))
    for one, after in pairwise(attempts):
        assert (one.outcome, one.to_cursor, one.to_records) == ("died", after.from_cursor, after.from_records)
        assert after.attempt in (one.attempt, one.attempt + 1)
        assert one.pid != after.pid
    if attempts:
        assert job is not None
        assert (attempts[-1].outcome, attempts[-1].to_records) == (job.status, job.processed_records)


def _program(
    new_database: NewDatabase, store: str, target: str, sink: str, *, mode: str = "append", rows: int = 2_000
) -> Program:
    there = new_database(target)
    return Program(
        source=new_database(target),
        store=there if store == target else new_database(store),
        target=there,
        sink=sink,
        mode=mode,
        rows=rows,
        options={"batch_size": 50},
    )


@pytest.mark.parametrize(("kind", "mode"), [("sqlite", "append"), ("postgresql", "upsert"), ("mariadb", "upsert")])
def test_a_few_kills(new_database: NewDatabase, kind: str, mode: str) -> None:
    assert _run(_program(new_database, kind, kind, "store", mode=mode, rows=500), 6).repeated == 0


@pytest.mark.crash
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("kind", KINDS)
def test_in_the_transaction_of_the_store(new_database: NewDatabase, kind: str) -> None:
    assert _run(_program(new_database, kind, kind, "store"), KILLS).repeated == 0


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
