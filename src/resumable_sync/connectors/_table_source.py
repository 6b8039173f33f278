"""A table or a query of a database as a source, whatever leads to the database: what its connectors have in common."""

import copy
import threading
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Generic, Literal, Protocol, Self, get_args

import sqlalchemy as sa
from sqlalchemy import Connection, Engine
from typing_extensions import TypeVar, override

from resumable_sync._errors import ConfigurationError
from resumable_sync._model import Cursor, Page
from resumable_sync._protocols import AnchoredConnector, Column, IfMoved, PinnableConnector
from resumable_sync._split import ConnectorPart, SplittableConnector
from resumable_sync.connectors._columns import column_types
from resumable_sync.connectors._identity import listed_columns, params_digest, query_identity
from resumable_sync.connectors._keyset import KeyPart, KeySpec, parse_key
from resumable_sync.connectors._plan import KeysetPlan
from resumable_sync.connectors._readers import KeysetReader, OffsetReader
from resumable_sync.connectors._source import Source, TableOrQuery, is_query, resolve, select_statement
from resumable_sync.connectors._split import Span, SpanReader, split_span
from resumable_sync.connectors._statements import connect

__all__ = ["Database", "Paging", "TableSource"]

Paging = Literal["keyset", "stream", "offset"]
RecordT = TypeVar("RecordT", default=Any)


class Database(Protocol):
    """What leads to a database.

    Attributes:
        engine: The engine.
        identity: Which database it is, without credentials.
        place: The same, to be shown.
        as_driven: Whether rows are certain to be what SQLite's driver gives by itself.
    """

    @property
    def engine(self) -> Engine: ...

    @property
    def identity(self) -> str: ...

    @property
    def place(self) -> str: ...

    @property
    def as_driven(self) -> bool: ...

    def close(self) -> None:
        """Close the connections, if they are our own."""


