"""The pages of one attempt, in order: read ahead, or one by one at first after deaths without progress."""

import queue
from collections.abc import Iterator
from typing import Generic

from resumable_sync._attempts.reader import PlacedPage, read_pages
from resumable_sync._attempts.sizer import BatchSizer
from resumable_sync._attempts.stop import POLL_SECONDS, Stop
from resumable_sync._close import close_if_closable
from resumable_sync._model import Cursor, RecordT
from resumable_sync._prefetch import Prefetch
from resumable_sync._protocols import Connector
from resumable_sync._retry import Retrier

__all__ = ["Pages"]


class Pages(Generic[RecordT]):
    """Gives page after page until the source is exhausted or something asks to stop.

    Args:
        connector: Where to read.
        cursor: Where to begin.
        batch_size: Most records in a page, or who finds that out.
        first_size: After deaths without progress: read so many at first, and read ahead only when these have doubled up
            to the batch size. None: read ahead at once.
        prefetch: How many pages to read ahead.
        retrier: Tries again after transient errors.
        stop: What can ask to stop.

    Attributes:
        exhausted: Whether the source was read to its end.
    """

    def __init__(
        self,
        connector: Connector[RecordT],
        cursor: Cursor | None,
        *,
        batch_size: int | BatchSizer,
        first_size: int | None,
        prefetch: int,
        retrier: Retrier,
        stop: Stop,
    ) -> None:
        self.exhausted = False
        self._connector = connector
        self._cursor = cursor
        self._batch_size = batch_size
        self._first_size = first_size
        self._prefetch = prefetch
        self._retrier = retrier
        self._stop = stop
        self._ahead: Prefetch[PlacedPage[RecordT]] | None = None
        self._here: Iterator[PlacedPage[RecordT]] | None = None
        self._failure: BaseException | None = None

    def next(self) -> PlacedPage[RecordT] | None:
        """Give the next page; None if the source is exhausted, or if something asked to stop meanwhile.

        What ended reading once ends it again: an iterator that has raised would seem exhausted.
        """
        if self._failure is not None:
            raise self._failure
        if self.exhausted:
            return None
        try:
            if self._first_size is not None:
                placed = self._single(self._first_size)
            elif self._prefetch:
                placed = self._read_ahead()
            else:
                self._here = self._here or self._read(self._batch_size)
                placed = next(self._here, None)
                self.exhausted = placed is None
        except BaseException as error:
            self._failure = error
            raise
        if placed is not None:
            self._cursor = placed.page.cursor
        return placed

    def close(self) -> None:
        """End reading and free what it opened."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            ahead.close()
        close_if_closable(self._here)
        self._failure = None

    def _single(self, size: int) -> PlacedPage[RecordT] | None:
        """Read one page of the size that deaths have left, which doubles now: the page before it is saved."""
        pages = self._read(size)
        try:
            placed = next(pages, None)
        finally:
            close_if_closable(pages)
        most = self._batch_size.size if isinstance(self._batch_size, BatchSizer) else self._batch_size
        self._first_size = size * 2 if size * 2 < most else None
        self.exhausted = placed is None
        return placed

    def _read_ahead(self) -> PlacedPage[RecordT] | None:
        if self._ahead is None:
            with self._stop.shield():  # else a thread might be left that nobody knows
                self._ahead = Prefetch(self._read(self._batch_size), self._prefetch)
        while True:
            try:
                placed = self._ahead.get(POLL_SECONDS)
            except queue.Empty:
                if self._stop.check():
                    return None
                continue
            self.exhausted = placed is None
            return placed

    def _read(self, size: int | BatchSizer) -> Iterator[PlacedPage[RecordT]]:
        return read_pages(self._connector, self._cursor, size, retrier=self._retrier)
