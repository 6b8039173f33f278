"""A part of a source that is read by offset."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Generic

from typing_extensions import override

from resumable_sync._close import close_if_closable
from resumable_sync._errors import CursorError
from resumable_sync._model import Cursor, Page, RecordT
from resumable_sync._protocols import Column, Connector, DescribingConnector, SeekableConnector
from resumable_sync._split import ConnectorPart

__all__ = ["offset_part", "offset_places"]


def offset_places(records: int, parts: int) -> list[Cursor]:
    """Give the places of at most `parts` parts of `records` records: `[start, stop]`, the last one without a stop."""
    parts = max(1, min(parts, records))
    starts = [records * part // parts for part in range(parts)]
    return [list(place) for place in zip(starts, [*starts[1:], None], strict=True)]


def offset_part(connector: Connector[RecordT], place: Cursor) -> ConnectorPart[RecordT]:
    """Give the part of a connector whose cursors are `[offset]`.

    Raises:
        CursorError: If `place` is not one of `offset_places`.
    """
    match place:
        case [int(start), None | int()] if type(place) is list and start >= 0:
            made = _DescribedOffsetPart if isinstance(connector, DescribingConnector) else _OffsetPart
            return made(connector, start, place[1])
    msg = f"the place of a part is two offsets, such as [100, 200], and this is a {type(place).__name__}"
    raise CursorError(f"{msg}: it belongs to another connector; use the one that the parts were made by")


class _OffsetPart(ConnectorPart[RecordT], Generic[RecordT]):
    """Reads from one offset to another one, or to the end."""

    def __init__(self, connector: Connector[RecordT], start: int, stop: int | None) -> None:
        self._connector, self._start, self._stop = connector, start, stop
        self.preferred_batch_size: object = getattr(connector, "preferred_batch_size", None)
        self.preferred_prefetch: object = getattr(connector, "preferred_prefetch", None)

    @property
    @override
    def place(self) -> Cursor:
        return [self._start, self._stop]

    @property
    @override
    def fingerprint(self) -> Mapping[str, str]:
        whole = self._connector.fingerprint
        parts = {} if whole is None else {"source": whole} if isinstance(whole, str) else dict(whole)
        return parts | {"range": str(self.place)}

    @override
    def read(self, cursor: Cursor | None, batch_size: int) -> Iterator[Page[RecordT]]:
        offset = self._start
        if cursor is not None:
            offset = self._offset(cursor)
        elif offset:
            cursor = [offset]
        if self._stop is not None and offset >= self._stop:
            return
        pages = self._connector.read(cursor, batch_size)
        try:
            for page in pages:
                offset += len(page)
                if self._stop is None or offset < self._stop:
                    yield page
                    del page  # the next one shall not find it still in memory
                    continue
                yield Page(page.records[: len(page) - (offset - self._stop)], [self._stop], page.columns)
                return
        finally:
            close_if_closable(pages)

    @override
    def count(self) -> int | None:
        if self._stop is not None:
            return self._stop - self._start
        records = self._connector.count()
        return None if records is None else max(0, records - self._start)

    def cursor_at(self, offset: int) -> Cursor | None:
        """Give the cursor after the first `offset` records of the part."""
        if offset <= 0 or (self._stop is not None and self._start + offset > self._stop):
            return None
        assert isinstance(self._connector, SeekableConnector)  # noqa: S101 - what has offsets has it
        return self._connector.cursor_at(self._start + offset)

    def _offset(self, cursor: Cursor) -> int:
        match cursor:
            case [int(offset)] if type(cursor) is list and type(offset) is int:
                if self._start < offset and (self._stop is None or offset <= self._stop):
                    return offset
        raise CursorError(
            f"the part {self.place} cannot interpret the stored cursor (a {type(cursor).__name__}); it writes [offset] "
            "between its own. The job belongs to another part or connector: use the one it was begun with, or start "
            "over with reset_job(job_id)"
        )

    @override
    def __repr__(self) -> str:
        return f"{self._connector!r}.part({self.place})"


class _DescribedOffsetPart(_OffsetPart[RecordT]):
    """The same of a connector that knows its columns."""

    def columns(self) -> Sequence[Column]:
        """Give the columns of the whole."""
        whole: Any = self._connector
        columns: Sequence[Column] = whole.columns()
        return columns
