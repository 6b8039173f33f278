"""Several pages on their way at once, given in order."""

import contextvars
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, Self, TypeVar

__all__ = ["Flight"]

AnswerT = TypeVar("AnswerT")


class Flight(Generic[AnswerT]):
    """Fetches places ahead of who asks for them, in threads.

    It begins with one request and sends one more at once for every answer, so that neither a small source nor one that
    has just said "too many requests" gets more than it can take. If a place is asked for that was not foreseen, what
    was fetched ahead is dropped.

    Args:
        fetch: Fetches a place; called in several threads.
        ahead: Foresees the place behind a place.
        most: Most requests at once; 1 takes no thread. So many answers are kept at most.
        abort: Breaks off what is being fetched; called before the threads are waited for.
    """

    def __init__(
        self,
        fetch: Callable[[Any], AnswerT],
        ahead: Callable[[Any], Any],
        most: int,
        abort: Callable[[], object],
    ) -> None:
        self._fetch = fetch
        self._ahead = ahead
        self._most = most
        self._abort = abort
        self._window = 1
        self._flying: deque[tuple[Any, Future[AnswerT]]] = deque()
        self._threads = ThreadPoolExecutor(most, "resumable_sync-http") if most > 1 else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._threads is not None:
            self._abort()
            self._threads.shutdown(wait=True, cancel_futures=True)
        self._flying.clear()

    def get(self, place: Any) -> AnswerT:
        """Give the answer of a place; what fetching it raised is raised here."""
        if self._threads is None:
            return self._fetch(place)
        if self._flying and self._flying[0][0] != place:
            self._drop()
        if not self._flying:
            self._launch(self._threads, place)
        while len(self._flying) < self._window and not self._has_failed():
            self._launch(self._threads, self._ahead(self._flying[-1][0]))
        _, future = self._flying.popleft()
        answer = future.result()
        self._window = min(self._window + 1, self._most)
        return answer

    def _launch(self, threads: ThreadPoolExecutor, place: Any) -> None:
        self._flying.append((place, threads.submit(contextvars.copy_context().run, self._fetch, place)))

    def _has_failed(self) -> bool:
        # Behind the end, or behind an error, there is nothing to ask for.
        return any(future.done() and future.exception() is not None for _, future in self._flying)

    def _drop(self) -> None:
        for _, future in self._flying:
            future.cancel()
        self._flying.clear()
        self._window = 1
