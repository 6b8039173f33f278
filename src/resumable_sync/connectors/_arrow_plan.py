"""A source read by its key through ADBC: the statements are those of any database, and the rows tables of Arrow."""

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection
from typing_extensions import override

from resumable_sync._arrow.columns import columns_of, pyarrow
from resumable_sync._database import driver_cursor
from resumable_sync._protocols import Column
from resumable_sync.connectors._arrow_exact import Exact, given_types, postgresql_types, sqlite_types
from resumable_sync.connectors._keyset import KeyPart
from resumable_sync.connectors._plan import Key, KeysetPlan
from resumable_sync.connectors._source import Source
from resumable_sync.connectors._statements import Fetched, Statement, scrubbed

__all__ = ["ArrowPlan"]

_SAMPLE = 1_000


class ArrowPlan(KeysetPlan):
    """How a source is read through ADBC.

    Args:
        connection: To the source, of an engine over ADBC.
        source: What is read.
        key: By what.

    Raises:
        ConfigurationError: If the driver gives a column in no form that is exact.
    """

    def __init__(self, connection: Connection, source: Source, key: Sequence[KeyPart]) -> None:
        super().__init__(connection, source, key)
        dialect = connection.dialect.name
        rows = _SAMPLE if dialect == "sqlite" else 0
        sample = self._compiled("sample", lambda: sa.select(*source.columns.values()).limit(rows))
        found = self._run(connection, sample, {}, rows or 1)[0]
        if dialect == "postgresql":
            self.exact = postgresql_types(found.schema)
        elif dialect == "sqlite":
            self.exact = sqlite_types({name: one.type for name, one in source.columns.items()}, _as_text(found))
        else:
            self.exact = given_types(found.schema)
        self._looks = [name for name, one in self.exact.items() if one.storage is not None]

    def described(self) -> list[Column]:
        """Give the columns with their types: the declared ones of a table, else those of the pages."""
        schema = pyarrow().schema([(name, one.kind) for name, one in self.exact.items()])
        keys = {part.name for part in self.key}
        return [
            Column(
                name=found.name,
                type=_described(self.source.columns[found.name].type, found.type, self.exact[found.name]),
                nullable=self.source.nullable.get(found.name, True),
                primary_key=found.name in keys,
            )
            for found in columns_of(schema)
        ]

    def fetch(
        self, connection: Connection, after: Key | None, upper: Key, limit: int
    ) -> tuple[Any, Key, str | None] | None:
        """Fetch the rows after `after` and up to `upper`, at most `limit`, with key and digest of the last one."""
        statement = self.page_statement(first=after is None)
        rows, key = self._exactly(connection, statement, self.page_values(after, upper, limit), limit)
        return None if key is None else (rows, key, self._digest(rows))

    @override
    def anchor_at(self, connection: Connection, key: Key) -> str | None:
        rows, found = self._exactly(connection, self.row_statement(), dict(zip(self._after, key, strict=True)), 1)
        return None if found is None else self._digest(rows)

    def _exactly(
        self, connection: Connection, statement: Statement, values: Mapping[str, Any], limit: int
    ) -> tuple[Any, Key | None]:
        """Give rows of a statement, exactly as they are, and the key of the last one; None if there is none."""
        driver: Any = connection.connection.driver_connection
        if self._looks:
            driver.execute("BEGIN")  # so that the look sees the same rows
        try:
            rows, cursor = self._run(connection, statement, values, limit)
            if not len(rows):
                return rows, None
            self._look(connection, statement, values, rows)
        finally:
            if self._looks:
                driver.rollback()
        columns = [one.of(name, rows.column(place)) for place, (name, one) in enumerate(self.exact.items())]
        last = [rows.column(place)[-1].as_py() if place in self.places else None for place in range(len(columns))]
        key = self.codec.last(Fetched(rows=[tuple(last)], driver_cursor=cursor), self.places)
        return pyarrow().table(columns, names=list(self.exact)), key

    def _run(self, connection: Connection, statement: Statement, values: Mapping[str, Any], limit: int) -> Any:
        with scrubbed(), driver_cursor(connection) as cursor:
            return cursor.fetch_table(statement.text, statement.parameters(values), limit), cursor

    def _look(self, connection: Connection, statement: Statement, values: Mapping[str, Any], rows: Any) -> None:
        """See to it that values which the driver made one type were of one, where its type does not tell.

        Raises:
            ValueError: If they were not.
        """
        merged = {pyarrow().string(), pyarrow().binary()}
        names = [
            name
            for name in self._looks
            if rows.column(name).type in merged and rows.column(name).null_count < len(rows)
        ]
        if not names:
            return
        quote = connection.dialect.identifier_preparer.quote_identifier
        # All of them: of integer, real and text the ends alone would hide the real, which loses its digits in a text.
        kinds = ", ".join(f"group_concat(DISTINCT nullif(typeof({quote(name)}), 'null'))" for name in names)
        look = f"SELECT {kinds} FROM ({statement.text}) AS page"  # noqa: S608 - our own statement
        found = self._run(connection, Statement(text=look, names=statement.names, fixed=statement.fixed), values, 1)[0]
        for place, name in enumerate(names):
            classes = found.column(place)[0].as_py().split(",")
            if not set(classes) <= set(self.exact[name].storage or ()):
                kinds = " and ".join(sorted(classes))
                msg = f"column {name!r} holds values of the types {kinds}, of which ADBC's driver makes one; CAST them"
                raise ValueError(f"{msg} to one type in a query, or use SQLConnector")

    def _digest(self, rows: Any) -> str:
        return self.anchor_of([_value(column[-1]) for column in rows.columns])


def _value(scalar: Any) -> Any:
    try:
        return scalar.as_py()
    except (ValueError, OverflowError):
        return str(scalar)  # of nanoseconds, which Python has not


def _as_text(rows: Any) -> Any:
    """Give the schema of rows; columns of nothing but NULL, of which SQLite's driver knows no type, are text."""
    pa = pyarrow()
    return pa.schema([
        field.with_type(pa.string()) if column.null_count == len(rows) else field
        for field, column in zip(rows.schema, rows.columns, strict=True)
    ])


def _described(declared: Any, found: Any, exact: Exact) -> Any:
    if exact.document:
        return sa.JSON()  # as the text of documents
    return found if isinstance(declared, sa.types.NullType) else declared
