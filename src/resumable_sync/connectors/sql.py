"""Connectors that read a table or a query of SQLite, PostgreSQL, MySQL or MariaDB."""

import contextlib
import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import URL, Engine
from typing_extensions import override

from resumable_sync._database import URLOrParts, libpq_arguments, parse_url
from resumable_sync._errors import ConfigurationError
from resumable_sync._formats import COPY_TEXT, POSTGRESQL_ARROW, SQLITE_WINDOW, Format, FormattingConnector
from resumable_sync._model import Cursor, Page
from resumable_sync._protocols import IfMoved
from resumable_sync._ranges import KeyRanges, RangeConnector
from resumable_sync.connectors._arrow_pages import ArrowPages, arrow_format
from resumable_sync.connectors._copy_text import CopyTextPages, copy_text_format
from resumable_sync.connectors._keyset import KeySpec, parse_key
from resumable_sync.connectors._range import open_ranges
from resumable_sync.connectors._readers import KeysetReader
from resumable_sync.connectors._source import TableOrQuery
from resumable_sync.connectors._source_engine import SourceEngine
from resumable_sync.connectors._statements import connect
from resumable_sync.connectors._table_source import Paging, TableSource
from resumable_sync.connectors._template import SQLQueryTemplate
from resumable_sync.connectors._windows import WindowPages, window_format

__all__ = ["Paging", "SQLConnector", "SQLQueryTemplate", "from_data"]

Row = tuple[Any, ...]


