"""Jobs in the memory of this process: for tests and notebooks."""

import threading
from collections.abc import Callable, Iterable
from datetime import datetime

import attrs
from typing_extensions import override

from resumable_sync._cursor import decode_cursor, encode_cursor
from resumable_sync._errors import ConfigurationError
from resumable_sync._model import Job, Lease, utc_now
from resumable_sync._protocols import JobStore
from resumable_sync._validate import check_job_id
from resumable_sync.stores._leases import LeaseBook, check_owner, check_ttl

__all__ = ["MemoryJobStore"]


class MemoryJobStore(JobStore):
    """Keep jobs in memory; they are gone with the process.

    Threads may share it, processes cannot. It has no transactions, so a sink gets no connection and the guarantee is
    that of the sink alone.

    Args:
        clock: Gives the time, aware; tests pass their own to let leases end.

    Examples:
        >>> from resumable_sync.stores.memory import MemoryJobStore
        >>> store = MemoryJobStore()
        >>> lease = store.acquire("orders", owner="me", ttl=60.0)
        >>> store.load("orders").status.value
        'pending'
    """

    def __init__(self, *, clock: Callable[[], datetime] | None = None) -> None:
        self._clock = clock or utc_now
        self._book = LeaseBook(self._clock)
        # Creating and deleting a job change both the leases and the jobs.
        self._lock = threading.Lock()
        # The cursor is kept encoded: a list that the caller goes on to change must not change the stored job.
        self._jobs: dict[str, tuple[Job, str]] = {}

    @override
    def load(self, job_id: str) -> Job | None:
        kept = self._jobs.get(check_job_id(job_id))
        if kept is None:
            return None
        job, cursor = kept
        return attrs.evolve(job, cursor=decode_cursor(cursor, job_id=job_id), lease=self._book.live(job_id))

    @override
    def jobs(self) -> Iterable[Job]:
        loaded = [self.load(job_id) for job_id in sorted(self._jobs)]
        return [job for job in loaded if job is not None]

    @override
    def acquire(self, job_id: str, *, owner: str, ttl: float, replacing: int | None = None) -> Lease:
        check_job_id(job_id)
        with self._lock:
            lease = self._book.acquire(job_id, check_owner(owner), check_ttl(ttl), replacing)
            self._jobs.setdefault(job_id, (Job(id=job_id, created_at=self._clock()), encode_cursor(None)))
        return lease

    @override
    def renew(self, lease: Lease, ttl: float) -> Lease:
        return self._book.renew(lease, check_ttl(ttl))

    @override
    def save(self, job: Job, lease: Lease) -> Lease:
        if job.id != lease.job_id:
            msg = f"job {job.id!r} cannot be saved under a lease of {lease.job_id!r}; acquire a lease of its own"
            raise ConfigurationError(msg)
        kept = job, encode_cursor(job.cursor)
        return self._book.hold(lease, lambda: self._jobs.__setitem__(job.id, kept))

    @override
    def release(self, lease: Lease) -> None:
        self._book.release(lease)

    @override
    def request_stop(self, job_id: str) -> None:
        self._book.request_stop(check_job_id(job_id))

    @override
    def delete(self, job_id: str) -> None:
        check_job_id(job_id)
        with self._lock:
            self._book.forget(job_id)
            self._jobs.pop(job_id, None)
