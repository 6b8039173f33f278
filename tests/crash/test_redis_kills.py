"""Syncs whose checkpoints are in Redis, killed and started again at once: nothing lost, and what may come twice."""

import os
from collections.abc import Callable

import pytest

from crash.programs import Program
from resumable_sync.testing import crash_points, kill_randomly

# One process can be killed 1,000 times on each database; here only the store differs.
KILLS = max(1, int(os.environ.get("RESUMABLE_SYNC_KILLS", "1000")) // 5)
NewDatabase = Callable[[str], str]
# In one thread, so that every step is the same one in every run.
IN_STEP = {"batch_size": 6, "prefetch": 0, "count": False}


def program_of(new_database: NewDatabase, sink: str, **changes: object) -> Program:
    options = IN_STEP if sink == "plain" else {"batch_size": 6}
    source, store, target = (new_database(kind) for kind in ("sqlite", "redis", "sqlite"))
    program = Program(source=source, store=store, target=target, sink=sink, options=options, **changes)  # type: ignore[arg-type]
    program.fill()
    return program


def kill_at_steps(program: Program, *, deaths: int = 1, first: int = 1, every: int = 1) -> None:
    report = crash_points(
        program.make,
        expected=program.expected,
        delivered=program.delivered,
        reset=program.reset,
        deaths=deaths,
        first=first,
        every=every,
    )
    report.check()
    assert report.deaths >= 5
    if program.sink == "own":
        assert report.repeated == 0


@pytest.mark.parametrize("sink", ["own", pytest.param("plain", marks=pytest.mark.crash)])
def test_killed_at_a_step(new_database: NewDatabase, sink: str) -> None:
    kill_at_steps(program_of(new_database, sink), every=9 if sink == "own" else 6)


def kill_often(program: Program, kills: int) -> None:
    program.reset()
    report = kill_randomly(
        program.make, expected=program.expected, delivered=program.delivered, reset=program.reset, kills=kills
    )
    print(report)
    report.check()
    assert report.deaths == kills
    if program.sink == "own":
        assert report.repeated == 0


def test_a_few_kills(new_database: NewDatabase) -> None:
    kill_often(program_of(new_database, "own", rows=300), 4)


@pytest.mark.crash
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("deaths", [1, 4])
@pytest.mark.parametrize("sink", ["own", "plain"])
def test_every_step(new_database: NewDatabase, sink: str, deaths: int) -> None:
    kill_at_steps(program_of(new_database, sink), deaths=deaths)


@pytest.mark.crash
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("sink", ["own", "plain"])
def test_many_kills(new_database: NewDatabase, sink: str) -> None:
    kill_often(program_of(new_database, sink, rows=2_000), KILLS)
