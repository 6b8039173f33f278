"""`ArrowConnector`: a table or a query of any database that has an ADBC driver, as tables of Arrow."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection
from typing_extensions import override

from resumable_sync._arrow.adbc import AdbcDatabase, Driver
from resumable_sync._errors import ConfigurationError
from resumable_sync._model import Cursor, Page
from resumable_sync._protocols import Column, IfMoved
from resumable_sync.connectors._arrow_plan import ArrowPlan
from resumable_sync.connectors._keyset import KeyPart, KeySpec
from resumable_sync.connectors._plan import KeysetPlan
from resumable_sync.connectors._readers import KeysetReader
from resumable_sync.connectors._source import Source
from resumable_sync.connectors._table_source import TableSource

__all__ = ["ArrowConnector", "from_data"]


class ArrowConnector(TableSource[Any]):
    """Reads a table or a query through ADBC, in pages that are tables of Arrow, in the order of a unique key.

        ArrowConnector("postgresql://shop@db/shop", "orders")
        ArrowConnector("sqlite:///shop.db", "SELECT * FROM orders WHERE total > :least", "id", params={"least": 5})
        ArrowConnector("user:secret@account/shop", "orders", "id", driver="adbc_driver_snowflake")

    It pages as `SQLConnector` does, by the same statements, with the same checks before the first page and the same
    bound of a run; only that rows never become Python values, unless somebody asks `batch.dicts()`:

        SELECT id, customer, total FROM orders WHERE id > 4711 AND id <= 300000 ORDER BY id LIMIT 10000

    which PostgreSQL's driver wraps into a binary COPY. `ParquetSink`, `SQLSink` and `ArrowSink` take the tables as they
    are. All goes through ADBC: psycopg is not needed.

    Every value is exactly what the database holds, of the same Arrow type in every page, or is refused with the name of
    its column and without the value:

    - PostgreSQL: numeric(12, 2) is decimal128(12, 2), numeric without digits decimal128(38, 18), never a float. JSON
      and UUIDs are text, intervals durations, arrays lists. Refused: NaN and what has more digits, infinite times,
      intervals of months, and types that the driver gives as bytes of the server's own (inet, ranges, bit strings,
      composites) or of which it tells too little (money, oid): CAST them to text in a query.
    - SQLite keeps any type in any column, and its driver finds one for all values of a page: a mixture that it would
      make one type of is refused. Declared types decide, as `ParquetSink` has them; of a query's columns, and of those
      declared without a type, the first 1,000 rows. There a number keeps no digits, so NUMERIC(12, 2) is the decimal
      that the shortest text of the number says.
    - Other databases: the types that the driver gives.

    The cursor is that of `SQLConnector`, `[[4711], [300000], "5f0c31e9"]`, but neither goes on where the other stopped:
    the digest, by which a resume sees whether the last row is there as it was, is that of the row as Arrow has it.

    A file of SQLite must not be open in this process through Python's `sqlite3` too, as it is where the store or a
    `SQLSink` are in the same file: the driver brings a SQLite of its own, and of two of them in one process each undoes
    the locks of the other.

    Args:
        uri: The database: `postgresql://...`, `sqlite:///...`, or with `driver` whatever that takes.
        table_or_query: Name of a table (`"orders"`, `"sales.orders"`), or the text of a SELECT.
        key: The unique columns to go by, as for `SQLConnector`. None: the primary key of the table, where the driver
            can tell it; a query needs a key.
        driver: What reaches other databases: the name of a package such as `"adbc_driver_snowflake"`, or a function
            that is given the URI and gives a connection of ADBC's DBAPI. Their columns of keys must be whole numbers,
            texts, bytes, decimals, dates or times.
        options: Further arguments of the driver, its `db_kwargs`, such as keys; they are shown nowhere.
        params: Values for the `:name` parameters of a query.
        if_moved: What to do at a resume when the last row delivered is gone or changed: `"warn"` (default) goes on and
            logs a warning, `"raise"` refuses with `SourceChangedError`, `"rerun"` starts a new run.

    Raises:
        ConfigurationError: If the arguments do not fit together. Whether tables and columns exist is seen when reading.

    Attributes:
        fingerprint: Database, table or query, key, columns and parameters.
    """

    _cursors = "keyset of Arrow tables"
    _database: AdbcDatabase

    def __init__(
        self,
        uri: str,
        table_or_query: str,
        key: KeySpec | None = None,
        *,
        driver: Driver | None = None,
        options: Mapping[str, str] | None = None,
        params: Mapping[str, Any] | None = None,
        if_moved: IfMoved = "warn",
    ) -> None:
        super().__init__(
            AdbcDatabase(uri, driver, options), table_or_query, key, paging="keyset", params=params, if_moved=if_moved
        )

    @property
    def preferred_prefetch(self) -> int:
        """How many pages to read ahead: one, also from SQLite, since the driver lets others work meanwhile."""
        return 1

    @override
    def read(self, cursor: Cursor | None, batch_size: int) -> Iterator[Page[Any]]:
        reader = self._keyset()
        return reader.read(cursor, batch_size, _plan(reader).fetch)

    @override
    def columns(self) -> Sequence[Column]:
        """Give names and types of the columns: those of a table from its schema, of a query from the driver."""
        return _plan(self._keyset()).described()

    def _keyset(self) -> KeysetReader:
        reader = self._opened()
        assert isinstance(reader, KeysetReader)  # noqa: S101 - there is no other paging
        return reader

    @override
    def _plan_of(self, connection: Connection, source: Source, key: Sequence[KeyPart]) -> KeysetPlan:
        return ArrowPlan(connection, source, key)

    @override
    def __repr__(self) -> str:
        return self._shown()


def from_data(
    *,
    uri: str,
    table: str | None = None,
    query: str | None = None,
    key: str | list[Any] | None = None,
    driver: str | None = None,
    options: dict[str, str] | None = None,
    params: dict[str, Any] | None = None,
    if_moved: IfMoved = "warn",
) -> ArrowConnector:
    """Build a connector from plain data; what the registry calls for `{"type": "arrow", ...}`.

    Args:
        uri: As for `ArrowConnector`.
        table: Name of a table.
        query: Or the text of a SELECT.
        key: As for `ArrowConnector`: `"id"`, or a list such as `["region", ["at", "desc"]]`.
        driver: As for `ArrowConnector`, by its name.
        options: As for `ArrowConnector`.
        params: As for `ArrowConnector`.
        if_moved: As for `ArrowConnector`.

    Raises:
        ConfigurationError: If not exactly one of table and query is given, or the arguments do not fit together.
    """
    if bool(table) == bool(query):
        msg = f"give exactly one of table and query; there {'are both' if table else 'is none'}"
        raise ConfigurationError(msg)
    parts = [tuple(part) if isinstance(part, list) else part for part in key] if isinstance(key, list) else key
    return ArrowConnector(
        uri, table or query or "", parts, driver=driver, options=options, params=params, if_moved=if_moved
    )


def _plan(reader: KeysetReader) -> ArrowPlan:
    assert isinstance(reader.plan, ArrowPlan)  # noqa: S101 - for the type checker
    return reader.plan
