"""The crash tests pass the engine, and find loops that lose, repeat or wait."""

import os
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import attrs
import pytest

from resumable_sync.testing import (
    CrashReport,
    KillAtStep,
    SyncParts,
    SyncProcesses,
    _crash,
    crash_points,
    freeze_process,
    kill_randomly,
)
from testing.programs import Loop, Program, fail

FOUND = {
    "saves before it writes": "are missing",
    "saves after it committed": "are there again, with the guarantee exactly_once",
    "starts from zero": "that were not in a batch open at a death",
    "waits for the lease": "JobHeldError",
    "forgets to complete": "the job ends running",
    "keeps the lease": "still held at the end",
}


def _points(program: Program, every: int, *, first: int = 1, deaths: int = 1) -> CrashReport:
    return crash_points(
        program.make,
        expected=program.expected,
        delivered=program.delivered,
        reset=program.reset,
        first=first,
        every=every,
        deaths=deaths,
    )


@pytest.mark.parametrize(
    ("options", "wishes", "largest"),
    [
        ({}, (None, None), 1_000),
        ({}, (None, 5_000), 5_000),
        ({}, (500, 5_000), 500),
        ({"batch_size": None}, (9_000, 5_000), 5_000),
        ({"batch_size": 7}, (None, 5_000), 7),
    ],
)
def test_a_batch_is_as_large_as_the_engine_makes_it(options: Any, wishes: Any, largest: int) -> None:
    connector, sink = (Mock(spec=[]) if wish is None else Mock(preferred_batch_size=wish) for wish in wishes)
    parts = SyncParts(job_id="numbers", connector=connector, sink=sink, store=None, options=options)
    assert _crash._largest_batch(parts) == largest


def test_the_engine_passes(tmp_path: Path) -> None:
    report = _points(Program(folder=tmp_path), every=6)
    report.check()
    assert report.deaths == report.points >= 10
    assert report.runs == report.points + 2
    assert sum(report.killed_at.values()) == report.deaths
    assert report.repeated == 0


def test_a_loop_without_mistakes_passes(tmp_path: Path) -> None:
    report = _points(Program(folder=tmp_path, run=Loop("")), every=10, deaths=2)
    report.check()
    assert report.deaths > report.points


@pytest.mark.parametrize("wrong", list(FOUND))
def test_a_mistake_is_found(tmp_path: Path, wrong: str) -> None:
    # Between the write and the save of one batch, after the commit of another one, and at the end.
    report = _points(Program(folder=tmp_path, run=Loop(wrong)), first=26, every=21)
    assert any(FOUND[wrong] in violation for violation in report.violations), report.violations
    with pytest.raises(AssertionError, match="violations"):
        report.check()


def test_random_kills(tmp_path: Path) -> None:
    program = Program(folder=tmp_path)
    kill = partial(kill_randomly, expected=program.expected, delivered=program.delivered, reset=program.reset)
    report = kill(program.make, kills=5, seed=7)
    report.check()
    assert report.deaths == 5
    # A run whose process is killed after the job was completed, but before it ended, needs no further start.
    assert report.deaths < report.starts <= report.deaths + report.runs
    # With a commit per record most of a process's short life is between its first commit and its last.
    lossy = attrs.evolve(program, run=Loop("starts from zero"), options=program.options | {"batch_size": 1})
    assert kill(lossy.make, kills=1_000, seed=7).violations


def test_a_child_tells_what_became_of_it(tmp_path: Path) -> None:
    program = Program(folder=tmp_path)
    program.reset()
    with SyncProcesses() as processes:
        killed = processes.start(program.make, KillAtStep(3)).wait(60)
        assert killed is not None
        assert (killed.how, killed.step) == ("died", "before acquire")
        ended = processes.start(program.make).wait(60)
        assert ended is not None
        assert (ended.how, ended.action, ended.status, ended.records) == ("returned", "new", "completed", 23)
        assert ended.guarantee == "exactly_once"
        raised = processes.start(fail).wait(60)
        assert raised is not None
        assert (raised.how, raised.error, raised.message) == ("raised", "ValueError", "ValueError: nothing can be made")


def test_no_child_outlives_the_block(tmp_path: Path) -> None:
    program = Program(folder=tmp_path)
    program.reset()
    frozen = partial(_frozen, program)
    with SyncProcesses() as processes:
        children = [processes.start(frozen), processes.start(frozen)]
        assert children[0].wait(0.01) is None
    for child in children:
        with pytest.raises(ProcessLookupError):
            os.kill(child.pid, 0)


def test_what_does_not_pickle_is_an_error() -> None:
    with SyncProcesses() as processes, pytest.raises(Exception, match="pickle"):
        processes.start(lambda: None)  # type: ignore[arg-type,return-value]


def _frozen(program: Program) -> SyncParts:
    freeze_process()
    return program.make()
