"""Processes that replace a table are killed; whoever reads it sees the whole old table or the whole new one."""

import os
from collections.abc import Callable

import pytest

from crash.programs import JOB_ID
from crash.replacing import Replacing, leftovers, watching
from resumable_sync.stores.sql import SQLJobStore
from resumable_sync.testing import CrashReport, KillAtStep, SyncProcesses, crash_points, kill_randomly

KINDS = ["sqlite", "postgresql", "mariadb"]
SINKS = ["store", "own"]
KILLS = int(os.environ.get("RESUMABLE_SYNC_KILLS", "1000"))
NewDatabase = Callable[[str], str]


def _program(new_database: NewDatabase, kind: str, sink: str, rows: int = 20, batch_size: int = 6) -> Replacing:
    target = new_database(kind)
    program = Replacing(
        source=new_database(kind),
        # With a checkpoint of its own the target may be anywhere.
        store=target if sink == "store" else new_database("postgresql" if kind == "sqlite" else "sqlite"),
        target=target,
        sink=sink,
        rows=rows,
        options={"batch_size": batch_size},
    )
    program.fill()
    return program


def _kill_randomly(program: Replacing, kills: int) -> CrashReport:
    with watching(program) as watch:
        report = kill_randomly(
            program.make,
            expected=program.expected,
            delivered=program.delivered,
            reset=program.reset,
            kills=kills,
            visible=False,
        )
    print(program.store.split(":")[0], program.target.split(":")[0], program.sink, report, watch.looks, "looks")
    report.check()
    watch.check(least=2)
    assert report.deaths == kills
    assert report.repeated == 0
    return report


def _kill_at_steps(program: Replacing, *, deaths: int = 1, first: int = 1, every: int = 1) -> CrashReport:
    with watching(program) as watch:
        report = crash_points(
            program.make,
            expected=program.expected,
            delivered=program.delivered,
            reset=program.reset,
            deaths=deaths,
            first=first,
            every=every,
            visible=False,
        )
    report.check()
    watch.check(least=2)
    assert report.repeated == 0
    return report


@pytest.mark.parametrize(
    ("kind", "sink"), [pytest.param("postgresql", "own", marks=pytest.mark.crash), ("mariadb", "store")]
)
def test_a_few_kills(new_database: NewDatabase, kind: str, sink: str) -> None:
    _kill_randomly(_program(new_database, kind, sink, rows=300, batch_size=50), 3)


@pytest.mark.parametrize(("kind", "sink"), [("sqlite", "own"), ("postgresql", "store")])
def test_a_few_steps(new_database: NewDatabase, kind: str, sink: str) -> None:
    # Among them are those just after the begin and around the swap.
    assert _kill_at_steps(_program(new_database, kind, sink, rows=5), first=24, every=12).deaths >= 2


@pytest.mark.crash
@pytest.mark.parametrize("kind", KINDS)
def test_what_a_run_left_behind_that_was_reset_is_dropped(new_database: NewDatabase, kind: str) -> None:
    program = _program(new_database, kind, "store")
    with SyncProcesses() as processes:
        ended = processes.start(program.make, KillAtStep(30)).wait(60)
        assert ended is not None
        assert ended.how == "died"
        assert len(leftovers(program)) == 1
        with SQLJobStore(program.store) as store:
            store.delete(JOB_ID)
        ended = processes.start(program.make).wait(60)
    assert ended is not None
    assert ended.status == "completed"
    assert program.delivered() == program.expected()


@pytest.mark.crash
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("sink", SINKS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_thousand_kills(new_database: NewDatabase, kind: str, sink: str) -> None:
    _kill_randomly(_program(new_database, kind, sink, rows=2_000, batch_size=50), KILLS)


@pytest.mark.crash
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("sink", SINKS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_thousand_kills_around_the_swap(new_database: NewDatabase, kind: str, sink: str) -> None:
    # Two batches: most of the time goes into making the staging table and putting it in place.
    _kill_randomly(_program(new_database, kind, sink, rows=20, batch_size=10), KILLS)


@pytest.mark.crash
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("deaths", [1, 4])
@pytest.mark.parametrize("sink", SINKS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_step(new_database: NewDatabase, kind: str, sink: str, deaths: int) -> None:
    report = _kill_at_steps(_program(new_database, kind, sink), deaths=deaths)
    assert {"before write", "after write", "before complete", "after complete"} <= set(report.killed_at)
