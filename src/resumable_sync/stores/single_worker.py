"""A base class for an existing jobs table that has no place for leases."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from datetime import datetime
from functools import wraps
from typing import Any

import attrs
from typing_extensions import override

from resumable_sync._cursor import encode_cursor
from resumable_sync._errors import ConfigurationError, CursorError, StateCorruptError
from resumable_sync._model import Job, JobStatus, Lease, utc_now
from resumable_sync._protocols import JobStore
from resumable_sync._validate import check_job_id
from resumable_sync.stores._leases import LeaseBook, check_owner, check_ttl

__all__ = ["SingleWorkerJobStore"]

_BOOK = "_resumable_sync_leases"
_COUNTS = (
    "run",
    "attempt",
    "processed_records",
    "processed_batches",
    "total_records",
    "dead_letters",
    "stalled_attempts",
    "batch_size",
)
_OPTIONAL = ("total_records", "batch_size")
_TEXTS = ("run_id", "fingerprint", "error")
_TIMES = ("created_at", "started_at", "updated_at", "finished_at")


class SingleWorkerJobStore(JobStore, ABC):
    """Use an existing table as the job store, where one process at a time works on a job.

    Implement `load` and `save`. A table with only `id`, `status` and `processed_records` is enough: such a job resumes
    at its last whole batch (with `batch_size="auto"` at the very number), if its connector has `cursor_at`.

    The leases are kept in the memory of this object: it keeps threads that share it apart and fences out the late ones,
    but not two processes, nor two stores on the same table. See to it that there is only one.

    What the class adds around the methods you write:

    - `save` is entered only with a good lease (else `LeaseLostError`), nobody can acquire the job while it runs, and
      the lease is extended after it; what it returns does not matter (return `lease` to please a type checker);
    - the job that `load` gives gets the live lease, and a `status` given as text becomes a `JobStatus`; a job that was
      acquired and never saved is `pending`; a field that cannot be one, such as a count that is NULL or text, is a
      `StateCorruptError`;
    - `delete`, which you may add, ends the lease too.

    `jobs` names the jobs that this object has acquired; override it to list the table. Exceptions of your methods go
    on to the caller as they are. `super().__init__()` need not be called.

    Examples:
        >>> class Jobs(SingleWorkerJobStore):
        ...     def __init__(self, rows):
        ...         self.rows = rows
        ...
        ...     def load(self, job_id):
        ...         row = self.rows.get(job_id)
        ...         return row and Job(id=job_id, status=row["status"], processed_records=row["processed_records"])
        ...
        ...     def save(self, job, lease):
        ...         self.rows[job.id] = {"status": job.status.value, "processed_records": job.processed_records}
        >>> Jobs({"orders": {"status": "failed", "processed_records": 1200}}).load("orders").processed_records
        1200
    """

    @override
    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name, wrap in _WRAPPERS.items():
            method = cls.__dict__.get(name)
            if inspect.isfunction(method) and not hasattr(method, _BOOK):
                wrapped = wrap(method)
                setattr(wrapped, _BOOK, True)
                setattr(cls, name, wrapped)

    @property
    def _leases(self) -> LeaseBook:
        # Made on first use, since a subclass need not call __init__; `setdefault` lets one of two threads win.
        book = self.__dict__.get(_BOOK)
        if book is None:
            book = self.__dict__.setdefault(_BOOK, LeaseBook(utc_now))
        assert isinstance(book, LeaseBook)  # noqa: S101 - for the type checker
        return book

    @override
    def __getstate__(self) -> dict[str, Any]:
        # Leases stay in the process they were granted in.
        return {name: value for name, value in self.__dict__.items() if name != _BOOK}

    @override
    @abstractmethod
    def load(self, job_id: str) -> Job | None:
        """Give the job as your table has it; None if there is no such job.

        Fields that the table does not have keep their defaults.
        """

    @override
    @abstractmethod
    def save(self, job: Job, lease: Lease) -> Lease:
        """Store the job, durably when this returns: insert or update the row of `job.id`.

        Args:
            job: Its `lease` is not to be stored.
            lease: For a table that wants to note `owner` or `fencing_token`.
        """

    @override
    def jobs(self) -> Iterable[Job]:
        loaded = [self.load(job_id) for job_id in self._leases.job_ids()]
        return [job for job in loaded if job is not None]

    @override
    def acquire(self, job_id: str, *, owner: str, ttl: float, replacing: int | None = None) -> Lease:
        return self._leases.acquire(check_job_id(job_id), check_owner(owner), check_ttl(ttl), replacing)

    @override
    def renew(self, lease: Lease, ttl: float) -> Lease:
        return self._leases.renew(lease, check_ttl(ttl))

    @override
    def release(self, lease: Lease) -> None:
        self._leases.release(lease)

    @override
    def request_stop(self, job_id: str) -> None:
        self._leases.request_stop(check_job_id(job_id))

    @override
    def delete(self, job_id: str) -> None:
        """Refuse; override it to remove the row.

        Raises:
            ConfigurationError: Always.
        """
        msg = f"{type(self).__name__} cannot delete job {job_id!r}: override delete(job_id) to remove the row"
        raise ConfigurationError(msg)


def _wrap_load(load: Callable[[Any, str], Any]) -> Callable[..., Any]:
    @wraps(load)
    def wrapper(self: SingleWorkerJobStore, job_id: str) -> Job | None:
        job = load(self, check_job_id(job_id))
        if job is None:
            if not self._leases.knows(job_id):
                return None
            job = Job(id=job_id)
        if not isinstance(job, Job):
            msg = f"{type(self).__name__}.load gave a {type(job).__name__}; give a Job or None"
            raise ConfigurationError(msg)
        _check(job, job_id)
        return attrs.evolve(job, status=_status(job), lease=self._leases.live(job_id))

    return wrapper


def _wrap_save(save: Callable[[Any, Job, Lease], Any]) -> Callable[..., Any]:
    @wraps(save)
    def wrapper(self: SingleWorkerJobStore, job: Job, lease: Lease) -> Lease:
        if job.id != lease.job_id:
            msg = f"job {job.id!r} cannot be saved under a lease of {lease.job_id!r}; acquire a lease of its own"
            raise ConfigurationError(msg)
        return self._leases.hold(lease, lambda: save(self, job, lease))

    return wrapper


def _wrap_delete(delete: Callable[[Any, str], Any]) -> Callable[..., Any]:
    @wraps(delete)
    def wrapper(self: SingleWorkerJobStore, job_id: str) -> None:
        delete(self, check_job_id(job_id))
        self._leases.forget(job_id)

    return wrapper


def _check(job: Job, job_id: str) -> None:
    """Refuse what a table can hold and a job cannot: it would fail, or count wrongly, far from here.

    Raises:
        StateCorruptError: If a field is of another type or out of range.
    """
    if job.id != job_id:
        raise StateCorruptError(job_id, "id", "is that of another job")
    for field in _COUNTS:
        value: Any = getattr(job, field)
        if value is None and field in _OPTIONAL:
            continue
        if type(value) is not int or value < 0:
            what = "is negative" if type(value) is int else f"is a {type(value).__name__}"
            raise StateCorruptError(job_id, field, f"{what}, not an integer from 0 up")
    for field in _TEXTS:
        if not isinstance(getattr(job, field), str | None):
            raise StateCorruptError(job_id, field, "is neither text nor None")
    for field in _TIMES:
        time: Any = getattr(job, field)
        if time is not None and (not isinstance(time, datetime) or time.tzinfo is None):
            raise StateCorruptError(job_id, field, "is not a datetime with a time zone")
    try:
        encode_cursor(job.cursor)
    except CursorError as error:
        raise StateCorruptError(job_id, "cursor", f"cannot be one: {error.message}") from None


def _status(job: Job) -> JobStatus:
    try:
        return JobStatus(job.status)
    except ValueError:
        names = ", ".join(JobStatus)
        raise StateCorruptError(job.id, "status", f"is none of {names}") from None


_WRAPPERS: dict[str, Callable[[Any], Callable[..., Any]]] = {
    "load": _wrap_load,
    "save": _wrap_save,
    "delete": _wrap_delete,
}
