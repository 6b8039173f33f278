"""Counting the source beside the first batches."""

import logging
import threading

from resumable_sync._errors import describe_error
from resumable_sync._protocols import Connector

__all__ = ["Counter"]

logger = logging.getLogger("resumable_sync")

PATIENCE_SECONDS = 5.0
"""How long the end of a sync waits for a count that is still running."""


class Counter:
    """Counts a connector in a thread of its own; a failure is a warning.

    Attributes:
        total: What was counted; None while unknown.
    """

    def __init__(self, job_id: str, connector: Connector) -> None:
        self.total: int | None = None
        self._job_id = job_id
        self._connector = connector
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to count; a connector without `count` has an unknown total."""
        if callable(getattr(self._connector, "count", None)):
            self._thread = threading.Thread(target=self._count, name="resumable_sync-count", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Wait for the count to end, though not for ever."""
        if self._thread is not None:
            self._thread.join(PATIENCE_SECONDS)

    def _count(self) -> None:
        try:
            total = self._connector.count()
            if total is not None and (type(total) is not int or total < 0):
                logger.warning("job %r: count() gave no count but a %s", self._job_id, type(total).__name__)
                return
            self.total = total
        except Exception as error:  # noqa: BLE001 - the total is a convenience
            logger.warning("job %r: the source could not be counted: %s", self._job_id, describe_error(error))
