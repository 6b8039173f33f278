"""A job store in memory, with a switch for each mistake that an implementor could make."""

import contextlib
import threading
import unicodedata
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
from typing_extensions import override

from resumable_sync import ConfigurationError, Job, JobHeldError, JobStore, Lease, LeaseLostError, StoreError
from resumable_sync._cursor import decode_cursor, encode_cursor


@attrs.define
class _Row:
    job: Job
    cursor: str
    token: int
    owner: str
    ttl: float
    until: datetime
    stop: bool = False


class TinyStore(JobStore):
    """Correct without bugs; each of `bugs` is one that the suite must find."""

    def __init__(self, *bugs: str) -> None:
        self.bugs = bugs
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.rows: dict[str, _Row] = {}
        self.tokens: dict[str, int] = {}
        self.lock = threading.RLock()

    def pass_time(self, _: Lease) -> None:
        self.now += timedelta(seconds=1)

    def _key(self, job_id: str) -> str:
        if "ids ignore case" in self.bugs:
            return job_id.casefold()
        if "ids ignore accents" in self.bugs:
            return "".join(one for one in unicodedata.normalize("NFD", job_id) if not unicodedata.combining(one))
        return job_id.rstrip(" ") if "ids ignore trailing blanks" in self.bugs else job_id

    def _lease(self, job_id: str, row: _Row) -> Lease:
        stop = row.stop and "save does not tell of a stop" not in self.bugs
        return Lease(job_id=job_id, owner=row.owner, fencing_token=row.token, expires_at=row.until, stop_requested=stop)

    def _alive(self, row: _Row) -> bool:
        return row.until > self.now

    @override
    def load(self, job_id: str) -> Job | None:
        row = self.rows.get(self._key(job_id))
        if row is None:
            return None
        shown = self._alive(row) or "load shows expired leases" in self.bugs
        lease = self._lease(row.job.id, row) if shown else None
        return attrs.evolve(row.job, cursor=decode_cursor(row.cursor), lease=lease)

    @override
    def jobs(self) -> list[Job]:
        names = list(self.rows) if "jobs are not ordered" in self.bugs else sorted(self.rows)
        return [job for job in (self.load(name) for name in names) if job is not None]

    @override
    def acquire(self, job_id: str, *, owner: str, ttl: float, replacing: int | None = None) -> Lease:
        if not 1 <= len(job_id) <= 255:
            msg = "bad id"
            raise ConfigurationError(msg)
        with contextlib.nullcontext() if "acquire is not atomic" in self.bugs else self.lock:
            key = self._key(job_id)
            row = self.rows.get(key)
            alive = row is not None and self._alive(row)
            held = row is not None and alive and row.owner != owner
            if replacing is not None:
                newest = row.token if row is not None else None
                held = newest != replacing and (alive or "replacing or free" not in self.bugs)
            if held:
                raise JobHeldError(row.owner if row else "", row.until if row else None)
            if "acquire is not atomic" in self.bugs:
                threading.Event().wait(0.02)  # the others look now
            token = self.tokens.get(key, 0) + 1
            if "same owner keeps its token" in self.bugs and row is not None and alive and row.owner == owner:
                token = row.token
            self.tokens[key] = token
            until = self.now + timedelta(seconds=ttl)
            if row is None:
                row = self.rows[key] = _Row(Job(id=job_id), encode_cursor(None), token, owner, ttl, until)
            if "a grant keeps the stop" not in self.bugs:
                row.stop = row.stop and row.owner == owner and "an owner forgets the stop" not in self.bugs
            row.token, row.owner, row.ttl, row.until = token, owner, ttl, until
            return self._lease(job_id, row)

    def _good(self, lease: Lease, call: str) -> _Row:
        row = self.rows.get(self._key(lease.job_id))
        if row is None or (row.token != lease.fencing_token and f"a zombie may {call}" not in self.bugs):
            raise LeaseLostError(lease.job_id, lease.fencing_token)
        if "an expired lease is lost" in self.bugs and not self._alive(row):
            raise LeaseLostError(lease.job_id, lease.fencing_token)
        return row

    @override
    def renew(self, lease: Lease, ttl: float) -> Lease:
        with self.lock:
            row = self._good(lease, "renew")
            row.ttl, row.until = ttl, self.now + timedelta(seconds=ttl)
            return self._lease(lease.job_id, row)

    @override
    def save(self, job: Job, lease: Lease) -> Lease:
        with self.lock:
            row = self._good(lease, "save")
            if job.id != lease.job_id:
                msg = "another job"
                raise ConfigurationError(msg)
            row.cursor = encode_cursor(job.cursor)
            row.job = attrs.evolve(job, cursor=None, lease=None)
            if "an error is cut off" in self.bugs and job.error:
                row.job = attrs.evolve(row.job, error=job.error[:255])
            if "tuples become lists" in self.bugs:
                row.cursor = encode_cursor(_lists(job.cursor))
            if "save does not extend the lease" not in self.bugs:
                row.until = self.now + timedelta(seconds=row.ttl)
            return self._lease(job.id, row)

    @override
    def release(self, lease: Lease) -> None:
        with self.lock:
            row = self._good(lease, "release")
            row.until = self.now

    @override
    def request_stop(self, job_id: str) -> None:
        row = self.rows.get(self._key(job_id))
        if row is not None and (self._alive(row) or "a stop waits for a worker" in self.bugs):
            row.stop = True

    @override
    def delete(self, job_id: str) -> None:
        with self.lock:
            key = self._key(job_id)
            self.rows.pop(key, None)
            if "tokens repeat after delete" in self.bugs:
                self.tokens.pop(key, None)


class BrokenStore(TinyStore):
    """Cannot reach its data; each of `bugs` is a call that does not say so."""

    @override
    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name.startswith("_") or not callable(found) or name in super().__getattribute__("bugs"):
            return found

        def fails(*_: object, **__: object) -> Any:
            msg = "the data cannot be reached; start the server"
            raise StoreError(msg)

        return fails


def _lists(value: Any) -> Any:
    return [_lists(item) for item in value] if isinstance(value, tuple) else value
