"""Reading a connector: pages checked one by one, transient errors tried again at the last cursor."""

import time
from collections.abc import Callable, Iterator
from typing import Any, Generic, NamedTuple

from resumable_sync._attempts.sizer import BatchSizer
from resumable_sync._close import close_if_closable
from resumable_sync._cursor import encode_cursor
from resumable_sync._cycle import CycleWatch
from resumable_sync._errors import ConfigurationError, CursorError
from resumable_sync._model import Cursor, Page, RecordT
from resumable_sync._protocols import Connector
from resumable_sync._retry import Retrier

__all__ = ["PlacedPage", "read_pages"]


_END = object()  # not None, which a connector may yield by mistake


REOPENING_SHARE = 0.1
"""Of the time since reading began: what changes of the batch size may cost. They read anew from the last cursor, which
costs next to nothing by key, and a whole query where there is one for all pages."""


class PlacedPage(NamedTuple, Generic[RecordT]):
    """A page, the cursor before it, both cursors as stored, for how many records it was asked, and what it took."""

    page: Page[RecordT]
    previous_cursor: Cursor | None
    previous_text: str
    text: str
    asked: int
    seconds: float


def read_pages(
    connector: Connector[RecordT],
    cursor: Cursor | None,
    batch_size: int | BatchSizer,
    *,
    retrier: Retrier,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[PlacedPage[RecordT]]:
    """Yield the pages after `cursor`, each with 1 to `batch_size` records.

    Args:
        connector: Where to read.
        cursor: Where to begin; None is the beginning.
        batch_size: Most records in a page. When a sizer changes it, reading goes on at the last cursor with the new
            size, as soon as that costs little.
        retrier: Calls the connector again, at the last cursor, after a transient error.
        clock: Measures what pages take.

    Raises:
        CursorError: If a cursor is of an unsupported type, does not advance, or comes round again.
        ConfigurationError: If what the connector yields is not a page.
    """
    source = _Source(connector, cursor, batch_size, clock)
    try:
        while (placed := retrier.call("read", source.next_page)) is not None:
            if len(placed.page.records):  # an empty page that advances only moves the cursor
                yield placed
            del placed
    finally:
        source.close()


class _Openings:
    """What it costs to open a connector anew, found out by how long first pages take."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._began = clock()
        self._count = 0
        self._spent = 0.0  # by what was opened anew, before the last time
        self._first: tuple[float, int] | None = None  # seconds and records of the first page since then
        self._per_record: float | None = None  # of a later one

    def opened(self) -> None:
        if self._count > 1:
            self._spent += self._cost
        self._count += 1
        self._first = self._per_record = None

    def read(self, seconds: float, records: int) -> None:
        if self._first is None:
            self._first = seconds, records
        elif records:
            self._per_record = seconds / records

    @property
    def affordable(self) -> bool:
        """Whether to open it once more costs little, compared with the time since reading began."""
        if self._first is None:
            return False
        spent = self._spent + self._cost * (2 if self._count > 1 else 1)
        return spent <= REOPENING_SHARE * (self._clock() - self._began)

    @property
    def _cost(self) -> float:
        if self._first is None:
            return 0.0
        seconds, records = self._first
        return seconds if self._per_record is None else max(0.0, seconds - self._per_record * records)


class _Source(Generic[RecordT]):
    """One connector being read: its iterator, the cursor reached, and the watch for cursors that come round again."""

    def __init__(
        self,
        connector: Connector[RecordT],
        cursor: Cursor | None,
        size: int | BatchSizer,
        clock: Callable[[], float],
    ) -> None:
        self._connector = connector
        self._cursor = cursor
        self._text = encode_cursor(cursor)
        self._sizer = size if isinstance(size, BatchSizer) else None
        self._size = size.size if isinstance(size, BatchSizer) else size
        self._clock = clock
        self._openings = _Openings(clock)
        self._seconds = 0.0  # what was read since the last page that had records
        self._iterator: Iterator[Page[RecordT]] | None = None
        self._watch = CycleWatch(self._text, f"{_name(connector)}.read", "cursor")

    def next_page(self) -> PlacedPage[RecordT] | None:
        begun = self._clock()
        if self._sizer is not None and self._sizer.size != self._size:
            self._resize(self._sizer.size)
        if self._iterator is None:
            self._openings.opened()
            self._iterator = self._open()
        try:
            page: Any = next(self._iterator, _END)
        except BaseException:
            self.close()  # a generator that raised is finished; the next try reads anew at the last cursor
            raise
        return None if page is _END else self._place(page, self._clock() - begun)

    def _resize(self, size: int) -> None:
        if self._iterator is not None and not self._openings.affordable:
            return
        self.close()
        self._size = size

    def close(self) -> None:
        iterator, self._iterator = self._iterator, None
        close_if_closable(iterator)

    def _open(self) -> Iterator[Page[RecordT]]:
        pages = self._connector.read(self._cursor, self._size)
        try:
            return iter(pages)
        except TypeError:
            msg = f"{_name(self._connector)}.read gave a {type(pages).__name__}; let it yield Page objects"
            raise ConfigurationError(msg) from None

    def _place(self, page: Page[RecordT], seconds: float) -> PlacedPage[RecordT]:
        try:
            count = len(page.records)
        except (AttributeError, TypeError):
            msg = (
                f"{_name(self._connector)} yielded a {type(page).__name__}; "
                "let it yield Page(records, cursor) with a list of records"
            )
            raise ConfigurationError(msg) from None
        if page.cursor is None:
            msg = (
                f"{_name(self._connector)} yielded a page whose cursor is None, which means the beginning; "
                "give the cursor after its last record"
            )
            raise CursorError(msg)
        if count > self._size:
            msg = f"{_name(self._connector)} yielded a page of {count} records, asked for at most {self._size}; cut it"
            raise CursorError(msg)
        text = encode_cursor(page.cursor)
        if text == self._text:
            what = "an empty page" if count == 0 else f"{count} records"
            msg = (
                f"{_name(self._connector)} yielded {what} with the cursor of the page before; "
                "let every page advance the cursor"
            )
            raise CursorError(msg)
        self._watch.step(text)
        if self._sizer is not None:
            self._openings.read(seconds, count)
        placed = PlacedPage(page, self._cursor, self._text, text, self._size, self._seconds + seconds)
        self._seconds = 0.0 if count else placed.seconds
        self._cursor, self._text = page.cursor, text
        return placed


def _name(connector: object) -> str:
    return type(connector).__name__
