"""Telling observers, without ever letting them influence the sync."""

import logging
import threading
from collections.abc import Iterable

from resumable_sync._errors import describe_error
from resumable_sync._events import Event
from resumable_sync._protocols import Observer

__all__ = ["Observers"]

logger = logging.getLogger("resumable_sync")


class Observers:
    """The observers of one call; one that raises is logged and left out from then on."""

    def __init__(self, observers: Iterable[Observer]) -> None:
        self._observers = list(observers)
        self._lock = threading.RLock()

    def __bool__(self) -> bool:
        return bool(self._observers)

    def tell(self, event: Event) -> None:
        """Call every observer, one at a time."""
        with self._lock:
            for observer in tuple(self._observers):
                try:
                    observer(event)
                except Exception as error:  # noqa: BLE001 - an observer never influences the sync
                    self._observers.remove(observer)
                    logger.warning("an observer failed and is left out from now on: %s", describe_error(error))
