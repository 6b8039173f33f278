"""Reading ahead in a thread of its own."""

import contextvars
import queue
import threading
from collections.abc import Iterator
from typing import Generic, TypeVar

from resumable_sync._close import close_if_closable

__all__ = ["Prefetch"]

T = TypeVar("T")


class Prefetch(Generic[T]):
    """Runs an iterator in a thread, at most `depth` items ahead of who takes them.

    Room is made for half of them at a time: a thread that is woken for each item takes the processor from who has just
    begun to work on the one before, which cost 10 % from PostgreSQL to PostgreSQL in batches of 1,000.

    The iterator is created, advanced and closed in that thread only, since database connections bind to threads.
    """

    def __init__(self, items: Iterator[T], depth: int) -> None:
        self._items = items
        self._ready: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()
        self._room: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._closed = False
        self._taken, self._at_a_time = 0, max(1, depth // 2)
        for _ in range(depth):
            self._room.put(None)
        context = contextvars.copy_context()
        self._thread = threading.Thread(
            target=context.run, args=(self._run,), name="resumable_sync-reader", daemon=True
        )
        self._thread.start()

    def get(self, timeout: float) -> T | None:
        """Give the next item, or None at the end.

        Raises:
            queue.Empty: If there is none within `timeout` seconds.
        """
        item, error = self._ready.get(timeout=timeout)
        if error is not None:
            raise error
        self._taken += 1
        if self._taken == self._at_a_time:
            self._taken = 0
            for _ in range(self._at_a_time):
                self._room.put(None)
        return item

    def close(self) -> None:
        """End the thread and wait for it; what was read ahead is dropped."""
        self._closed = True
        self._room.put(None)
        self._thread.join()

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            while True:
                self._room.get()
                if self._closed:
                    break
                item = next(self._items, None)
                if item is None:
                    break
                self._ready.put((item, None))
                del item  # else this thread would keep one page more alive than it may
        except BaseException as failure:  # noqa: BLE001 - it is raised again where the items are taken
            error = failure
        finally:
            try:
                close_if_closable(self._items)
            except BaseException as failure:  # noqa: BLE001 - as above
                error = error or failure
            self._ready.put((None, error))
