"""Pages of PostgreSQL as Arrow tables that ADBC's driver makes of the server's binary form, all of it in C++."""

import contextlib
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any
from uuid import UUID

import attrs
from sqlalchemy import Connection

from resumable_sync._arrow.dbapi import shown
from resumable_sync._database import wrap_error
from resumable_sync._formats import POSTGRESQL_ARROW, ArrowRows, Format
from resumable_sync.connectors._plan import Key, KeysetPlan

__all__ = ["ArrowPages", "arrow_format"]

_NEEDED = ("pyarrow", "adbc_driver_manager", "adbc_driver_postgresql")
# Whose values come as the text that the server would write, or are easily made that.
_KEYS = {"smallint", "integer", "bigint", "text", "character varying", "character", "uuid", "date"}


def arrow_format(copied: Format | None, plan: KeysetPlan) -> Format | None:
    """Give the format of a source; None if the driver is not installed, or does not give its key exactly.

    Args:
        copied: The format of COPY's text.
        plan: How the source is read.
    """
    if copied is None or any(find_spec(name) is None for name in _NEEDED):
        return None
    exact = all(copied.types[place] in _KEYS for place in plan.places)
    return attrs.evolve(copied, name=POSTGRESQL_ARROW) if exact else None


class ArrowPages:
    """Fetches pages as `ArrowRows`, on a connection of its own to the same server.

        SELECT id, total FROM orders WHERE id > 4711 AND id <= 300000 ORDER BY id LIMIT 1000

    which the driver wraps into `COPY (...) TO STDOUT (FORMAT binary)`. What the last row looks like as Python values,
    by which a resume sees whether it is still the same, is asked of the usual connection, by its key.

    Args:
        plan: How the source is read.
        arguments: Of the connection, as libpq calls them.
    """

    def __init__(self, plan: KeysetPlan, arguments: Mapping[str, Any]) -> None:
        self._plan = plan
        self._arguments = arguments
        self._opened: Any = None

    def fetch(
        self, connection: Connection, after: Key | None, upper: Key, limit: int
    ) -> tuple[ArrowRows, Key, str | None] | None:
        """Fetch the rows after `after` and up to `upper`, at most `limit`, with key and digest of the last one."""
        from psycopg import ClientCursor, DataError  # noqa: PLC0415 - an optional package

        statement = self._plan.page_statement(first=after is None)
        driver_connection: Any = connection.connection.driver_connection
        # With parameters beside it, the driver would fetch rows one by one.
        parameters = statement.parameters(self._plan.page_values(after, upper, limit))
        table = self._table(connection, ClientCursor(driver_connection).mogrify(statement.text, parameters))
        if not len(table):
            return None
        key = self._plan.codec.parse([_text(table.column(place)[-1].as_py()) for place in self._plan.places])
        try:
            anchor = self._plan.anchor_at(connection, key)
        except DataError:
            anchor = None  # infinity, or a year before 1, which Python has not
        return ArrowRows(table), key, anchor

    def _table(self, connection: Connection, query: str) -> Any:
        import adbc_driver_manager  # noqa: PLC0415 - an optional package
        from adbc_driver_postgresql import dbapi  # noqa: PLC0415
        from psycopg.conninfo import make_conninfo  # noqa: PLC0415

        try:
            if self._opened is None:
                self._opened = dbapi.connect(make_conninfo(**self._arguments), autocommit=True)
            with self._opened.cursor() as cursor:
                cursor.execute(query)
                return cursor.fetch_arrow_table()
        except adbc_driver_manager.Error as error:
            failed = _usual(error, connection)
        raise failed

    def close(self) -> None:
        """Close the connection."""
        opened, self._opened = self._opened, None
        if opened is not None:
            with contextlib.suppress(Exception):
                opened.close()


def _usual(error: Any, connection: Connection) -> Exception:
    """Give the error that the usual driver would have raised."""
    import psycopg  # noqa: PLC0415 - an optional package

    kind: type[psycopg.Error] = psycopg.OperationalError if error.sqlstate is None else psycopg.DatabaseError
    with contextlib.suppress(KeyError):
        kind = psycopg.errors.lookup(error.sqlstate or "")
    return wrap_error(kind(shown(error)), connection)


def _text(value: Any) -> str:
    return str(UUID(bytes=value)) if isinstance(value, bytes) else str(value)
