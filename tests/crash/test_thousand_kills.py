"""Processes are killed at random moments, a thousand per backend; a few of them in every run of the tests."""

import os
from collections.abc import Callable

import attrs
import pytest

from crash.programs import Program
from resumable_sync.testing import CrashReport, kill_randomly

KINDS = ["sqlite", "postgresql", "mariadb"]
KILLS = int(os.environ.get("RESUMABLE_SYNC_KILLS", "1000"))
NewDatabase = Callable[[str], str]


def _run(program: Program, kills: int) -> CrashReport:
    program.fill()
    report = kill_randomly(
        program.make, expected=program.expected, delivered=program.delivered, reset=program.reset, kills=kills
    )
    print(program.store.split(":")[0], program.target.split(":")[0], program.sink, report)
    report.check()
    assert report.deaths == kills
    return report


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
    assert _run(_program(new_database, kind, kind, "store", mode=mode, rows=500), 10).repeated == 0


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
