"""Leases in the memory of this process, for the stores that keep them there."""

import math
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs

from resumable_sync._errors import ConfigurationError, JobHeldError, LeaseLostError
from resumable_sync._model import Lease

__all__ = ["KEPT_ATTEMPTS", "LATER_ATTEMPT", "LeaseBook", "check_owner", "check_ttl", "microseconds"]

LATER_ATTEMPT = "an attempt that came later"
"""Owner named in a `JobHeldError` where `replacing` failed on a job that nobody holds now."""

KEPT_ATTEMPTS = 100
"""How many attempts of a job the stores keep, the newest."""

MAX_OWNER_LENGTH = 255
MAX_TTL = 1_000_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def microseconds(time: datetime) -> int:
    """Give an aware time as microseconds since 1970."""
    return (time - _EPOCH) // _MICROSECOND


def check_owner(owner: Any) -> str:
    """Give the owner back if it can be kept by every store.

    Raises:
        ConfigurationError: If it is not a str of 1 to 255 characters, or holds U+0000 or a lone surrogate.
    """
    if (
        type(owner) is not str
        or not 1 <= len(owner) <= MAX_OWNER_LENGTH
        or any(character == "\0" or "\ud800" <= character <= "\udfff" for character in owner)
    ):
        msg = f"the owner {owner!r} cannot be kept; give 1 to {MAX_OWNER_LENGTH} characters without U+0000"
        raise ConfigurationError(msg)
    return owner


def check_ttl(ttl: Any) -> float:
    """Give the ttl back if a lease can have it.

    Raises:
        ConfigurationError: If it is not a positive, finite number of seconds below 30 years.
    """
    if isinstance(ttl, bool) or not isinstance(ttl, int | float) or not math.isfinite(ttl) or not 0 < ttl <= MAX_TTL:
        msg = f"a lease cannot last {ttl!r} seconds; give a positive number, such as 60.0"
        raise ConfigurationError(msg)
    return ttl


@attrs.define
class _Grant:
    """The newest grant of one job, alive or not; `owner` is None once it was released."""

    lock: threading.RLock = attrs.field(factory=threading.RLock)
    token: int = 0
    owner: str | None = None
    ttl: float = 0.0
    expires_at: datetime = _EPOCH
    stop_requested: bool = False
    deleted: bool = False

    def lease(self, job_id: str) -> Lease:
        return Lease(
            job_id=job_id,
            owner=self.owner or "",
            fencing_token=self.token,
            expires_at=self.expires_at,
            stop_requested=self.stop_requested,
        )


class LeaseBook:
    """Grants, renews and fences the leases of jobs, safely from many threads.

    Args:
        clock: Gives the time, aware.
    """

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._grants: dict[str, _Grant] = {}
        self._newest_deleted = 0

    def job_ids(self) -> list[str]:
        """Name all jobs that were ever acquired and not forgotten, ordered."""
        with self._lock:
            return sorted(self._grants)

    def knows(self, job_id: str) -> bool:
        """Whether the job was ever acquired and not forgotten."""
        return job_id in self._grants

    def live(self, job_id: str) -> Lease | None:
        """Give the lease of a job if it is alive."""
        grant = self._grants.get(job_id)
        if grant is None:
            return None
        with grant.lock:
            return grant.lease(job_id) if self._alive(grant) else None

    def acquire(self, job_id: str, owner: str, ttl: float, replacing: int | None) -> Lease:
        """Grant the lease, as `JobStore.acquire`.

        Raises:
            JobHeldError: If another lease is alive, or the newest token is not `replacing`.
        """
        while True:
            with self._lock:
                grant = self._grants.get(job_id)
                if grant is None:
                    if replacing is not None:
                        raise JobHeldError(LATER_ATTEMPT, None, job_id)
                    grant = self._grants[job_id] = _Grant()
            with grant.lock:
                if grant.deleted:
                    continue
                free = not self._alive(grant) or grant.owner == owner
                if not (free if replacing is None else grant.token == replacing):
                    raise JobHeldError(grant.owner or LATER_ATTEMPT, grant.expires_at if grant.owner else None, job_id)
                now = self._clock()
                grant.token = max(grant.token + 1, self._newest_deleted + 1, microseconds(now))
                # The same attempt, whose first answer was lost, is still to stop.
                grant.stop_requested = grant.owner == owner and grant.stop_requested
                grant.owner, grant.ttl = owner, ttl
                grant.expires_at = now + timedelta(seconds=ttl)
                return grant.lease(job_id)

    def hold(self, lease: Lease, action: Callable[[], object]) -> Lease:
        """Do something while nobody else can acquire the job, then extend the lease by its ttl.

        Raises:
            LeaseLostError: If the lease's token is not the newest, or it was released.
        """
        grant = self._grant(lease)
        with grant.lock:
            self._check(grant, lease)
            action()
            grant.expires_at = self._clock() + timedelta(seconds=grant.ttl)
            return grant.lease(lease.job_id)

    def renew(self, lease: Lease, ttl: float) -> Lease:
        """Let the lease end `ttl` seconds from now, as `JobStore.renew`.

        Raises:
            LeaseLostError: If the lease's token is not the newest, or it was released.
        """
        grant = self._grant(lease)
        with grant.lock:
            self._check(grant, lease)
            grant.ttl = ttl
            grant.expires_at = self._clock() + timedelta(seconds=ttl)
            return grant.lease(lease.job_id)

    def release(self, lease: Lease) -> None:
        """End the lease, as `JobStore.release`.

        Raises:
            LeaseLostError: If its token is not the newest.
        """
        grant = self._grant(lease)
        with grant.lock:
            if grant.deleted or grant.token != lease.fencing_token:
                raise LeaseLostError(lease.job_id, lease.fencing_token)
            grant.owner = None
            grant.stop_requested = False

    def request_stop(self, job_id: str) -> None:
        """Mark a live lease, as `JobStore.request_stop`."""
        grant = self._grants.get(job_id)
        if grant is not None:
            with grant.lock:
                if self._alive(grant):
                    grant.stop_requested = True

    def forget(self, job_id: str) -> None:
        """End whatever lease the job has; its tokens are never granted again."""
        grant = self._grants.get(job_id)
        if grant is None:
            return
        with grant.lock, self._lock:
            if not grant.deleted:
                grant.deleted = True
                self._newest_deleted = max(self._newest_deleted, grant.token)
                del self._grants[job_id]

    def _alive(self, grant: _Grant) -> bool:
        return grant.owner is not None and not grant.deleted and grant.expires_at > self._clock()

    def _grant(self, lease: Lease) -> _Grant:
        grant = self._grants.get(lease.job_id)
        if grant is None:
            raise LeaseLostError(lease.job_id, lease.fencing_token)
        return grant

    @staticmethod
    def _check(grant: _Grant, lease: Lease) -> None:
        if grant.deleted or grant.owner is None or grant.token != lease.fencing_token:
            raise LeaseLostError(lease.job_id, lease.fencing_token)
