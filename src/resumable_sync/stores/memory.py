"""Jobs in the memory of this process: for tests and notebooks."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

import attrs
from typing_extensions import override

from resumable_sync._cursor import decode_cursor, encode_cursor
from resumable_sync._errors import ConfigurationError
from resumable_sync._history import History, HistoryStore
from resumable_sync._model import AttemptRecord, Job, JobStatus, Lease, Outcome, utc_now
from resumable_sync._protocols import LineageStore
from resumable_sync._validate import check_job_id
from resumable_sync.stores._leases import KEPT_ATTEMPTS, LeaseBook, check_owner, check_ttl

__all__ = ["MemoryJobStore"]

_OUTCOMES: dict[JobStatus, Outcome] = {
    JobStatus.INTERRUPTED: "interrupted",
    JobStatus.FAILED: "failed",
    JobStatus.INCOMPLETE: "incomplete",
    JobStatus.COMPLETED: "completed",
}


@attrs.frozen
class _Kept:
    """A job as saved; the cursor is encoded, since a list that the caller goes on to change must not change the job."""

    job: Job
    cursor: str
    token: int | None = None  # that it was saved under


class MemoryJobStore(LineageStore, HistoryStore):
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
        # Creating, granting, giving back and deleting a job change both the leases and the jobs.
        self._lock = threading.Lock()
        self._jobs: dict[str, _Kept] = {}
        self._attempts: dict[str, deque[AttemptRecord]] = {}
        self._histories: dict[str, History | None] = {}

    @override
    def load(self, job_id: str) -> Job | None:
        kept = self._jobs.get(check_job_id(job_id))
        if kept is None:
            return None
        return attrs.evolve(kept.job, cursor=decode_cursor(kept.cursor, job_id=job_id), lease=self._book.live(job_id))

    @override
    def jobs(self) -> Iterable[Job]:
        loaded = [self.load(job_id) for job_id in sorted(self._jobs)]
        return [job for job in loaded if job is not None]

    @override
    def acquire(self, job_id: str, *, owner: str, ttl: float, replacing: int | None = None) -> Lease:
        check_job_id(job_id)
        with self._lock:
            lease = self._book.acquire(job_id, check_owner(owner), check_ttl(ttl), replacing)
            kept = self._jobs.setdefault(job_id, _Kept(Job(id=job_id, created_at=self._clock()), encode_cursor(None)))
            self._granted(kept, lease)
        return lease

    @override
    def renew(self, lease: Lease, ttl: float) -> Lease:
        return self._book.renew(lease, check_ttl(ttl))

    @override
    def save(self, job: Job, lease: Lease) -> Lease:
        if job.id != lease.job_id:
            msg = f"job {job.id!r} cannot be saved under a lease of {lease.job_id!r}; acquire a lease of its own"
            raise ConfigurationError(msg)
        kept = _Kept(job, encode_cursor(job.cursor), lease.fencing_token)
        return self._book.hold(lease, lambda: self._jobs.__setitem__(job.id, kept))

    @override
    def release(self, lease: Lease) -> None:
        with self._lock:
            self._book.release(lease)
            self._given_back(lease)

    @override
    def request_stop(self, job_id: str) -> None:
        self._book.request_stop(check_job_id(job_id))

    @override
    def delete(self, job_id: str) -> None:
        check_job_id(job_id)
        with self._lock:
            self._book.forget(job_id)
            self._jobs.pop(job_id, None)
            self._attempts.pop(job_id, None)
            self._histories.pop(job_id, None)

    @override
    def attempts(self, job_id: str) -> Sequence[AttemptRecord]:
        check_job_id(job_id)
        with self._lock:
            attempts = list(self._attempts.get(job_id, ()))
            kept = self._jobs.get(job_id)
            if kept is not None and attempts and attempts[-1].outcome == "running":
                alive = self._book.live(job_id) is not None
                attempts[-1] = _at(attempts[-1], kept, "running" if alive else "died")
        return attempts

    @override
    def keep_history(self, history: History | None, lease: Lease) -> None:
        self._book.hold(lease, lambda: self._histories.__setitem__(lease.job_id, history))

    @override
    def history(self, job_id: str) -> History | None:
        return self._histories.get(check_job_id(job_id))

    def _granted(self, kept: _Kept, lease: Lease) -> None:
        attempts = self._attempts.setdefault(lease.job_id, deque(maxlen=KEPT_ATTEMPTS))
        last = attempts[-1] if attempts else None
        if last is not None and last.outcome == "running":
            if last.owner == lease.owner:
                attempts[-1] = attrs.evolve(last, fencing_token=lease.fencing_token)
                return
            last = _at(last, kept, "died")
            attempts[-1] = attrs.evolve(last, ended_at=last.ended_at or self._clock())
        cursor, records = decode_cursor(kept.cursor), kept.job.processed_records
        attempts.append(
            AttemptRecord(
                job_id=lease.job_id,
                run=kept.job.run,
                attempt=kept.job.attempt,
                owner=lease.owner,
                fencing_token=lease.fencing_token,
                started_at=self._clock(),
                from_cursor=cursor,
                from_records=records,
            )
        )

    def _given_back(self, lease: Lease) -> None:
        attempts, kept = self._attempts[lease.job_id], self._jobs[lease.job_id]
        if not attempts or attempts[-1].outcome != "running":
            return  # it was given back before
        attempt = attempts.pop()
        if _used(attempt, kept):
            outcome, error = _OUTCOMES.get(kept.job.status, "interrupted"), kept.job.error
            attempt = attrs.evolve(_at(attempt, kept, outcome), outcome=outcome, error=error, ended_at=self._clock())
            attempts.append(attempt)


def _used(attempt: AttemptRecord, kept: _Kept) -> bool:
    """Whether the job was saved under the lease of an attempt, as more than pending."""
    return kept.token == attempt.fencing_token and kept.job.status is not JobStatus.PENDING


def _at(attempt: AttemptRecord, kept: _Kept, silent: Outcome) -> AttemptRecord:
    """Give an attempt as its job shows it.

    Args:
        attempt: As it began.
        kept: The job.
        silent: The outcome if the attempt did not save one.
    """
    job, begun = kept.job, kept.job.run != attempt.run
    # A replay of dead letters leaves the number and mostly the status as they were: they do not say that it ended.
    moved = begun or job.attempt != attempt.attempt or job.status is JobStatus.COMPLETED
    said = _OUTCOMES.get(job.status) if moved and _used(attempt, kept) else None
    return attrs.evolve(
        attempt,
        run=job.run,
        attempt=job.attempt,
        from_cursor=None if begun else attempt.from_cursor,
        from_records=0 if begun else attempt.from_records,
        to_cursor=decode_cursor(kept.cursor),
        to_records=job.processed_records,
        outcome=said or silent,
        error=None if said is None else job.error,
        ended_at=None if said is None else job.finished_at,
    )
