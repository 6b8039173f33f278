"""Parts of a table or query: contiguous ranges of its key with about equal numbers of rows.

The ends of parts are keys of rows, found by going along the index or from a sample of the rows, so they follow the
rows, wherever these are crowded, and the order is that of the database. Nothing is compared in Python.
"""

from collections.abc import Sequence
from typing import Any

import attrs
import sqlalchemy as sa
from sqlalchemy import ColumnElement, Connection, Engine, Select
from typing_extensions import override

from resumable_sync._cursor import encode_cursor
from resumable_sync._errors import CursorError
from resumable_sync._model import Cursor
from resumable_sync.connectors._keyset import after_key, key_order, up_to_key
from resumable_sync.connectors._plan import Key, KeysetPlan
from resumable_sync.connectors._readers import KeysetReader
from resumable_sync.connectors._sampled_ends import sampled_ends
from resumable_sync.connectors._statements import Fetched, Statement, compile_statement, connect, plans_rows

__all__ = ["Probes", "Span", "SpanReader", "split_span"]

_MARKS_PER_PART = 8
"""So many that the way from a mark to the end of a part is short, and so few that they cost nothing. An even number."""

_FIRST_STEP = 10_000

_AFTER, _UPTO, _OFFSET = (f"resumable_sync_{name}" for name in ("after", "upto", "offset"))


@attrs.frozen
class Span:
    """The rows after one key and up to another one.

    Attributes:
        after: The key before the first row; None for the beginning of the source.
        upto: The last key that belongs to it.
    """

    after: Key | None
    upto: Key

    @classmethod
    def of(cls, place: Cursor) -> "Span":
        """Read a span as a job keeps it.

        Raises:
            CursorError: If it is something else.
        """
        match place:
            case [None | list(), list()] if type(place) is list:
                return cls(*place)
        msg = f"the place of a part is two keys, such as [[4711], [300000]], and this is a {type(place).__name__}"
        raise CursorError(f"{msg}: it belongs to another connector; use the one that the parts were made by")

    @property
    def place(self) -> Cursor:
        """The span as a job keeps it: `[[4711], [300000]]`, or `[None, [4711]]` for the first one."""
        return [self.after, self.upto]

    @property
    def identity(self) -> str:
        """What tells it from others."""
        return encode_cursor(self.place)


class SpanReader(KeysetReader):
    """Reads the rows of a span. That the key can be read by was checked when the source was split.

    Args:
        engine: To the source.
        plan: What is read, by which key.
        span: Which rows.
        streaming: Whether to send one statement for all pages.
        as_driven: Whether rows are certain to be what SQLite's driver gives by itself.

    Raises:
        CursorError: If the span belongs to another key.
    """

    def __init__(
        self, engine: Engine, plan: KeysetPlan, span: Span, *, streaming: bool, as_driven: bool = False
    ) -> None:
        super().__init__(engine, plan, streaming=streaming, as_driven=as_driven)
        if not all(plan.codec.accepts(key) for key in (span.after, span.upto) if key is not None):
            msg = f"the place of a part does not fit the key of {plan.source.label}: it belongs to another source or"
            raise CursorError(f"{msg} key; use the connector that the parts were made by")
        self._probes = Probes(plan, engine)
        self._span = span
        self._beginning = (span.after, span.upto, None)

    @override
    def check(self, connection: Connection) -> None:
        self._checked = True

    @override
    def count(self, connection: Connection) -> int:
        return self._probes.count(connection, self._span)

    @override
    def cursor_at(self, connection: Connection, offset: int) -> Cursor | None:
        after = self._probes.key_at(connection, self._span, offset - 1)
        return None if after is None else [after, self._span.upto]


def split_span(engine: Engine, plan: KeysetPlan, span: Span, parts: int) -> Sequence[Span]:
    """Cut a span into at most `parts` spans with about equal numbers of rows.

    The keys of a table of PostgreSQL are taken from a sample of its rows, if it is large (`sampled_ends`). All others
    are found in one pass along the index, which notes a key every so many rows, and a few short ones from there:

        SELECT id FROM orders WHERE id > 4711 AND id <= 300000 ORDER BY id LIMIT 1 OFFSET 9999
        SELECT count(*) FROM orders WHERE id > 295000 AND id <= 300000                       of the rest, at the end

    Then the numbers of rows differ by one at most while nothing changes. What comes or goes meanwhile moves the sizes,
    but never leaves out a row or takes one twice: each span begins where the one before it ends, wherever that is.

    Args:
        engine: To the source.
        plan: What is read, by which key.
        span: What to cut.
        parts: Most spans, at least 1.
    """
    postgresql = engine.dialect.name == "postgresql"
    with connect(engine, autocommit=not postgresql) as connection:
        ends = None
        if postgresql:  # in a transaction, for the settings
            ends = sampled_ends(connection, plan, span.after, span.upto, parts)
            # Of a table without statistics it would read and sort all that follows, for each probe again.
            connection.exec_driver_sql("SET LOCAL enable_sort = off")
        if ends is None:
            ends = _walked_ends(connection, Probes(plan, engine), span, parts)
    return [Span(after, upto) for after, upto in zip([span.after, *ends], [*ends, span.upto], strict=True)]


