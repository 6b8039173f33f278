"""One source, read by one key: the statements, the checks before work starts, and the bound of a run."""

import threading
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import sqlalchemy as sa
from sqlalchemy import Connection, Select
from sqlalchemy.sql import ColumnElement, operators

from resumable_sync._anchor import row_digest
from resumable_sync._errors import ConfigurationError
from resumable_sync.connectors._keyset import KeyPart, Side, after_key, equals_key, key_order, up_to_key
from resumable_sync.connectors._source import Source
from resumable_sync.connectors._statements import Fetch, Fetched, Statement, compile_statement, plans_rows
from resumable_sync.connectors._types import KeyCodec, describe_key

__all__ = ["KeysetPlan"]

_LIMIT, _OFFSET = "resumable_sync_limit", "resumable_sync_offset"
_BOUND_TRIES = 5

Key = list[Any]


class KeysetPlan:
    """How a source is read by its key. Made once for a connector; the statements are compiled when first used.

    Args:
        connection: To the source.
        source: What is read.
        key: By what.

    Raises:
        ConfigurationError: If the key has columns that do not exist, or of a type that cannot be a key.
    """

    def __init__(self, connection: Connection, source: Source, key: Sequence[KeyPart]) -> None:
        self.source = source
        self.key = tuple(key)
        self.columns = tuple(source.columns)
        self.places = [self.columns.index(part.name) for part in key if part.name in source.columns]
        self._by_name = sorted(range(len(self.columns)), key=self.columns.__getitem__)
        self._dialect = connection.dialect
        self._statements: dict[str, Statement] = {}
        self._lock = threading.Lock()
        self._oids: list[int] | None = None
        columns = source.key_columns(key)
        self._after = [f"resumable_sync_after_{place}" for place in range(len(key))]
        self._upper = [f"resumable_sync_upper_{place}" for place in range(len(key))]
        nothing = compile_statement(sa.select(*columns).where(sa.false()), self._dialect)
        self.codec: KeyCodec = describe_key(connection, nothing, [part.name for part in key])
        self._sides = [
            Side(self._neutral(column), part.descending, cast)
            for column, part, cast in zip(columns, key, self.codec.casts, strict=True)
        ]

    @property
    def sides(self) -> Sequence[Side]:
        """The columns of the key as statements compare them."""
        return self._sides

    def _neutral(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        # SQLite converts a parameter to the affinity of the column it is compared with, and that of a UNION is the
        # one of any of its parts: a unary plus has none.
        return sa.UnaryExpression(column, operator=operators.custom_op("+")) if self.source.compound else column

    def page(self, connection: Connection, after: Key | None, upper: Key, limit: int, fetch: Fetch) -> Fetched:
        """Fetch the rows after `after` and up to `upper`, at most `limit`."""
        return self.page_statement(first=after is None).run(connection, self.page_values(after, upper, limit), fetch)

    def page_statement(self, *, first: bool) -> Statement:
        """Give the statement of a page."""
        return self._compiled("first" if first else "next", lambda: self._page_select(first=first))

    def stream_statement(self, *, first: bool) -> Statement:
        """Give the statement of all rows up to the bound."""
        return self._compiled(
            "stream first" if first else "stream", lambda: self._rows(first=first).where(self._up_to())
        )

    def page_values(self, after: Key | None, upper: Key, limit: int) -> dict[str, Any]:
        """Give the parameters of `page_statement`."""
        return {**self.values(after, upper), _LIMIT: limit}

    def values(self, after: Key | None, upper: Key) -> dict[str, Any]:
        """Give the parameters of `stream_statement`."""
        values = dict(zip(self._upper, upper, strict=True))
        if after is not None:
            values.update(zip(self._after, after, strict=True))
        return values

    def no_rows(self, connection: Connection) -> Fetched:
        """Select the columns, and no row."""
        nothing = self._compiled("nothing", lambda: sa.select(*self.source.columns.values()).where(sa.false()))
        return nothing.run(connection)

    def oids(self, connection: Connection) -> Sequence[int]:
        """Give PostgreSQL's numbers of the types of the columns, asked for once."""
        if self._oids is None:
            self._oids = _type_codes(self.no_rows(connection))
        return self._oids

    def key_of_last(self, fetched: Fetched) -> Key:
        """Give the key of the last row of a page."""
        return self.codec.last(fetched, self.places)

    def anchor_of_last(self, fetched: Fetched) -> str:
        """Give the digest of the last row of a page."""
        return self.anchor_of(fetched.rows[-1])

    def anchor_of(self, row: Sequence[Any]) -> str:
        """Give the digest of a row."""
        return row_digest(row, self._by_name)

    def row_statement(self) -> Statement:
        """Give the statement of the row of a key."""
        return self._compiled(
            "row", lambda: sa.select(*self.source.columns.values()).where(equals_key(self._sides, self._after)).limit(1)
        )

    def anchor_at(self, connection: Connection, key: Key) -> str | None:
        """Give the digest of the row of a key, None if there is no such row."""
        fetched = self.row_statement().run(connection, dict(zip(self._after, key, strict=True)))
        self._oids = _type_codes(fetched)  # so that a restart need not ask for them
        return self.anchor_of_last(fetched) if fetched.rows else None

    def bound(self, connection: Connection) -> Key | None:
        """Give the last key there is, None if there is no row.

        Raises:
            ConfigurationError: If the row of that key cannot be found by it: the key does not come back exactly.
        """
        backwards = self._compiled("bound", lambda: self._keys(backwards=True).limit(1))
        found = self._compiled(
            "found",
            lambda: (
                sa
                .select(sa.literal_column("1"))
                .select_from(self.source.selectable)
                .where(equals_key(self._sides, self._upper))
                .limit(1)
            ),
        )
        for _ in range(_BOUND_TRIES):
            fetched = backwards.run(connection)
            if not fetched.rows:
                return None
            key = self.codec.last(fetched, range(len(self.key)))
            # The row may be deleted between the two statements, but hardly so every time.
            if found.run(connection, dict(zip(self._upper, key, strict=True))).rows:
                return key
        msg = f"the key {self._named()} does not find its own row in {self.source.label}"
        raise ConfigurationError(f"{msg}; cast it to one type, or use another key")

    def key_at(self, connection: Connection, offset: int) -> Key | None:
        """Give the key of the row at an offset, None if there are fewer rows."""
        statement = self._compiled("at", lambda: self._keys().limit(1).offset(_offset()))
        fetched = statement.run(connection, {_OFFSET: offset})
        return self.codec.last(fetched, range(len(self.key))) if fetched.rows else None

    def count(self, connection: Connection, upper: Key | None) -> int:
        """Count the rows up to `upper`; all rows if it is None."""
        rows = sa.select(sa.func.count()).select_from(self.source.selectable)
        if upper is None:
            statement = self._compiled("count", lambda: rows)
            values = {}
        else:
            statement = self._compiled("count up to", lambda: self._count_up_to(rows))
            values = dict(zip(self._upper, upper, strict=True))
        return int(statement.run(connection, values).rows[0][0])

    def _count_up_to(self, rows: Select[Any]) -> Select[Any]:
        if self._dialect.name != "sqlite" or not self.source.unique:
            return rows.where(self._up_to())
        # SQLite counts a whole table page by page, more than twice as fast as rows of it; few come after the bound.
        beyond = rows.where(after_key(self._sides, self._upper, rows=self._plans_rows))
        return sa.select(rows.scalar_subquery() - beyond.scalar_subquery())

    def check(self, connection: Connection) -> None:
        """See to it that the key is unique and without NULL, where the schema does not prove it.

        Raises:
            ConfigurationError: If it is not.
        """
        self.check_nulls(connection)
        names = {part.name for part in self.key}
        if not any(proof <= names for proof in self.source.unique):
            columns = [side.column for side in self._sides]
            twice = self._select_one().group_by(*columns).having(sa.func.count() > 1)
            self._refuse_if(connection, twice, "is not unique, and rows that share a key could be left out")
        for side, temporal in zip(self._sides, self.codec.temporal, strict=True):
            if temporal:
                beyond = self._select_one().where(_beyond_python(side))
                self._refuse_if(connection, beyond, "holds times that Python has not (infinity, before year 1)")
        if self._dialect.name == "sqlite" and not self.source.is_table:
            self._check_kinds(connection)

    def check_nulls(self, connection: Connection) -> None:
        """See to it that the key is without NULL, where the schema does not prove it.

        Raises:
            ConfigurationError: If it is not.
        """
        if any(self.source.nullable.get(part.name, True) for part in self.key):
            self._refuse_if(connection, self._nulls(), "holds NULL, and rows without a key would be left out")

    def _check_kinds(self, connection: Connection) -> None:
        # The affinity of an expression is unknown here, and would turn the one kind into the other.
        for side in self._sides:
            number = sa.func.typeof(side.column).in_(["integer", "real"])
            mixed: Select[Any] = sa.select(sa.literal_column("1")).where(
                self._select_one().where(number).exists(), self._select_one().where(~number).exists()
            )
            self._refuse_if(connection, mixed, "holds numbers as well as text; CAST it to one type")

    def _refuse_if(self, connection: Connection, problem: Select[Any], what: str) -> None:
        if compile_statement(problem.limit(1), self._dialect).run(connection).rows:
            raise ConfigurationError(
                f"the key {self._named()} of {self.source.label} {what}; give a key of columns that are unique and NOT "
                "NULL, for instance by adding the primary key to it"
            )

    def _named(self) -> str:
        return f"({', '.join(part.name for part in self.key)})"

    def _nulls(self) -> Select[Any]:
        if self._dialect.name == "sqlite" and len(self._sides) == 1:
            # NULLs come first, so the index tells at once; IS NULL on a rowid would read the whole table.
            first = sa.select(self._sides[0].column.label("k")).order_by(self._sides[0].column).limit(1).subquery()
            return sa.select(sa.literal_column("1")).where(first.c.k.is_(None))
        return self._select_one().where(sa.or_(*(side.column.is_(None) for side in self._sides)))

    def _select_one(self) -> Select[Any]:
        return sa.select(sa.literal_column("1")).select_from(self.source.selectable)

    def _page_select(self, *, first: bool) -> Select[Any]:
        rows = self._rows(first=first)
        if self._dialect.name != "postgresql" or not self.source.unique:
            return rows.where(self._up_to()).limit(_limit())
        # Without statistics of a table PostgreSQL takes what lies between two keys for half a percent of it, and sorts
        # what is left of a small one for every page. One key makes it go by the index to the end of the page.
        page = rows.limit(_limit()).subquery("resumable_sync_page")
        columns = dict(zip(self.columns, page.columns, strict=True))
        sides = [
            attrs.evolve(side, column=columns[part.name]) for side, part in zip(self._sides, self.key, strict=True)
        ]
        up_to = up_to_key(sides, self._upper, rows=self._plans_rows)
        return sa.select(*page.columns).where(up_to).order_by(*key_order(sides))

    def _rows(self, *, first: bool) -> Select[Any]:
        rows = sa.select(*self.source.columns.values()).order_by(*key_order(self._sides))
        return rows if first else rows.where(after_key(self._sides, self._after, rows=self._plans_rows))

    def _keys(self, *, backwards: bool = False) -> Select[Any]:
        sides = [side.reversed() for side in self._sides] if backwards else self._sides
        return (
            sa.select(*(side.column for side in sides)).select_from(self.source.selectable).order_by(*key_order(sides))
        )

    def _up_to(self) -> ColumnElement[bool]:
        return up_to_key(self._sides, self._upper, rows=self._plans_rows)

    @property
    def _plans_rows(self) -> bool:
        return plans_rows(self._dialect)

    def _compiled(self, name: str, select: Callable[[], Select[Any]]) -> Statement:
        with self._lock:
            statement = self._statements.get(name)
            if statement is None:
                statement = self._statements[name] = compile_statement(select(), self._dialect)
            return statement


def _type_codes(fetched: Fetched) -> list[Any]:
    return [column[1] for column in fetched.driver_cursor.description]


def _limit() -> ColumnElement[int]:
    return sa.bindparam(_LIMIT, None, type_=sa.BigInteger())


def _offset() -> ColumnElement[int]:
    return sa.bindparam(_OFFSET, None, type_=sa.BigInteger())


def _beyond_python(side: Side) -> ColumnElement[bool]:
    return sa.or_(
        side.bare < sa.literal_column(f"CAST('0001-01-01' AS {side.cast})"),
        side.bare > sa.literal_column(f"CAST('9999-12-31 23:59:59.999999' AS {side.cast})"),
    )
