"""Reading a query that pages itself."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import URL, Connection, Engine
from typing_extensions import override

from resumable_sync._bases import OffsetConnector
from resumable_sync._database import database_identity, shown_url
from resumable_sync._model import Cursor, Page
from resumable_sync.connectors._identity import params_digest, query_identity
from resumable_sync.connectors._readers import offset_pages
from resumable_sync.connectors._source import query_text
from resumable_sync.connectors._source_engine import SourceEngine
from resumable_sync.connectors._statements import Fetched, Statement, compile_statement, connect

__all__ = ["SQLQueryTemplate"]

Row = tuple[Any, ...]


class SQLQueryTemplate(OffsetConnector[Row]):
    """Reads a query that pages itself, by `:limit` and `:offset`.

        SQLQueryTemplate(url, "SELECT id, name FROM customers ORDER BY id LIMIT :limit OFFSET :offset")

    Each page sends the query with its two parameters. Only for sources that do not change, and keep their order, while
    they are read, and a page costs the more the deeper it lies: where there is a unique key, `SQLConnector` is safe and
    fast.

    What `SQLConnector` looks up in the database, this does not, for the query is sent as it is. The columns of a run
    are not pinned: name them, because what `*` stands for may change during a run. There is no anchor, and no
    `if_moved`: at a resume nobody looks whether the last row delivered is still there as it was, and a source that was
    reloaded or restored meanwhile goes unnoticed where database, query and parameters are the same.

    The cursor is the number of rows delivered: `[200]`.

    Args:
        url_or_engine: The source: a URL (then it pickles and closes its connections itself), or an engine.
        query: A SELECT with the parameters `:limit` and `:offset`.
        count_query: A SELECT of one number, how many rows there are; None: unknown.
        params: Values for further `:name` parameters; `count_query` takes those that it names.

    Raises:
        ConfigurationError: If one of the two parameters is missing, or others have no value.
    """

    def __init__(
        self,
        url_or_engine: str | URL | Engine,
        query: str,
        count_query: str | None = None,
        params: Mapping[str, Any] | None = None,
    ) -> None:
        self._database = SourceEngine(url_or_engine)
        self._query = query
        self._count_query = count_query
        self._params = dict(params or {})
        self._prepare()

    def _prepare(self) -> None:
        dialect = self._database.engine.dialect
        self._page_statement = compile_statement(query_text(self._query, self._params, ("limit", "offset")), dialect)
        self._count_statement: Statement | None = None
        if self._count_query is not None:
            named = sa.text(self._count_query).compile().params
            params = {name: value for name, value in self._params.items() if name in named}
            self._count_statement = compile_statement(query_text(self._count_query, params), dialect)
        self.fingerprint = {
            "source": database_identity(self._database.engine),
            "query": query_identity(self._query, dialect),
            "params": params_digest(self._params),
        }

    @override
    def fetch(self, offset: int, limit: int) -> Sequence[Row]:
        with connect(self._database.engine) as connection:
            return self._fetched(connection, offset, limit).rows

    @override
    def read(self, cursor: Cursor | None, batch_size: int) -> Iterator[Page[Row]]:
        offset = self._offset(cursor)
        with connect(self._database.engine) as connection:
            yield from offset_pages(lambda offset: self._fetched(connection, offset, batch_size), offset)

    @override
    def count(self) -> int | None:
        """Give the number that `count_query` selects."""
        if self._count_statement is None:
            return None
        with connect(self._database.engine) as connection:
            return int(self._count_statement.run(connection).rows[0][0])

    def close(self) -> None:
        """Close the connections, if the connector was made from a URL."""
        self._database.close()

    def _fetched(self, connection: Connection, offset: int, limit: int) -> Fetched:
        return self._page_statement.run(connection, {"limit": limit, "offset": offset})

    @override
    def __repr__(self) -> str:
        return f"SQLQueryTemplate({shown_url(self._database.engine.url)!r})"

    @override
    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("_database", "_query", "_count_query", "_params")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._prepare()
