"""Keeping the lease of a running attempt: the newest one, and the heartbeat that renews it."""

import logging
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from random import Random

from resumable_sync._attempts.stop import Stop
from resumable_sync._errors import JobHeldError, LeaseLostError, describe_error
from resumable_sync._model import Lease
from resumable_sync._protocols import JobStore
from resumable_sync._retry import Retrier

__all__ = ["LeaseKeeper", "beats"]

logger = logging.getLogger("resumable_sync")


def beats(ttl: float, owner: str) -> Iterator[float]:
    """Give the seconds to wait before each heartbeat: a third of the ttl at most.

    Workers that begin in the same moment would else beat in the same moments ever after, and so would those that one
    pause of the store has held up. The first wait is at least half of the longest one, every later one three quarters.

    Args:
        ttl: Of the lease, in seconds.
        owner: Of the lease; the same one gives the same waits.

    Yields:
        Seconds, without end.

    References:
        S. Floyd, V. Jacobson: The Synchronization of Periodic Routing Messages. IEEE/ACM Transactions on Networking 2
        (2), 1994: why periodic senders fall into step, and that each wait must be drawn anew.
    """
    chance, longest, least = Random(owner), ttl / 3, 1 / 2  # noqa: S311 - it keeps no secret
    while True:
        yield longest * chance.uniform(least, 1)
        least = 3 / 4


class LeaseKeeper:
    """Holds the lease of one attempt and renews it every third of its ttl or sooner, whatever a batch takes.

    A heartbeat that fails is tried again at the next beat: only a refusal, or the store's answer to a `save`, means
    that the lease is lost.
    """

    def __init__(self, store: JobStore, lease: Lease, ttl: float, stop: Stop) -> None:
        self._store = store
        self._ttl = ttl
        self._stop = stop
        self._lock = threading.Lock()
        self._lease = lease
        self._renewed_at = time.monotonic()
        self._lost = False
        self._in_doubt = False  # while it is acquired anew, the newest token may be ours and not known here
        self._done = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def lease(self) -> Lease:
        """The lease as last seen.

        Raises:
            LeaseLostError: If a heartbeat found out that it is lost.
        """
        if self._lost:
            raise LeaseLostError(self._lease.job_id, self._lease.fencing_token)
        return self._lease

    @property
    def last(self) -> Lease:
        """The lease as last seen, lost or not."""
        return self._lease

    def store_time(self) -> datetime:
        """Give the time by the store's clock, as far as its last answer tells."""
        with self._lock:
            return self._lease.expires_at + timedelta(seconds=time.monotonic() - self._renewed_at - self._ttl)

    def start(self) -> None:
        """Begin to renew."""
        self._thread = threading.Thread(target=self._beat, name="resumable_sync-heartbeat", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop renewing and wait for the heartbeat to end."""
        self._done.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def took(self, lease: Lease) -> None:
        """Take over what the store answered to `acquire`, `save` or `renew`."""
        with self._lock:
            if lease.fencing_token < self._lease.fencing_token:
                return  # a heartbeat's late answer about a lease that was acquired anew since
            self._lease = lease
            self._renewed_at = time.monotonic()
        if lease.stop_requested:
            self._stop.request("a stop was requested")

    def assure(self, retrier: Retrier) -> None:
        """Find out whether the lease is still ours, where that is in doubt: a process that slept may be a zombie.

        Raises:
            LeaseLostError: If it is lost.
        """
        lease = self.lease
        if time.monotonic() - self._renewed_at >= self._ttl:
            with self._stop.shield():
                self.took(retrier.call("renew", self._store.renew, lease, self._ttl))

    def acquire_anew(self, retrier: Retrier) -> None:
        """Get the own lease under a new token, after which nothing sent under the old one can take effect any more.

        Waits for, or fences out, a commit that is still in flight.

        Raises:
            LeaseLostError: If another attempt took over.
        """
        lease = self.lease
        self._in_doubt = True
        self.took(retrier.call("acquire", self._acquire_anew, lease))
        self._in_doubt = False

    def _acquire_anew(self, old: Lease) -> Lease:
        try:
            return self._store.acquire(old.job_id, owner=old.owner, ttl=self._ttl, replacing=old.fencing_token)
        except JobHeldError as error:
            if error.owner == old.owner:  # the answer to an earlier try was lost; its token is nobody else's
                return self._store.acquire(old.job_id, owner=old.owner, ttl=self._ttl)
            raise LeaseLostError(old.job_id, old.fencing_token) from error

    def _outdated(self, lease: Lease) -> bool:
        """Whether a token that was refused may have been outdated by this attempt itself."""
        if self._in_doubt:  # asked first: what ends the doubt is known before it ends
            return True
        with self._lock:
            return self._lease.fencing_token != lease.fencing_token

    def _beat(self) -> None:
        waits = beats(self._ttl, self._lease.owner)
        while not self._done.wait(next(waits)):
            lease = self._lease
            try:
                self.took(self._store.renew(lease, self._ttl))
            except LeaseLostError:
                if not self._outdated(lease) and not self._done.is_set():
                    self._lost = True
                    self._stop.request("the lease was lost")
                    return
            except Exception as error:  # noqa: BLE001 - the next beat, or the next save, decides
                logger.warning(
                    "job %r: the lease could not be renewed, will try again: %s", lease.job_id, describe_error(error)
                )
