"""Telling observers, without ever letting them influence the sync."""

import logging
import threading
from collections.abc import Iterable

from resumable_sync._errors import describe_error
from resumable_sync._events import Event, TryFailed
from resumable_sync._protocols import Observer

__all__ = ["Observers"]

logger = logging.getLogger("resumable_sync")


class Observers:
    """The observers of one call; one that raises is logged and left out from then on.

    Attributes:
        failed_tries: How many failed tries there were.
    """

    def __init__(self, observers: Iterable[Observer]) -> None:
        self._observers = list(observers)
        self._lock = threading.RLock()
        self.failed_tries = 0

    def __bool__(self) -> bool:
        return bool(self._observers)

    def try_failed(self, job_id: str, call: str, tries: int, wait: float | None, error: Exception) -> None:
        """Log a failed try and tell of it."""
        with self._lock:
            self.failed_tries += 1
        text = describe_error(error)
        then = "giving up" if wait is None else f"trying again in {wait:.1f} s"
        logger.warning("job %r: %s failed (try %d), %s: %s", job_id, call, tries, then, text)
        if self._observers:
            self.tell(TryFailed(job_id=job_id, call=call, tries=tries, wait=wait, error=text))

    def tell(self, event: Event) -> None:
        """Call every observer, one at a time."""
        with self._lock:
            for observer in tuple(self._observers):
                try:
                    observer(event)
                except Exception as error:  # noqa: BLE001 - an observer never influences the sync
                    self._observers.remove(observer)
                    logger.warning("an observer failed and is left out from now on: %s", describe_error(error))