def _walked_ends(connection: Connection, probes: "Probes", span: Span, parts: int) -> list[Key]:
    """Give the last keys of all spans but the last."""
    marks, step = _marks(connection, probes, span, parts * _MARKS_PER_PART)
    last = Span(marks[-1] if marks else span.after, span.upto)
    rows = len(marks) * step + probes.count(connection, last)
    parts = max(1, min(parts, rows))
    ends: list[Key] = []
    passed, rest = 0, span
    for part in range(1, parts):
        rank = rows * part // parts
        mark = rank // step
        upto = marks[mark] if mark < len(marks) else span.upto
        if passed < mark * step:
            passed, rest = mark * step, Span(marks[mark - 1], upto)
        if rank == passed and mark:
            end: Key | None = marks[mark - 1]
        else:
            # Within the two marks, so that the ends stay in order whatever comes and goes.
            rest = Span(rest.after, upto)
            end = probes.key_at(connection, rest, rank - passed - 1)
        if end is None or end == span.upto or end in ends[-1:]:
            continue  # there are fewer rows by now
        ends.append(end)
        passed, rest = rank, Span(end, upto)
    return ends


def _marks(connection: Connection, probes: "Probes", span: Span, most: int) -> tuple[list[Key], int]:
    """Go along a span and note the key of every so many-th row: every second one is forgotten where they are too many.

    Returns:
        The keys, at most `most`, and how many rows there are from one to the next.
    """
    marks: list[Key] = []
    step, after = _FIRST_STEP, span.after
    while (key := probes.key_at(connection, Span(after, span.upto), step - 1)) is not None and key != span.upto:
        marks.append(key)
        after = key
        if len(marks) == most:
            marks, step = marks[1::2], step * 2
    return marks, step


class Probes:
    """The statements that look at a span, by the index alone."""

    def __init__(self, plan: KeysetPlan, engine: Engine) -> None:
        self._plan = plan
        self._dialect = engine.dialect
        self._after = [f"{_AFTER}_{place}" for place in range(len(plan.key))]
        self._upto = [f"{_UPTO}_{place}" for place in range(len(plan.key))]
        self._compiled: dict[tuple[bool, bool], Statement] = {}

    def count(self, connection: Connection, span: Span) -> int:
        """Count its rows."""
        return int(self._run(connection, span, None).rows[0][0])

    def key_at(self, connection: Connection, span: Span, offset: int) -> Key | None:
        """Give the key of the row at an offset in it; None if there are fewer."""
        fetched = self._run(connection, span, offset)
        return self._plan.codec.last(fetched, range(len(self._plan.sides))) if fetched.rows else None

    def _run(self, connection: Connection, span: Span, offset: int | None) -> Fetched:
        shape = (span.after is None, offset is None)
        if shape not in self._compiled:  # at worst two threads compile it
            select = self._count_select(span) if offset is None else self._keys_select(span)
            self._compiled[shape] = compile_statement(select, self._dialect)
        values = {_OFFSET: offset, **dict(zip(self._upto, span.upto, strict=True))}
        if span.after is not None:
            values.update(zip(self._after, span.after, strict=True))
        return self._compiled[shape].run(connection, values)

    def _count_select(self, span: Span) -> Select[Any]:
        return sa.select(sa.func.count()).select_from(self._plan.source.selectable).where(*self._conditions(span))

    def _keys_select(self, span: Span) -> Select[Any]:
        keys: Select[Any] = sa.select(*(side.column for side in self._plan.sides))
        keys = keys.select_from(self._plan.source.selectable).where(*self._conditions(span))
        keys = keys.order_by(*key_order(self._plan.sides))
        return keys.limit(1).offset(sa.bindparam(_OFFSET, None, type_=sa.BigInteger()))

    def _conditions(self, span: Span) -> list[ColumnElement[bool]]:
        sides, rows = self._plan.sides, plans_rows(self._dialect)
        upto = up_to_key(sides, self._upto, rows=rows)
        return [upto] if span.after is None else [after_key(sides, self._after, rows=rows), upto]
