"""A process that resets a job is killed at every step: the job is as it was or reset, and never anything between."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest

from crash.programs import JOB_ID, Program
from resumable_sync import Job, JobHeldError, JobStatus, reset_job, run_full_sync
from resumable_sync.stores.sql import SQLJobStore
from resumable_sync.testing import SyncParts, SyncProcesses
from resumable_sync.testing._processes import KillAtStep


def reset(job_id: str, _connector: Any, _sink: Any, *, store: Any, **_options: Any) -> Job:
    return reset_job(job_id, store=store)


@attrs.frozen
class Reset:
    """Resets the job of a program."""

    program: Program

    def __call__(self) -> SyncParts:
        return attrs.evolve(self.program.make(), run=reset)


def reset_after_death(store: SQLJobStore) -> Job:
    """Reset the job once the killed process is gone: its pipe is closed a moment before."""
    deadline = time.monotonic() + 30
    pause = threading.Event()
    while True:
        try:
            return reset_job(JOB_ID, store=store)
        except JobHeldError:
            assert time.monotonic() < deadline, "the killed process is not seen to be gone"
            pause.wait(0.01)


SERVERS = [pytest.param(kind, marks=pytest.mark.crash) for kind in ("postgresql", "mariadb")]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc to see that a process is gone")
@pytest.mark.parametrize("kind", ["sqlite", *SERVERS])
def test_killed_at_every_step(new_database: Callable[[str], str], kind: str) -> None:
    url = new_database(kind)
    program = Program(source=url, store=url, target=url)
    program.fill()
    seen: set[str] = set()
    with SyncProcesses() as processes, SQLJobStore(url) as store:
        for step in range(1, 100):
            program.reset()
            parts = program.make()
            before = run_full_sync(JOB_ID, parts.connector, parts.sink, store=store, batch_size=6, max_records=6).job
            ended = processes.start(Reset(program), KillAtStep(step)).wait(60)
            assert ended is not None
            job = attrs.evolve(store.load(JOB_ID) or Job(id=""), lease=None)
            fresh = Job(id=JOB_ID, run=1, created_at=before.created_at)
            assert job in (before, fresh), ended
            seen.add(str(job.status))
            if ended.how == "returned":
                break
            assert ended.how == "died", ended
            assert reset_after_death(store) == fresh
        else:
            pytest.fail("it never came to its end")
        assert job.status is JobStatus.PENDING
        result = run_full_sync(JOB_ID, parts.connector, lambda _: None, store=store)
        assert (result.action, result.job.run, result.records) == ("new", 2, program.rows)
    assert seen == {"interrupted", "pending"}
