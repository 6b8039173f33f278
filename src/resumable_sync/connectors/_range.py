"""Ranges of a key of a table or query: what `verify_full_sync` reads."""

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import sqlalchemy as sa
from sqlalchemy import ColumnElement, Connection, Engine, Select
from sqlalchemy.exc import DBAPIError
from typing_extensions import override

from resumable_sync._errors import ConfigurationError
from resumable_sync._ranges import ColumnKind, Key, KeyPage, KeyRanges
from resumable_sync.connectors._column_kinds import column_kind
from resumable_sync.connectors._columns import column_types
from resumable_sync.connectors._digest import digest_of, digest_select, digests_by
from resumable_sync.connectors._key_values import NoSuchKeyError, key_binder
from resumable_sync.connectors._keyset import KeyPart, after_key, equals_key, key_order, up_to_key
from resumable_sync.connectors._plan import KeysetPlan
from resumable_sync.connectors._source import Source
from resumable_sync.connectors._statements import Statement, compile_statement, connect, plans_rows

__all__ = ["SQLRanges", "open_ranges"]

Row = tuple[Any, ...]

_AFTER, _UPTO, _LIMIT, _OFFSET = (f"resumable_sync_{name}" for name in ("after", "upto", "limit", "offset"))
_KEYS = 100
"""Keys of one look-up: few statements to compile, and few parameters."""


def open_ranges(engine: Engine, connection: Connection, source: Source, key: Sequence[KeyPart]) -> "SQLRanges":
    """Look at a source by a key.

    Raises:
        ConfigurationError: If there is no such key, or it is of a type that cannot be one.
    """
    if not key:
        msg = f"{source.label} has no primary key; name the columns to match rows by in key="
        raise ConfigurationError(msg)
    plan = KeysetPlan(connection, source, key)
    columns = column_types(connection.dialect, nullcontext(connection), source, [part.name for part in key])
    types = {column.name: column.type for column in columns}
    kinds = {name: column_kind(kind, connection.dialect) for name, kind in types.items()}
    binders = [
        key_binder(connection.dialect, types[part.name], kinds[part.name], cast)
        for part, cast in zip(key, plan.codec.casts, strict=True)
    ]
    ranges = SQLRanges(engine, plan, kinds, binders)
    probe = ranges.only([part.name for part in key])  # other columns may have no checksum, and not be chosen
    return ranges if probe.digests is None or _digests(connection, probe) else ranges.without_digests()


def _digests(connection: Connection, ranges: "SQLRanges") -> bool:
    try:
        ranges.try_digest(connection)
    except DBAPIError:  # a fork of the database may not have the functions
        return False
    return True


