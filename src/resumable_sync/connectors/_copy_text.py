"""Pages of PostgreSQL as the text that its COPY writes, without making Python values of it."""

import re
from typing import Any

from sqlalchemy import Connection

from resumable_sync._database import driver_cursor
from resumable_sync._formats import COPY_TEXT, CopyText, Format
from resumable_sync.connectors._columns import postgres_type_names
from resumable_sync.connectors._plan import Key, KeysetPlan
from resumable_sync.connectors._statements import scrubbed

__all__ = ["CopyTextPages", "copy_text_format"]

_EXACT_FLOATS_SINCE = (12,)
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)
_ESCAPES = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v"}
_NULL = b"\\N"


def copy_text_format(connection: Connection, plan: KeysetPlan) -> Format | None:
    """Give the format of a source; None if its text would not be the same for every reader.

    Args:
        connection: To the source.
        plan: How it is read.
    """
    dialect = connection.dialect
    if (dialect.name, dialect.driver) != ("postgresql", "psycopg"):
        return None
    if (dialect.server_version_info or ()) < _EXACT_FLOATS_SINCE or len(plan.places) < len(plan.key):
        return None
    info: Any = connection.connection.driver_connection.info  # type: ignore[union-attr]
    settings = [info.parameter_status(name) or "" for name in ("client_encoding", "DateStyle", "IntervalStyle")]
    if settings[0] != "UTF8" or not settings[1].startswith("ISO") or settings[2] != "postgres":
        return None
    if int(connection.exec_driver_sql("SHOW extra_float_digits").scalar_one()) < 1:
        return None
    oids = plan.oids(connection)
    names = postgres_type_names(connection, oids)
    return Format(name=COPY_TEXT, columns=plan.columns, types=tuple(names.get(oid, "") for oid in oids))


class CopyTextPages:
    """Fetches pages as `CopyText`.

        COPY (SELECT id, total FROM (SELECT id, total FROM orders WHERE id > 4711 ORDER BY id LIMIT 1000) AS page
        WHERE id <= 300000 ORDER BY id) TO STDOUT

    Args:
        plan: How the source is read.
    """

    def __init__(self, plan: KeysetPlan) -> None:
        self._plan = plan

    def fetch(
        self, connection: Connection, after: Key | None, upper: Key, limit: int
    ) -> tuple[CopyText, Key, str | None] | None:
        """Fetch the rows after `after` and up to `upper`, at most `limit`, with key and digest of the last one."""
        statement = self._plan.page_statement(first=after is None)
        # COPY takes no parameters: the driver writes them into the text, quoted by their types.
        parameters = statement.parameters(self._plan.page_values(after, upper, limit))
        copy_out = f"COPY ({statement.text}) TO STDOUT"
        with scrubbed(), driver_cursor(connection) as cursor, cursor.copy(copy_out, parameters):
            # All lines in one wait: `list(copy)` gives the same, and takes twice the time for a wait for each.
            records, last = cursor.connection.wait(_receive(cursor.connection.pgconn))
        if not records:
            return None
        values = [_unescaped(value) for value in last.removesuffix(b"\n").split(b"\t")]
        key = self._plan.codec.parse([(values[place] or b"").decode() for place in self._plan.places])
        return records, key, self._anchor(connection, values)

    def _anchor(self, connection: Connection, values: list[bytes | None]) -> str | None:
        """Give the digest that the row has as Python values; None if Python has no such values."""
        import psycopg  # noqa: PLC0415 - an optional package
        from psycopg.adapt import Transformer  # noqa: PLC0415

        driver_connection: Any = connection.connection.driver_connection
        loaders = Transformer(driver_connection)
        try:
            row = [
                None if value is None else loaders.get_loader(oid, psycopg.pq.Format.TEXT).load(value)
                for oid, value in zip(self._plan.oids(connection), values, strict=True)
            ]
        except (psycopg.Error, ValueError, ArithmeticError):
            return None  # infinity, or a year before 1
        return self._plan.anchor_of(row)


def _receive(pgconn: Any) -> Any:
    """Receive all lines of a COPY; for the driver's `wait`.

    A generator of the driver's own for each line would take as long again as the line, and so would keeping the lines:
    each is a buffer that libpq has allocated, and a page of them fits into no cache of the processor.

    Yields:
        What the driver waits for.

    Returns:
        The lines as `CopyText`, and the last one.
    """
    from psycopg.errors import error_from_result  # noqa: PLC0415 - an optional package
    from psycopg.generators import fetch_many  # noqa: PLC0415
    from psycopg.pq import ExecStatus  # noqa: PLC0415
    from psycopg.waiting import Wait  # noqa: PLC0415

    data, rows, last = bytearray(), 0, b""
    while True:
        length, line = pgconn.get_copy_data(1)
        if length > 0:
            data += line
            rows += 1
            last = line
        elif length < 0:
            break
        elif (yield Wait.R):
            pgconn.consume_input()
    for result in (yield from fetch_many(pgconn)):
        if result.status != ExecStatus.COMMAND_OK:
            failure = error_from_result(result)
            raise failure
    return CopyText(bytes(data), rows), bytes(last)


def _unescaped(value: bytes) -> bytes | None:
    if value == _NULL:
        return None
    return _ESCAPED.sub(lambda found: _ESCAPES.get(found[1], found[1]), value) if b"\\" in value else value