class TableSource(
    ConnectorPart[RecordT],
    SplittableConnector[RecordT],
    PinnableConnector[RecordT],
    AnchoredConnector,
    Generic[RecordT],
):
    """Reads a table or a query of a database.

    Args:
        database: What leads to it.
        table_or_query: What is read.
        key: The unique columns to go by.
        paging: How.
        params: Values for the parameters of a query.
        if_moved: What to do at a resume when the last row delivered is gone or changed.

    Raises:
        ConfigurationError: If the arguments do not fit together.
    """

    _cursors = "keyset"
    """What the fingerprint calls cursors of keys: those of one name mean the same."""

    def __init__(
        self,
        database: Database,
        table_or_query: TableOrQuery,
        key: KeySpec | None,
        *,
        paging: Paging,
        params: Mapping[str, Any] | None,
        if_moved: IfMoved,
    ) -> None:
        if if_moved not in get_args(IfMoved):
            msg = f"if_moved={if_moved!r} is none of 'warn', 'raise' and 'rerun'; give one of them"
            raise ConfigurationError(msg)
        if paging not in get_args(Paging):
            msg = f"paging={paging!r} is none of 'keyset', 'stream' and 'offset'; give one of them"
            raise ConfigurationError(msg)
        if isinstance(table_or_query, str) and not table_or_query.strip():
            msg = f"{table_or_query!r} names no table; give the name of one, or a SELECT"
            raise ConfigurationError(msg)
        self._query = not isinstance(table_or_query, sa.Table) and (
            not isinstance(table_or_query, str) or is_query(table_or_query)
        )
        if self._query and key is None and paging != "offset":
            msg = "a query has no primary key to go by; give the unique columns of its result in key="
            raise ConfigurationError(msg)
        if params is not None and not self._query:
            msg = "params are for the parameters of a query, and this is a table; leave them out"
            raise ConfigurationError(msg)
        self._database = database
        if self._query and not isinstance(table_or_query, str):
            select_statement(table_or_query, params, self._database.engine.dialect)
        self._table_or_query = table_or_query
        self._key = None if key is None else parse_key(key)
        self._paging: Paging = paging
        self._params = None if params is None else dict(params)
        self.if_moved = if_moved
        self._pinned: tuple[str, ...] | None = None
        self._span: Span | None = None
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._reader: KeysetReader | OffsetReader | None = None

    @property
    @override
    def fingerprint(self) -> Mapping[str, str]:
        """The parts that a cursor depends on. Looks the table or query up each time: a run begins with asking."""
        reader = self._opened(anew=True)
        read, dialect = self._table_or_query, self._database.engine.dialect
        parts = {
            "source": self._database.identity,
            # The cursors of a stream are those of keyset paging: either goes on where the other stopped.
            "paging": "offset" if self._paging == "offset" else self._cursors,
            "columns": listed_columns(reader.source.columns),
            "key": _written(reader.key),
        } | ({} if self._span is None else {"range": self._span.identity})
        if isinstance(read, sa.Table) or not self._query:
            return parts | {"table": read.fullname if isinstance(read, sa.Table) else str(read)}
        text, params = read, self._params or {}
        if not isinstance(text, str):
            statement = select_statement(text, params, dialect)
            text, params = statement.text, dict(statement.fixed)
        return parts | {"query": query_identity(text, dialect), "params": params_digest(params)}

    @override
    @abstractmethod
    def read(self, cursor: Cursor | None, batch_size: int) -> Iterator[Page[RecordT]]: ...

    @override
    def count(self) -> int:
        """Count the rows; once a run has begun, those up to its bound."""
        reader = self._opened()
        with connect(self._database.engine) as connection:
            return reader.count(connection)

    def cursor_at(self, offset: int) -> Cursor | None:
        """Give the cursor after the first `offset` rows; None for offset 0, or if there are fewer rows."""
        if offset <= 0:
            return None
        reader = self._opened()
        with connect(self._database.engine) as connection:
            return reader.cursor_at(connection, offset)

    def columns(self) -> Sequence[Column]:
        """Give names and types of the columns.

        Those of a table come from its schema. Those of a query come from the driver, and on SQLite, whose driver knows
        none, from the first 1,000 rows: a column that is empty there, or of several kinds, counts as text.
        """
        reader = self._opened()
        engine = self._database.engine
        return column_types(engine.dialect, connect(engine), reader.source, [part.name for part in reader.key])

    @override
    def moved(self, cursor: Cursor) -> str | None:
        reader = self._opened()
        with connect(self._database.engine) as connection:
            return reader.moved(connection, cursor)

    @override
    def pin(self, columns: Sequence[str]) -> Self:
        pinned = copy.copy(self)
        pinned._pinned = tuple(columns)  # noqa: SLF001 - our own
        pinned._reset()  # noqa: SLF001
        with self._lock:
            if self._reader is not None and tuple(self._reader.source.columns) == pinned._pinned:  # noqa: SLF001
                # Looked up just now, for the fingerprint; taken, so that no two runs share its bound.
                pinned._reader, self._reader = self._reader, None  # noqa: SLF001
        return pinned

    @property
    @override
    def place(self) -> Cursor:
        """Between which keys it reads, such as `[[4711], [300000]]`; None for the whole."""
        return None if self._span is None else self._span.place

    @override
    def split(self, parts: int) -> Sequence[Self]:
        """Give ranges of the key with about equal numbers of rows, up to the last key there is now.

        Their ends are keys of rows, found in one pass along the index by `SELECT id FROM orders WHERE id > 4711 AND id
        <= 300000 ORDER BY id LIMIT 1 OFFSET 9999`; the numbers of rows then differ by one at most. A table of
        PostgreSQL with more than 16,384 rows for each part is not passed through: a sample of 512 rows for each, from
        pages all over the table, tells ends between which the numbers of rows differ by a few per cent.

        Raises:
            ConfigurationError: If it reads by offset, which gives no parts that stay the same, or by a key that cannot
                be one.
        """
        reader = self._opened()
        if not isinstance(reader, KeysetReader):
            msg = "paging='offset' cannot be split into parts that stay the same; name unique columns in key= and"
            raise ConfigurationError(f"{msg} leave paging out")
        with connect(self._database.engine) as connection:
            reader.check(connection)
            whole = reader.whole(connection)
            if whole is None:
                return []
        engine, span = self._database.engine, Span(*whole)
        return [self.part(span.place) for span in split_span(engine, reader.plan, span, parts)]

    @override
    def part(self, place: Cursor) -> Self:
        made = copy.copy(self)
        made._span = Span.of(place)  # noqa: SLF001 - our own
        made._reset()  # noqa: SLF001
        return made

    def check(self) -> None:
        """See to it that the key can be read by, without reading anything.

        Raises:
            ConfigurationError: If table or key do not exist, or the key is of a type that cannot be one, is not unique,
                or holds NULL.
        """
        reader = self._opened()
        with connect(self._database.engine) as connection:
            reader.check(connection)

    def close(self) -> None:
        """Close the connections, if the connector was made from a URL."""
        self._database.close()

    def _opened(self, *, anew: bool = False) -> KeysetReader | OffsetReader:
        with self._lock:
            if self._reader is None or anew:
                self._reader = self._open()
            return self._reader

    def _open(self) -> KeysetReader | OffsetReader:
        engine, as_driven = self._database.engine, self._database.as_driven
        with connect(engine) as connection:
            source, key = self._resolved(connection)
            if self._paging == "offset":
                return OffsetReader(engine, source, key, as_driven=as_driven)
            if not key:
                msg = f"{source.label} has no primary key; name unique columns to go by in key=, or use paging='offset'"
                raise ConfigurationError(msg)
            plan, streaming = self._plan_of(connection, source, key), self._paging == "stream"
            if self._span is not None:
                return SpanReader(engine, plan, self._span, streaming=streaming, as_driven=as_driven)
            return KeysetReader(engine, plan, streaming=streaming, as_driven=as_driven)

    def _plan_of(self, connection: Connection, source: Source, key: Sequence[KeyPart]) -> KeysetPlan:
        return KeysetPlan(connection, source, key)

    def _resolved(self, connection: Connection) -> tuple[Source, tuple[KeyPart, ...]]:
        source = resolve(connection, self._table_or_query, self._params)
        if self._pinned is not None:
            source = source.narrowed(self._pinned)
        return source, self._key or tuple(KeyPart(name) for name in source.primary_key)

    def _shown(self, more: str = "") -> str:
        what = f"query {_written(self._key or ())}" if self._query else str(self._table_or_query)
        shown = f"{type(self).__name__}({self._database.place!r}, {what!r}{more})"
        return shown if self._span is None else f"<a part of {shown}>"

    @override
    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in {"_lock", "_reader"}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._reset()


def _written(key: Sequence[KeyPart]) -> str:
    return ", ".join(map(str, key))