class SQLConnector(TableSource[Row], RangeConnector, FormattingConnector):
    """Reads a table or a query in pages, in the order of a unique key.

    Rows are plain tuples of what the driver gives, with the column names in `Page.columns`. Whatever happens between
    two pages, every row that is there from the start of the run to its end is read once. The last key there is when a
    run starts bounds it: rows that come later beyond that key belong to the next run.

    `paging="keyset"` sends for each page, on a connection that holds no transaction open in between,

        SELECT id, customer, total FROM orders WHERE id > 4711 AND id <= 300000 ORDER BY id LIMIT 1000

    and for a key of several columns, on MySQL and where directions are mixed the second form,

        ... WHERE (a, b) > (3, 4711) AND (a, b) <= (9, 300000) ORDER BY a, b LIMIT 1000
        ... WHERE a >= 3 AND (a > 3 OR a = 3 AND b < 4711) AND ... ORDER BY a, b DESC LIMIT 1000

    A page costs the same at any depth if an index has the key's columns in the key's order (with mixed directions on
    PostgreSQL and SQLite: and few rows share the first column). A query is put into `SELECT ... FROM (query) ...` and
    runs once for each page, so it should be one that the database can enter by an index.

    `paging="stream"` sends the same once, without LIMIT, and fetches from a cursor that the server keeps; a resume
    sends it again from the last key. For queries that are too costly to repeat. The database keeps a snapshot as long
    as it takes, and SQLite's writers wait for its end unless the file is in WAL mode.

    The list of columns is that of the start of the run, whatever is added to the source meanwhile.

    `paging="offset"` sends `... ORDER BY key LIMIT 1000 OFFSET 4000`, without ORDER BY if there is no key. Only for
    sources that do not change, and keep their order, while they are read.

    Before the first page of a run the key's columns are looked up and their types checked; unless the schema proves it,
    so is that the key is unique and holds no NULL (`... WHERE key IS NULL LIMIT 1`,
    `... GROUP BY key HAVING count(*) > 1 LIMIT 1`). It proves nothing of a table of PostgreSQL from which others
    inherit, as a hypertable's chunks do: their rows are read with its own, and are under none of its indexes.

    Into a sink that takes it, such as `SQLSink` on PostgreSQL, rows go from PostgreSQL as the text that COPY writes,
    without becoming Python values:

        COPY (SELECT id, customer, total FROM orders WHERE id > 4711 AND ... LIMIT 1000) TO STDOUT

    or, into a sink such as `ParquetSink` where ADBC is installed (extra `arrow`), as the Arrow tables that its driver
    makes of COPY's binary form, on a second connection. From a table of a SQLite file they go into another SQLite file
    without leaving SQLite, which reads the one, attached read-only, while it writes the other:

        INSERT INTO main.orders (id, customer, total)
            SELECT id, customer, total FROM resumable_sync_source.orders WHERE id > 4711 AND id <= 5711 ORDER BY id

    Types that cannot be a key are refused: on MySQL and MariaDB FLOAT, ENUM, SET, TIME, YEAR, BIT, JSON and geometry,
    on PostgreSQL those without an exact text and order (json, interval, arrays, ranges, ...) and times that Python has
    not. Connections made from a URL speak UTC on MySQL, where TIMESTAMP is sent as local time.

    The cursor is `[[key after], [last key of the run], digest of the last row]`, such as
    `[[4711], [300000], "5f0c31e9"]`; values are as the driver gives them, on PostgreSQL the server's text of all but
    integers. With `paging="offset"` it is `[offset, digest of the last row]`, such as `[4000, "5f0c31e9"]`.

    At a resume the last row delivered is looked up (`... WHERE id = 4711 LIMIT 1`, or `... LIMIT 1 OFFSET 3999`) and
    compared by its digest. If it is gone or changed, that may be an everyday change of one row, or the table was
    reloaded, restored from a backup, or is in another database; `if_moved` says what then.

    Args:
        url_or_engine: The source: a URL (then it pickles and closes its connections itself), or an engine.
        table_or_query: Name of a table (`"orders"`, `"sales.orders"`), a SQLAlchemy `Table` or `select()`, or the text
            of a SELECT.
        key: The unique columns to go by: `"id"`, `"-created_at"` (descending), `["region", ("at", "desc"), "id"]`.
            None: the primary key of the table; a query needs a key, except with `paging="offset"`.
        paging: `"keyset"`, `"stream"` or `"offset"`.
        params: Values for the `:name` parameters of a query.
        if_moved: What to do at a resume when the last row delivered is gone or changed: `"warn"` (default) goes on and
            logs a warning, `"raise"` refuses with `SourceChangedError`, `"rerun"` starts a new run.

    Raises:
        ConfigurationError: If the arguments do not fit together. Whether tables and columns exist is seen when reading.

    Attributes:
        fingerprint: Database, table or query, key, columns, parameters and paging.

    Examples:
        >>> SQLConnector("postgresql://etl:secret@shop/shop", "orders")
        SQLConnector('postgresql+psycopg://etl:***@shop/shop', 'orders', paging='keyset')
        >>> query = "SELECT id, total FROM orders WHERE region = :region"
        >>> connector = SQLConnector("sqlite:///shop.db", query, key="id", params={"region": "north"})
    """

    _database: SourceEngine

    def __init__(
        self,
        url_or_engine: str | URL | Engine,
        table_or_query: TableOrQuery,
        key: KeySpec | None = None,
        *,
        paging: Paging = "keyset",
        params: Mapping[str, Any] | None = None,
        if_moved: IfMoved = "warn",
    ) -> None:
        super().__init__(
            SourceEngine(url_or_engine), table_or_query, key, paging=paging, params=params, if_moved=if_moved
        )
        self._form: str | None = None

    @property
    def preferred_prefetch(self) -> int:
        """How many pages to read ahead: no rows of SQLite, which gives up Python's lock at every one of them.

        Windows of its files are found in one step each. Of COPY's text, which is small, and written as fast as it is
        read, four.
        """
        if self._form is None and self._database.engine.dialect.name == "sqlite":
            return 0
        return 4 if self._form == COPY_TEXT else 1

    @override
    def read(self, cursor: Cursor | None, batch_size: int) -> Iterator[Page[Row]]:
        reader = self._opened()
        if self._form == POSTGRESQL_ARROW and isinstance(reader, KeysetReader):
            return self._arrow_pages(reader, cursor, batch_size)
        if self._form == COPY_TEXT and isinstance(reader, KeysetReader):
            return reader.read(cursor, batch_size, CopyTextPages(reader.plan).fetch)
        if self._form == SQLITE_WINDOW and isinstance(reader, KeysetReader):
            return reader.read(cursor, batch_size, WindowPages(self._database, reader.plan).fetch)
        return reader.read(cursor, batch_size)

    def _arrow_pages(self, reader: KeysetReader, cursor: Cursor | None, batch_size: int) -> Iterator[Page[Any]]:
        with contextlib.closing(ArrowPages(reader.plan, libpq_arguments(self._database.engine))) as pages:
            yield from reader.read(cursor, batch_size, pages.fetch)

    @override
    def formats(self) -> Sequence[Format]:
        """Give the formats, by `paging="keyset"`.

        From PostgreSQL Arrow, where ADBC is installed, and COPY's text; from a table of a SQLite file windows of it.
        """
        reader = self._opened()
        # A subclass that changes the rows wants to see them.
        if type(self).read is not SQLConnector.read or not isinstance(reader, KeysetReader) or reader.streaming:
            return ()
        with connect(self._database.engine) as connection:
            copied = copy_text_format(connection, reader.plan)
            window = window_format(self._database, connection, reader.plan)
        arrow = arrow_format(copied, reader.plan) if self._database.own else None
        return [each for each in (arrow, copied, window) if each is not None]

    @override
    def in_format(self, format_: Format, /) -> "SQLConnector":
        copying = copy.copy(self)
        copying._form = format_.name  # noqa: SLF001 - our own
        copying._reader = self._opened()  # noqa: SLF001 - whose bound `count` goes by
        return copying

    @override
    def ranges(self, key: KeySpec | None = None) -> KeyRanges:
        if self._span is not None:
            msg = "a part cannot be verified by itself; verify the whole: give the connector that was split"
            raise ConfigurationError(msg)
        with connect(self._database.engine) as connection:
            source, own = self._resolved(connection)
            return open_ranges(self._database.engine, connection, source, own if key is None else parse_key(key))

    @override
    def __repr__(self) -> str:
        return self._shown(f", paging={self._paging!r}")


