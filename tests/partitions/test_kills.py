"""Workers and the calling process are killed; nothing is lost, nothing comes twice, and what is done stays done."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest

from partitions import programs
from partitions.programs import JOB_ID, Program, process_pool
from partitions.sources import delivered
from resumable_sync import ExecutorBrokenError, Job, JobStatus
from resumable_sync.stores.sql import SQLJobStore

KILLS = int(os.environ.get("RESUMABLE_SYNC_TEST_KILLS", "20"))


@pytest.fixture
def program(new_database: Callable[[str], str], tmp_path: Path, request: pytest.FixtureRequest) -> Program:
    kind = getattr(request, "param", "sqlite")
    folder = tmp_path / "kills"
    folder.mkdir()
    url = new_database(kind)
    return Program(source=url, store=url, folder=str(folder))


def done(program: Program) -> dict[str, Job]:
    """The parts that are completed."""
    with SQLJobStore(program.store) as store:
        parts = [job for job in store.jobs() if job.id != JOB_ID]
    # A worker may have died between its last save and the release of its lease, which then ends by itself.
    return {job.id: attrs.evolve(job, lease=None) for job in parts if job.status is JobStatus.COMPLETED}


def run_until_it_completes(program: Program) -> int:
    """Start again with a new pool as long as pools break; gives how often one did."""
    broken = 0
    while True:
        before = done(program)
        with process_pool() as pool:
            try:
                result = program.run(pool)
            except ExecutorBrokenError:
                broken += 1
                continue
            finally:
                after = done(program)
                assert {name: after[name] for name in before} == before  # what was done did not run again
        assert result.status == "completed"
        return broken


@pytest.mark.kills
def test_a_worker_of_a_process_pool_is_killed(program: Program) -> None:
    program.prepare(kills=1)
    assert run_until_it_completes(program) == 1
    assert program.kills_left == 0
    assert delivered(program.store) == program.expected


@contextlib.contextmanager
def group(command: list[str]) -> Iterator["subprocess.Popen[bytes]"]:
    """A process with its children in a group of their own, which ends with the block."""
    path = os.pathsep.join([str(Path(programs.__file__).parent.parent), *filter(None, sys.path)])
    process = subprocess.Popen(command, start_new_session=True, env={**os.environ, "PYTHONPATH": path})
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def die_after(program: Program, parts: int) -> list[str]:
    settings = {"source": program.source, "store": program.store, "folder": program.folder, "mode": program.mode}
    return [sys.executable, programs.__file__, str(parts), *(f"{name}={value}" for name, value in settings.items())]


@pytest.mark.kills
def test_the_calling_process_is_killed_and_its_workers_go_on_meanwhile(program: Program) -> None:
    program.prepare(kills=0)
    with group(die_after(program, 2)) as caller:
        assert caller.wait(120) == -signal.SIGKILL
        before = done(program)
        assert len(before) >= 2
        # Its workers may still be at their parts, which are left to them.
        with process_pool() as pool:
            result = program.run(pool)
    assert (result.status, result.action) == ("completed", "resume")
    after = done(program)
    assert {name: after[name] for name in before} == before
    assert delivered(program.store) == program.expected


@pytest.mark.crash
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("program", ["sqlite", "postgresql", "mariadb"], indirect=True)
@pytest.mark.parametrize("mode", ["append", "replace"])
def test_processes_are_killed_again_and_again(program: Program, mode: str) -> None:
    bigger = Program(
        source=program.source,
        store=program.store,
        folder=program.folder,
        rows=5_000,
        parts=16,
        batch_size=50,
        chance=0.2,
        mode=mode,
    )
    bigger.prepare(kills=0)
    for number in range(KILLS // 4):
        with group(die_after(bigger, number + 1)) as caller:
            caller.wait(300)
    bigger.load(KILLS)
    broken = run_until_it_completes(bigger)
    assert delivered(bigger.store) == bigger.expected
    # A pool breaks with the first of its two workers that dies, and the other one may die meanwhile.
    assert broken <= KILLS - bigger.kills_left <= 2 * broken
