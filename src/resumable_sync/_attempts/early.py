"""The first look at a job, while the connector looks at its source: two databases are waited for at once."""

import contextvars
import threading

from resumable_sync._model import Job
from resumable_sync._protocols import Connector, JobStore

__all__ = ["EarlyLook"]

PATIENCE_SECONDS = 5.0
"""How long a connector's error waits for a store that does not answer."""


class EarlyLook:
    """Loads a job in a thread of its own, if the connector has to look its fingerprint up meanwhile.

    Args:
        store: Where the job is.
        job_id: Which one.
        connector: What is asked for its fingerprint next.
    """

    def __init__(self, store: JobStore, job_id: str, connector: Connector) -> None:
        self._store = store
        self._job: Job | None = None
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None
        # What is a plain attribute is there at once.
        if isinstance(getattr(type(connector), "fingerprint", None), property):
            run = contextvars.copy_context().run
            self._thread = threading.Thread(
                target=run, args=(self._look, job_id), name="resumable_sync-look", daemon=True
            )
            self._thread.start()

    def _look(self, job_id: str) -> None:
        try:
            self._job = self._store.load(job_id)
        except BaseException as error:  # noqa: BLE001 - it is raised by `load`
            self._error = error

    def load(self, job_id: str) -> Job | None:
        """Give what was found, or raise what was raised; asked once more, it asks the store."""
        thread, self._thread = self._thread, None
        if thread is None:
            return self._store.load(job_id)
        thread.join()
        # Its traceback holds this object, and the connection that it happened on: only who gets it shall keep it.
        error, self._error = self._error, None
        try:
            if error is not None:
                raise error
        finally:
            del error
        return self._job

    def close(self) -> None:
        """Wait for the thread to end, though not for ever."""
        if self._thread is not None:
            self._thread.join(PATIENCE_SECONDS)
        self._error = None