def from_data(
    *,
    url: URLOrParts,
    table: str | None = None,
    query: str | None = None,
    query_template: str | None = None,
    count_query: str | None = None,
    key: str | list[Any] | None = None,
    paging: Paging = "keyset",
    params: dict[str, Any] | None = None,
    if_moved: IfMoved = "warn",
) -> SQLConnector | SQLQueryTemplate:
    """Build a connector from plain data; what the registry calls for `{"type": "sql", ...}`.

    Args:
        url: The source: a URL, or its parts in a dict (`drivername`, `username`, `password`, `host`, `port`,
            `database`).
        table: Name of a table.
        query: Or the text of a SELECT.
        query_template: Or a SELECT that pages itself, by `:limit` and `:offset`, for `SQLQueryTemplate`.
        count_query: With `query_template`: a SELECT of the number of rows.
        key: As for `SQLConnector`: `"id"`, or a list such as `["region", ["at", "desc"]]`.
        paging: As for `SQLConnector`.
        params: As for `SQLConnector`.
        if_moved: As for `SQLConnector`.

    Raises:
        ConfigurationError: If not exactly one of the three is given, or the arguments do not fit together.
    """
    given = [name for name, value in (("table", table), ("query", query), ("query_template", query_template)) if value]
    if len(given) != 1:
        told = " and ".join(given) or "none of them"
        msg = f"give exactly one of table, query and query_template; there is {told}"
        raise ConfigurationError(msg)
    place = parse_url(url)
    if query_template:
        if key is not None or paging != "keyset" or if_moved != "warn":
            msg = "a query_template pages itself; leave key, paging and if_moved out, or give a table or query"
            raise ConfigurationError(msg)
        return SQLQueryTemplate(place, query_template, count_query, params)
    if count_query is not None:
        msg = "count_query goes with query_template only; tables and queries are counted without it; leave it out"
        raise ConfigurationError(msg)
    parts = [tuple(part) if isinstance(part, list) else part for part in key] if isinstance(key, list) else key
    return SQLConnector(place, table or query or "", parts, paging=paging, params=params, if_moved=if_moved)
