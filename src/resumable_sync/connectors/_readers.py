"""The three ways of paging through a source: by key, by key in one stream, by offset."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Engine

from resumable_sync._anchor import DIGEST_LENGTH, row_digest
from resumable_sync._errors import CursorError
from resumable_sync._model import Cursor, Page
from resumable_sync.connectors._keyset import KeyPart, Side, key_order
from resumable_sync.connectors._plan import Key, KeysetPlan
from resumable_sync.connectors._source import Source
from resumable_sync.connectors._statements import Fetched, compile_statement, connect, fetch_driven, fetch_rows, stream

__all__ = ["KeysetReader", "OffsetReader", "offset_pages"]

Row = tuple[Any, ...]
FetchPage = Callable[[Connection, Key | None, Key, int], tuple[Sequence[Any], Key, str | None] | None]
"""Fetches so many records after a key and up to another: records, the key and the digest of the last one; None: the
end."""


class KeysetReader:
    """Reads by key.

    Args:
        engine: To the source.
        plan: What is read, by which key.
        streaming: Whether to send one statement for all pages.
        as_driven: Whether rows are certain to be what SQLite's driver gives by itself.
    """

    def __init__(self, engine: Engine, plan: KeysetPlan, *, streaming: bool, as_driven: bool = False) -> None:
        self._engine = engine
        self._plan = plan
        self._streaming = streaming
        self._fetch_rows = fetch_driven if as_driven else fetch_rows
        self._checked = False
        self._upper: Key | None = None
        self._beginning: tuple[Key | None, Key | None, str | None] = (None, None, None)

    @property
    def plan(self) -> KeysetPlan:
        """How it reads."""
        return self._plan

    @property
    def streaming(self) -> bool:
        """Whether it sends one statement for all pages."""
        return self._streaming

    @property
    def source(self) -> Source:
        """What is read."""
        return self._plan.source

    @property
    def key(self) -> Sequence[KeyPart]:
        """By what."""
        return self._plan.key

    def check(self, connection: Connection) -> None:
        """See to it that the key is unique and without NULL."""
        self._plan.check(connection)
        self._checked = True

    def whole(self, connection: Connection) -> tuple[Key | None, Key] | None:
        """Give the keys between which a run that begins now reads; None if there is no row."""
        after, upper, _ = self._beginning
        upper = upper or self._plan.bound(connection)
        return None if upper is None else (after, upper)

    def count(self, connection: Connection) -> int:
        """Count the rows, up to the bound if there is one."""
        return self._plan.count(connection, self._upper)

    def cursor_at(self, connection: Connection, offset: int) -> Cursor | None:
        """Give the cursor after the first `offset` rows."""
        after, upper = self._plan.key_at(connection, offset - 1), self._plan.bound(connection)
        return None if after is None or upper is None else [after, upper]

    def read(self, cursor: Cursor | None, batch_size: int, fetch: FetchPage | None = None) -> Iterator[Page[Any]]:
        """Yield the pages after a cursor, of what `fetch` gives; by default rows."""
        after, upper, _ = self._beginning if cursor is None else self._interpret(cursor)
        with connect(self._engine) as connection:
            # A connector may be used for many runs: each begins with a check of its own.
            if cursor is None or not self._checked:
                self.check(connection)
            if upper is None:
                upper = self._plan.bound(connection)
            self._upper = upper
            if upper is None:
                return
            if not self._streaming:
                yield from self._pages(connection, after, upper, batch_size, fetch or self._fetch)
        if self._streaming:
            yield from self._stream(after, upper, batch_size)

    def moved(self, connection: Connection, cursor: Cursor) -> str | None:
        """Say what became of the last row delivered; None if it is there as it was, or the cursor does not tell."""
        place = self._place(cursor)
        if place is None or place[2] is None:
            return None
        anchor = self._plan.anchor_at(connection, place[0])
        if anchor is None:
            return "is gone"
        return None if anchor == place[2] else "is not what it was"

    def _pages(
        self, connection: Connection, after: Key | None, upper: Key, batch_size: int, fetch: FetchPage
    ) -> Iterator[Page[Any]]:
        while (fetched := fetch(connection, after, upper, batch_size)) is not None:
            records, after, anchor = fetched
            cursor: Cursor = [after, upper] if anchor is None else [after, upper, anchor]
            yield Page(records, cursor, self._plan.columns)
            if after == upper:  # a short page need not be the last: what it was counted by may have changed
                return
            del fetched, records  # the next page shall not find this one still in memory

    def _fetch(
        self, connection: Connection, after: Key | None, upper: Key, limit: int
    ) -> tuple[list[Row], Key, str] | None:
        fetched = self._plan.page(connection, after, upper, limit, self._fetch_rows)
        if not fetched.rows:
            return None
        return fetched.rows, self._plan.key_of_last(fetched), self._plan.anchor_of_last(fetched)

    def _stream(self, after: Key | None, upper: Key, batch_size: int) -> Iterator[Page[Row]]:
        statement = self._plan.stream_statement(first=after is None)
        with connect(self._engine, autocommit=False) as connection:
            for fetched in stream(connection, statement, self._plan.values(after, upper), batch_size, self._fetch_rows):
                after = self._plan.key_of_last(fetched)
                yield Page(fetched.rows, [after, upper, self._plan.anchor_of_last(fetched)], self._plan.columns)
                del fetched

    def _place(self, cursor: Cursor) -> tuple[Key, Key, str | None] | None:
        codec = self._plan.codec
        match cursor:
            case [after, upper] | [after, upper, str()] if codec.accepts(after) and codec.accepts(upper):
                anchor: str | None = cursor[2] if len(cursor) > 2 else None  # noqa: PLR2004
                fits = type(cursor) is list and (anchor is None or len(anchor) == DIGEST_LENGTH)
                return (after, upper, anchor) if fits else None
        return None

    def _interpret(self, cursor: Cursor) -> tuple[Key, Key, str | None]:
        place = self._place(cursor)
        if place is not None:
            return place
        form = f"two keys of {len(self.key)} values and a digest, such as [[4711], [300000], '5f0c31e9']"
        raise _unknown(self.source, cursor, form)


class OffsetReader:
    """Reads by offset.

    Args:
        engine: To the source.
        source: What is read.
        key: The order; none: as the database likes.
        as_driven: Whether rows are certain to be what SQLite's driver gives by itself.
    """

    def __init__(self, engine: Engine, source: Source, key: Sequence[KeyPart], *, as_driven: bool = False) -> None:
        self._engine = engine
        self._fetch_rows = fetch_driven if as_driven else fetch_rows
        self.source = source
        self.key = tuple(key)
        self._columns = tuple(source.columns)
        self._by_name = sorted(range(len(self._columns)), key=self._columns.__getitem__)
        columns = source.key_columns(self.key)
        sides = [Side(column, part.descending) for column, part in zip(columns, self.key, strict=True)]
        rows = sa.select(*source.columns.values()).order_by(*key_order(sides))
        limit, offset = (sa.bindparam(name, None, type_=sa.BigInteger()) for name in ("page_limit", "page_offset"))
        self._statement = compile_statement(rows.limit(limit).offset(offset), engine.dialect)
        self._count = compile_statement(sa.select(sa.func.count()).select_from(source.selectable), engine.dialect)

    def check(self, connection: Connection) -> None:
        """Nothing needs to hold: this paging compares no keys."""

    def moved(self, connection: Connection, cursor: Cursor) -> str | None:
        """Say what became of the last row delivered; None if it is there as it was, or the cursor does not tell."""
        place = self._place(cursor)
        if place is None or place[1] is None:
            return None
        found = self._fetched(connection, place[0] - 1, 1)
        if not found.rows:
            return "is gone"
        return None if self._anchor(found) == place[1] else "is not what it was"

    def count(self, connection: Connection) -> int:
        """Count the rows."""
        return int(self._count.run(connection).rows[0][0])

    def cursor_at(self, connection: Connection, offset: int) -> Cursor | None:
        """Give the cursor after the first `offset` rows."""
        found = self._fetched(connection, offset - 1, 1).rows
        return [offset] if found else None

    def read(self, cursor: Cursor | None, batch_size: int) -> Iterator[Page[Row]]:
        """Yield the pages after a cursor."""
        offset = 0 if cursor is None else self._interpret(cursor)
        with connect(self._engine) as connection:
            while (fetched := self._fetched(connection, offset, batch_size)).rows:
                offset += len(fetched.rows)
                yield Page(fetched.rows, [offset, self._anchor(fetched)], self._columns)
                del fetched

    def _fetched(self, connection: Connection, offset: int, limit: int) -> Fetched:
        return self._statement.run(connection, {"page_limit": limit, "page_offset": offset}, self._fetch_rows)

    def _anchor(self, fetched: Fetched) -> str:
        return row_digest(fetched.rows[-1], self._by_name)

    def _place(self, cursor: Cursor) -> tuple[int, str | None] | None:
        if type(cursor) is not list:
            return None
        match cursor:
            case [offset] if type(offset) is int and offset >= 0:
                return offset, None
            case [offset, str(anchor)] if type(offset) is int and offset > 0 and len(anchor) == DIGEST_LENGTH:
                return offset, anchor
        return None

    def _interpret(self, cursor: Cursor) -> int:
        place = self._place(cursor)
        if place is None:
            raise _unknown(self.source, cursor, "an offset and a digest, such as [200, '5f0c31e9']")
        return place[0]


def offset_pages(fetch: Callable[[int], Fetched], offset: int) -> Iterator[Page[Row]]:
    """Yield pages from `offset` on until one is empty."""
    while (fetched := fetch(offset)).rows:
        offset += len(fetched.rows)
        yield Page(fetched.rows, [offset], tuple(column[0] for column in fetched.driver_cursor.description))
        del fetched


def _unknown(source: Source, cursor: Cursor, form: str) -> CursorError:
    return CursorError(
        f"a cursor of {source.label} is {form}, and the stored one (a {type(cursor).__name__}) is not: it belongs to "
        "another source, key or paging; use the connector that the job was begun with, or start over with "
        "reset_job(job_id)"
    )
