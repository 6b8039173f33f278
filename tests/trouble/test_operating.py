"""What an operator does from another process, and sees afterwards: stops, deaths, who worked from where to where."""

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from typing_extensions import override

from resumable_sync import AttemptRecord, JobHeldError, reset_job
from resumable_sync.stores.sql import SQLJobStore
from resumable_sync.testing import SyncParts, SyncProcesses
from trouble.parts import JOB_ID, Insert, Numbers, check_exact, make_target
from waiting import until

BATCH_SIZE = 50
TOTAL = 500
DONE = 3 * BATCH_SIZE
"""Records after which the worker waits."""


class Waiting(Numbers):
    """Numbers that come only so far until the parent says so; no transaction is open meanwhile."""

    def __init__(self, go: Path) -> None:
        super().__init__(TOTAL)
        self.go = go

    @override
    def fetch(self, offset: int, limit: int) -> list[int]:
        if offset >= DONE:
            until(self.go.exists, 60.0)
        return super().fetch(offset, limit)


@attrs.frozen
class Worker:
    """The sync, in a process of its own."""

    url: str
    go: Path

    def __call__(self) -> SyncParts:
        options = {"batch_size": BATCH_SIZE}
        connector, store = Waiting(self.go), SQLJobStore(self.url)
        return SyncParts(job_id=JOB_ID, connector=connector, sink=Insert(), store=store, options=options)


def request_stop(job_id: str, _connector: Any, _sink: Any, *, store: Any, **_options: Any) -> None:
    store.request_stop(job_id)


@attrs.frozen
class Requester:
    """Asks for a stop, in another process."""

    url: str

    def __call__(self) -> SyncParts:
        return SyncParts(job_id=JOB_ID, connector=None, sink=None, store=SQLJobStore(self.url), run=request_stop)


@pytest.fixture(scope="module")
def processes() -> Iterator[SyncProcesses]:
    with SyncProcesses() as started:
        yield started


@pytest.fixture
def worker(database_url: str, tmp_path: Path) -> Worker:
    make_target(database_url)
    return Worker(database_url, tmp_path / "go")


@pytest.fixture
def store(database_url: str) -> Iterator[SQLJobStore]:
    with SQLJobStore(database_url) as made:
        yield made


def stands_at(store: SQLJobStore, records: int) -> Callable[[], bool]:
    """Give a condition: the checkpoint stands at so many records."""

    def condition() -> bool:
        job = store.load(JOB_ID)
        return job is not None and job.processed_records == records

    return condition


def shown(attempt: AttemptRecord) -> tuple[Any, ...]:
    return attempt.attempt, attempt.outcome, attempt.host, attempt.pid, attempt.from_records, attempt.to_records


def test_a_stop_from_another_process(processes: SyncProcesses, worker: Worker, store: SQLJobStore) -> None:
    process = processes.start(worker)
    until(stands_at(store, DONE))
    with pytest.raises(JobHeldError):
        reset_job(JOB_ID, store=store)
    requester = processes.start(Requester(worker.url)).wait(60)
    assert requester is not None
    assert requester.how == "returned", requester
    worker.go.touch()
    ended = process.wait(60)
    assert ended is not None
    assert (ended.how, ended.status) == ("returned", "interrupted"), ended
    job = store.load(JOB_ID)
    assert job is not None
    assert (job.status, job.lease) == ("interrupted", None)
    # Seen with the checkpoint of the next batch; a heartbeat may have been faster.
    assert job.processed_records in (DONE, DONE + BATCH_SIZE)
    (first,) = store.attempts(JOB_ID)
    host = socket.gethostname().replace(":", "-")[:100]
    assert shown(first) == (1, "interrupted", host, process.pid, 0, job.processed_records)
    check_finished(processes, worker, store, first)


def test_a_killed_process(processes: SyncProcesses, worker: Worker, store: SQLJobStore) -> None:
    process = processes.start(worker)
    until(stands_at(store, DONE))
    (alive,) = store.attempts(JOB_ID)
    assert (alive.outcome, alive.pid, alive.to_records, alive.ended_at) == ("running", process.pid, DONE, None)
    process.kill()
    assert process.wait(60) is not None
    until(lambda: not Path(f"/proc/{process.pid}").exists() or _defunct(process.pid))
    worker.go.touch()
    dead = attrs.evolve(alive, outcome="died")
    check_finished(processes, worker, store, dead)


def _defunct(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def check_finished(processes: SyncProcesses, worker: Worker, store: SQLJobStore, first: AttemptRecord) -> None:
    """Let another process finish the job, and see both in the lineage."""
    last = processes.start(worker)
    ended = last.wait(60)
    assert ended is not None
    assert (ended.how, ended.status) == ("returned", "completed"), ended
    check_exact(worker.url, TOTAL)
    one, two = store.attempts(JOB_ID)
    assert shown(one) == shown(first)
    assert (one.from_cursor, one.to_cursor) == (None, [first.to_records])
    assert shown(two) == (2, "completed", first.host, last.pid, first.to_records, TOTAL)
    assert (two.from_cursor, two.to_cursor) == ([first.to_records], [TOTAL])
    assert one.started_at < two.started_at
    assert one.ended_at is not None
    assert two.ended_at is not None