class SQLRanges(KeyRanges):
    """A table or query of a database by one of its keys.

    The statements, where the key is `id`:

        SELECT id, total FROM orders WHERE id > 4711 AND id <= 5711 ORDER BY id LIMIT 1002
        SELECT id FROM orders WHERE id > 4711 ORDER BY id LIMIT 1 OFFSET 999
        SELECT id, total FROM orders WHERE id = 4712 OR id = 4713 OR ...
        SELECT count(*), sum(hashtextextended(CAST(row(id, total) AS TEXT) COLLATE "C", 0)), ... FROM orders
            WHERE id > 4711 AND id <= 5711                                                    PostgreSQL
        SELECT count(*), sum(CAST(conv(left(md5(concat(...)), 16), 16, 10) AS UNSIGNED)), ...  MySQL, MariaDB

    Args:
        engine: To the database.
        plan: What is read, by which key.
        kinds: What the chosen columns hold, in the order of the rows.
        binders: Make parameters of the key's values.
        digests: Whether the database may be asked for checksums.
    """

    def __init__(
        self,
        engine: Engine,
        plan: KeysetPlan,
        kinds: Mapping[str, ColumnKind],
        binders: Sequence[Callable[[Any], Any]],
        *,
        digests: bool = True,
    ) -> None:
        self._engine, self._plan, self._binders = engine, plan, binders
        self.kinds = dict(kinds)
        self.key = [(part.name, "desc" if part.descending else "asc") for part in plan.key]
        self._may_digest = digests
        self.digests = digests_by(engine.dialect, self.kinds) if digests else None
        names = list(self.kinds)
        self._columns = [plan.source.columns[name] for name in names]
        self._places = [names.index(name) for name, _ in self.key]
        self._after = [f"{_AFTER}_{place}" for place in range(len(self.key))]
        self._upto = [f"{_UPTO}_{place}" for place in range(len(self.key))]
        self._statements: dict[Any, Statement] = {}
        self._lock = threading.Lock()

    @override
    def only(self, columns: Sequence[str]) -> "SQLRanges":
        kinds = {name: self.kinds[name] for name in columns}
        return SQLRanges(self._engine, self._plan, kinds, self._binders, digests=self._may_digest)

    def without_digests(self) -> "SQLRanges":
        """Give the same, which computes no checksums."""
        return SQLRanges(self._engine, self._plan, self.kinds, self._binders, digests=False)

    @override
    def check(self, *, unique: bool) -> None:
        with connect(self._engine) as connection:
            (self._plan.check if unique else self._plan.check_nulls)(connection)

    @override
    def page(self, after: Key | None, upto: Key | None, limit: int | None) -> KeyPage:
        after = self._known(after)
        try:
            values = self._bounds(after, upto)
        except NoSuchKeyError:
            return KeyPage([], None)
        shape = ("page", after is None, upto is None, limit is None)
        statement = self._compiled(shape, lambda: self._page_select(after, upto, limit))
        with connect(self._engine) as connection:
            fetched = statement.run(connection, {**values, _LIMIT: limit})
        return KeyPage(fetched.rows, self._plan.codec.last(fetched, self._places) if fetched.rows else None)

    @override
    def key_at(self, after: Key | None, offset: int) -> Key | None:
        after, keys = self._known(after), [side.column for side in self._plan.sides]

        def select() -> Select[Any]:
            rows = sa.select(*keys).select_from(self._plan.source.selectable).where(*self._conditions(after, None))
            return rows.order_by(*key_order(self._plan.sides)).limit(1).offset(_number(_OFFSET))

        statement = self._compiled(("key_at", after is None), select)
        with connect(self._engine) as connection:
            fetched = statement.run(connection, {**self._bounds(after, None), _OFFSET: offset})
        return self._plan.codec.last(fetched, range(len(keys))) if fetched.rows else None

    @override
    def having(self, keys: Sequence[Key]) -> list[Row]:
        bound = [found for key in keys if (found := self._bound(key)) is not None]
        rows: list[Row] = []
        with connect(self._engine) as connection:
            for start in range(0, len(bound), _KEYS):
                part = bound[start : start + _KEYS]
                size = 1 if len(part) == 1 else _KEYS
                statement = self._compiled(("having", size), lambda size=size: self._having_select(size))  # type: ignore[misc]
                part += part[-1:] * (size - len(part))
                values = {name: value for at, key in enumerate(part) for name, value in self._named(at, key)}
                rows += statement.run(connection, values).rows
        return rows

    @override
    def digest(self, after: Key | None, upto: Key | None) -> tuple[int, str] | None:
        if self.digests is None:
            return None
        after = self._known(after)
        try:
            values = self._bounds(after, upto)
        except NoSuchKeyError:
            return None
        statement = self._compiled(("digest", after is None, upto is None), lambda: self._digest_select(after, upto))
        with connect(self._engine) as connection:
            return digest_of(statement.run(connection, values).rows[0])

    def try_digest(self, connection: Connection) -> None:
        """Compute the checksum of no row."""
        compile_statement(self._digest_select(None, None, sa.false()), self._engine.dialect).run(connection)

    def _page_select(self, after: Key | None, upto: Key | None, limit: int | None) -> Select[Any]:
        rows = sa.select(*self._columns).where(*self._conditions(after, upto)).order_by(*key_order(self._plan.sides))
        return rows if limit is None else rows.limit(_number(_LIMIT))

    def _having_select(self, size: int) -> Select[Any]:
        wanted = [equals_key(self._plan.sides, [name for name, _ in self._named(at, self.key)]) for at in range(size)]
        return sa.select(*self._columns).where(sa.or_(*wanted))

    def _digest_select(self, after: Key | None, upto: Key | None, *conditions: ColumnElement[bool]) -> Select[Any]:
        condition = sa.and_(sa.true(), *self._conditions(after, upto), *conditions)
        return digest_select(
            self._engine.dialect, self._plan.source.selectable, self._columns, list(self.kinds.values()), condition
        )

    def _conditions(self, after: Key | None, upto: Key | None) -> list[ColumnElement[bool]]:
        rows = plans_rows(self._engine.dialect)
        conditions = [] if after is None else [after_key(self._plan.sides, self._after, rows=rows)]
        return conditions if upto is None else [*conditions, up_to_key(self._plan.sides, self._upto, rows=rows)]

    def _bounds(self, after: Key | None, upto: Key | None) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for names, key in ((self._after, after), (self._upto, upto)):
            if key is not None:
                values.update((name, bind(value)) for name, bind, value in zip(names, self._binders, key, strict=True))
        return values

    def _known(self, after: Key | None) -> Key | None:
        # No row can have it: it comes before every row, as the beginning does.
        return None if after is None or self._bound(after) is None else after

    def _bound(self, key: Key) -> list[Any] | None:
        if any(value is None for value in key):
            return None
        try:
            return [bind(value) for bind, value in zip(self._binders, key, strict=True)]
        except NoSuchKeyError:
            return None

    def _named(self, at: int, key: Sequence[Any]) -> list[tuple[str, Any]]:
        return [(f"{_AFTER}_{at}_{place}", value) for place, value in enumerate(key)]

    def _compiled(self, shape: Any, select: Callable[[], Select[Any]]) -> Statement:
        with self._lock:
            if shape not in self._statements:
                self._statements[shape] = compile_statement(select(), self._engine.dialect)
            return self._statements[shape]


def _number(name: str) -> ColumnElement[int]:
    return sa.bindparam(name, None, type_=sa.BigInteger())
