"""Writing rows with PostgreSQL's COPY, through psycopg."""

import hashlib
import re
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection

from resumable_sync._database import driver_cursor
from resumable_sync._formats import CopyText, Format, SQLiteWindow
from resumable_sync.sinks._statements import conflict_clause, insert_target
from resumable_sync.sinks._target import Target, TargetColumn, quote

__all__ = ["Stage", "copies", "copy_statement", "fits_copy_text", "reads_copy_text", "run_copy"]

Rows = Iterable[tuple[Any, ...]] | CopyText | SQLiteWindow

_TEXTS = frozenset({"text", "character varying"})
# Beside itself: what takes the text of a type, and makes the same of it as of the Python value.
_WIDER = {
    "smallint": frozenset({"integer", "bigint", "numeric"}),
    "integer": frozenset({"bigint", "numeric"}),
    "bigint": frozenset({"numeric"}),
    "real": frozenset({"double precision"}),
    "character": _TEXTS,
    **dict.fromkeys(_TEXTS, _TEXTS),
    "json": frozenset({"jsonb"}),
    "jsonb": frozenset({"json"}),
}
_ORDINAL = "resumable_sync ordinal"


def copies(connection: Connection) -> bool:
    """Whether the driver can COPY from Python values."""
    return connection.dialect.name == "postgresql" and connection.dialect.driver == "psycopg"


def reads_copy_text(connection: Connection) -> bool:
    """Whether a session takes COPY's text for what the source meant."""
    if not copies(connection):
        return False
    info: Any = connection.connection.driver_connection.info  # type: ignore[union-attr]
    return (info.parameter_status("client_encoding"), info.parameter_status("IntervalStyle")) == ("UTF8", "postgres")


def fits_copy_text(format_: Format, columns: Sequence[TargetColumn]) -> bool:
    """Whether COPY makes the same of a source's text as of its Python values, in these columns."""
    types = (re.sub(r"\([^)]*\)", "", column.declared) for column in columns)
    return all(
        source != "" and (source == target or target in _WIDER.get(source, ()))
        for source, target in zip(format_.types, types, strict=True)
    )


def copy_statement(connection: Connection, table: str, columns: Sequence[str]) -> str:
    """Give `COPY table (columns) FROM STDIN`."""
    return f"COPY {table} ({', '.join(quote(connection, column) for column in columns)}) FROM STDIN"


def run_copy(connection: Connection, statement: str, rows: Rows, mark: str) -> None:
    """Copy rows inside the connection's transaction; `mark` is a comment for the statement."""
    with driver_cursor(connection) as cursor:
        _copy(cursor, f"{mark} {statement}", rows)


def _copy(cursor: Any, statement: str, rows: Rows) -> None:
    with cursor.copy(statement) as copy:
        if isinstance(rows, CopyText):
            copy.write(rows.data)
            return
        write_row = copy.write_row
        for row in rows:
            write_row(row)


class Stage:
    """A temporary table through which rows are merged into the target by key.

    It belongs to the session and is empty between transactions. It is asked for with every batch, since a pooled
    connection may be another session every time.

    Args:
        connection: To the target's database.
        target: The target.
        columns: The columns of the rows.
        key: Columns of the key.
    """

    def __init__(self, connection: Connection, target: Target, columns: Sequence[str], key: Sequence[str]) -> None:
        definitions = [_definition(connection, target, column) for column in columns]
        ordinal = quote(connection, _ORDINAL)
        definitions.append(f"{ordinal} bigint GENERATED ALWAYS AS IDENTITY")
        # Another shape is another table: the target may be altered while the session lives.
        digest = hashlib.sha256("\n".join([target.quoted, *definitions]).encode("utf-8", "surrogatepass"))
        name = f'pg_temp."resumable_sync_{digest.hexdigest()[:32]}"'
        names = ", ".join(quote(connection, column) for column in columns)
        keys = ", ".join(quote(connection, column) for column in key)
        self._create = f"CREATE TEMPORARY TABLE IF NOT EXISTS {name} ({', '.join(definitions)}) ON COMMIT DELETE ROWS"
        # Rows of an earlier batch are there only if that came in this very transaction.
        self._empty = f"DELETE FROM {name}"  # noqa: S608 - names are quoted
        self._copy = copy_statement(connection, name, columns)
        # A statement may touch a row only once, and equal is what the database says is equal: the last row wins.
        latest = f"SELECT DISTINCT ON ({keys}) * FROM {name} ORDER BY {keys}, {ordinal} DESC"  # noqa: S608 - quoted
        insert = insert_target(connection, target, columns)
        merge = conflict_clause(connection, columns, key)
        self._merge = f"{insert} SELECT {names} FROM ({latest}) AS latest {merge}"  # noqa: S608 - names are quoted

    def merge(self, connection: Connection, rows: Rows, mark: str) -> None:
        """Merge rows into the target; `mark` is a comment for the COPY."""
        with driver_cursor(connection) as cursor:
            # Two statements in one round trip; such a pair cannot be prepared.
            cursor.execute(f"{self._create}; {self._empty}", prepare=False)
            _copy(cursor, f"{mark} {self._copy}", rows)
            cursor.execute(self._merge)


def _definition(connection: Connection, target: Target, name: str) -> str:
    column = target.columns[name]
    collation = f" COLLATE {column.collation}" if column.collation else ""
    return f"{quote(connection, name)} {column.declared}{collation}"
