"""Reading a connector: pages checked one by one, transient errors tried again at the last cursor."""

from collections.abc import Iterator
from typing import Any, Generic, NamedTuple

from typing_extensions import TypeVar

from resumable_sync._cursor import encode_cursor
from resumable_sync._cycle import CycleWatch
from resumable_sync._errors import ConfigurationError, CursorError
from resumable_sync._model import Cursor, Page
from resumable_sync._protocols import Connector
from resumable_sync._retry import Retrier

__all__ = ["PlacedPage", "read_pages"]

RecordT = TypeVar("RecordT", default=Any)


_END = object()  # not None, which a connector may yield by mistake


class PlacedPage(NamedTuple, Generic[RecordT]):
    """A page, the cursor before it, and both cursors as stored."""

    page: Page[RecordT]
    previous_cursor: Cursor | None
    previous_text: str
    text: str


def read_pages(
    connector: Connector[RecordT], cursor: Cursor | None, batch_size: int, *, retrier: Retrier
) -> Iterator[PlacedPage[RecordT]]:
    """Yield the pages after `cursor`, each with 1 to `batch_size` records.

    Args:
        connector: Where to read.
        cursor: Where to begin; None is the beginning.
        batch_size: Most records in a page.
        retrier: Calls the connector again, at the last cursor, after a transient error.

    Raises:
        CursorError: If a cursor is of an unsupported type, does not advance, or comes round again.
        ConfigurationError: If what the connector yields is not a page.
    """
    source = _Source(connector, cursor, batch_size)
    try:
        while (placed := retrier.call("read", source.next_page)) is not None:
            if len(placed.page.records):  # an empty page that advances only moves the cursor
                yield placed
            del placed
    finally:
        source.close()


class _Source(Generic[RecordT]):
    """One connector being read: its iterator, the cursor reached, and the watch for cursors that come round again."""

    def __init__(self, connector: Connector[RecordT], cursor: Cursor | None, size: int) -> None:
        self._connector = connector
        self._cursor = cursor
        self._text = encode_cursor(cursor)
        self._size = size
        self._iterator: Iterator[Page[RecordT]] | None = None
        self._watch = CycleWatch(self._text, f"{_name(connector)}.read", "cursor")

    def next_page(self) -> PlacedPage[RecordT] | None:
        if self._iterator is None:
            self._iterator = self._open()
        try:
            page: Any = next(self._iterator, _END)
        except BaseException:
            self.close()  # a generator that raised is finished; the next try reads anew at the last cursor
            raise
        return None if page is _END else self._place(page)

    def close(self) -> None:
        iterator, self._iterator = self._iterator, None
        close = getattr(iterator, "close", None)
        if close is not None:
            close()

    def _open(self) -> Iterator[Page[RecordT]]:
        pages = self._connector.read(self._cursor, self._size)
        try:
            return iter(pages)
        except TypeError:
            msg = f"{_name(self._connector)}.read gave a {type(pages).__name__}; let it yield Page objects"
            raise ConfigurationError(msg) from None

    def _place(self, page: Page[RecordT]) -> PlacedPage[RecordT]:
        count = self._length(page)
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
        placed = PlacedPage(page, self._cursor, self._text, text)
        self._cursor, self._text = page.cursor, text
        return placed

    def _length(self, page: Page[RecordT]) -> int:
        try:
            return len(page.records)
        except (AttributeError, TypeError):
            msg = (
                f"{_name(self._connector)} yielded a {type(page).__name__}; "
                "let it yield Page(records, cursor) with a list of records"
            )
            raise ConfigurationError(msg) from None


def _name(connector: object) -> str:
    return type(connector).__name__
