"""ADBC's connections as SQLAlchemy works with them, and errors that tell neither rows nor credentials.

Transactions are begun and ended by statements, while the driver is in its mode of a transaction for each statement: in
the other one it begins the next transaction at once, and PostgreSQL would end the session that seems to forget it.
"""

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from types import SimpleNamespace
from typing import Any, Self
from uuid import UUID

from resumable_sync._driver_errors import RAISED, mask_values
from resumable_sync._errors import MissingExtraError, mask_credentials

__all__ = ["ADBC", "AdbcConnection", "AdbcCursor", "adbc_dbapi", "postgresql_literal", "shown"]

ADBC = "resumable_sync_adbc"
"""What SQLAlchemy calls the driver."""

_COPIES = "adbc.postgresql.use_copy"
_ROWS = "adbc.sqlite.query.batch_rows"
_CHANGES = re.compile(r"(?is)\s*(insert|update|delete|replace)\b")
_ERRORS = [
    *("DatabaseError", "DataError", "Error", "IntegrityError", "InterfaceError", "InternalError"),
    *("NotSupportedError", "OperationalError", "ProgrammingError", "Warning"),
]
_PREFIX = re.compile(r"^[A-Z_]+: (\[\w+\] )?")
_BY_RAISE = re.compile(r"[^\n]*(?:RAISE|ASSERT)")
"""The place where PL/pgSQL says that it was, in the words of any language: the lines after it are its callers."""
_CHANGE_FAILED = re.compile(r"(?:[A-Z]+: failed to execute|INTEGRITY): ")
_SQLITE_SAYS = re.compile(
    r"(?:(?:UNIQUE|NOT NULL|CHECK|FOREIGN KEY) constraint failed|cannot store \w+ value in)\b.*|constraint failed"
    r"|datatype mismatch|database (?:table |schema )?is locked|database or disk is full|disk I/O error"
    r"|attempt to write a readonly database|database disk image is malformed|unable to open database file"
    r"|string or blob too big|out of memory|interrupted|integer overflow|database schema has changed"
)
"""What SQLite itself says of a change that failed; its driver does not tell that from what a trigger says."""


def adbc_dbapi(paramstyle: str = "qmark") -> Any:
    """Give what SQLAlchemy takes for the driver's module.

    Raises:
        MissingExtraError: If ADBC's driver manager is not installed.
    """
    try:
        import adbc_driver_manager  # noqa: PLC0415 - an optional package
        import pyarrow  # noqa: F401, ICN001, PLC0415 - what it needs to give rows
    except ModuleNotFoundError as error:
        raise MissingExtraError(str(error.name), "arrow") from None
    errors = {name: getattr(adbc_driver_manager, name) for name in _ERRORS}
    return SimpleNamespace(paramstyle=paramstyle, Binary=bytes, sqlite_version_info=(3, 35, 0), **errors)


class AdbcConnection:
    """A connection of ADBC's DBAPI, with transactions that are begun by a statement.

    Args:
        connection: ADBC's own.
        kind: `"postgresql"`, `"sqlite"` or `"other"`: whose transactions only ADBC itself can begin and end.
    """

    def __init__(self, connection: Any, kind: str) -> None:
        self.adbc = connection
        self.kind = kind
        self.in_transaction = False
        self.autocommit = False
        self.closed = False
        self.guarded(lambda: connection.adbc_connection.set_autocommit(True))

    def cursor(self) -> "AdbcCursor":
        """Give a cursor."""
        return AdbcCursor(self)

    def execute(self, begin: str) -> None:
        """Begin a transaction, by a statement such as BEGIN IMMEDIATE."""
        self._end_or_begin(begin)
        self.in_transaction = True

    def begin(self) -> None:
        """Begin a transaction, unless there is one, or every statement shall be one."""
        if not self.autocommit and not self.in_transaction:
            # What was committed last counts, as nearly everywhere, and not what stood there when it began.
            self.execute("BEGIN ISOLATION LEVEL READ COMMITTED" if self.kind == "postgresql" else "BEGIN")

    def commit(self) -> None:
        """Commit the transaction, if there is one."""
        if self.in_transaction:
            self._end_or_begin("COMMIT")
            self.in_transaction = False

    def rollback(self) -> None:
        """Roll the transaction back, if there is one."""
        if self.in_transaction:
            self.in_transaction = False
            self._end_or_begin("ROLLBACK")

    def close(self) -> None:
        """Close it; the database rolls back what is open."""
        self.adbc.close()

    def guarded(self, work: Callable[[], Any]) -> Any:
        """Do work with the driver, whose errors hold the statement and its values."""
        import adbc_driver_manager  # noqa: PLC0415 - an optional package

        try:
            return work()
        except adbc_driver_manager.Error as error:
            failed = clean(error, self.kind)
        self.closed = self.closed or is_lost(failed)
        raise failed

    def objects(self, depth: str, filters: dict[str, Any]) -> list[Any]:
        """Give catalogs with what is in them, down to `"db_schemas"`, `"tables"` or, with their keys, `"all"`."""
        found = self.guarded(lambda: self.adbc.adbc_get_objects(depth=depth, **filters).read_all())
        rows: list[Any] = found.to_pylist()
        return rows

    def table_schema(self, name: str, schema: str | None) -> Any:
        """Give the schema of a table as Arrow has it; None if there is none."""
        try:
            return self.guarded(lambda: self.adbc.adbc_get_table_schema(name, db_schema_filter=schema))
        except adbc_dbapi().Error:
            if self.closed:
                raise
        return None

    def _end_or_begin(self, word: str) -> None:
        if self.kind != "other":
            with AdbcCursor(self) as cursor:
                cursor.run(word)
            return
        handle = self.adbc.adbc_connection
        calls: dict[str, Callable[[], Any]] = {
            "COMMIT": lambda: (handle.commit(), handle.set_autocommit(True)),
            "ROLLBACK": lambda: (handle.rollback(), handle.set_autocommit(True)),
        }
        self.guarded(calls.get(word, lambda: handle.set_autocommit(False)))


class AdbcCursor:
    """A cursor of ADBC's DBAPI, which takes the parameters of a SQLAlchemy dialect and keeps what it fetched."""

    arraysize = 1
    lastrowid = None

    def __init__(self, connection: AdbcConnection) -> None:
        self._cursor: Any = None
        self.connection = connection
        self.rowcount = -1
        self.table: Any = None
        self._cursor = connection.guarded(connection.adbc.cursor)
        self._rows: Iterator[tuple[Any, ...]] | None = None
        self._description: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        # Nobody fetches what `SELECT set_config(...)` gives, or closes it. The connection may be closed by now.
        with contextlib.suppress(Exception):
            self.close()

    @property
    def description(self) -> Any:
        """Names and types of the columns; None of a statement that gives no rows."""
        return self._description or None

    def execute(self, statement: str, parameters: Any = None) -> None:
        """Run a statement, in a transaction unless every statement is one."""
        self.connection.begin()
        self.run(statement, parameters)

    def run(self, statement: str, parameters: Any = None) -> None:
        """Run a statement as things are."""
        kind = self.connection.kind
        if kind == "postgresql":
            # The driver takes the types of parameters from the values, and then fetches rows one by one.
            if parameters is not None:
                statement %= _literals(parameters)
            parameters = None
            self._cursor.adbc_statement.set_options(**{_COPIES: "false"})
        self._rows = self.table = None
        if kind == "other" and _CHANGES.match(statement):
            self._change(statement, parameters)
            return
        self.connection.guarded(lambda: self._cursor.execute(statement, parameters or None))
        self._description = self._cursor.description
        self.rowcount = self._cursor.rowcount
        if kind == "sqlite" and not self._description and _CHANGES.match(statement):
            self.connection.guarded(lambda: self._cursor.execute("SELECT changes()"))
            self.rowcount = self.connection.guarded(self._cursor.fetchone)[0]

    def _change(self, statement: str, parameters: Any) -> None:
        sets = [parameters] if parameters else None
        self.connection.guarded(lambda: self._cursor.executemany(statement, sets))
        self._description, self.rowcount = None, self._cursor.rowcount
        if self.rowcount < 0:
            msg = "the driver does not tell how many rows a statement changed"
            raise adbc_dbapi().NotSupportedError(msg, status_code=None)

    def executemany(self, statement: str, sets: Sequence[Any]) -> None:
        """Run a statement for each set of parameters."""
        for parameters in sets:
            self.execute(statement, parameters)

    def fetch_table(self, statement: str, parameters: Any, rows: int) -> Any:
        """Run a query of so many rows, in the way that is fastest for them, and give them as a table of Arrow."""
        kind = self.connection.kind
        self.connection.begin()
        if kind == "postgresql":
            statement, parameters = statement % _literals(parameters), None
            self._cursor.adbc_statement.set_options(**{_COPIES: "true"})
        elif kind == "sqlite":
            # All rows together decide on their types.
            self._cursor.adbc_statement.set_options(**{_ROWS: str(rows)})
        self.connection.guarded(lambda: self._cursor.execute(statement, parameters or None))
        self.table = self.connection.guarded(self._cursor.fetch_arrow_table)
        return self.table

    def ingest(self, table: str, data: Any, schema: str | None) -> None:
        """Append rows of Arrow to a table, inside the transaction."""
        self.connection.begin()
        kind = self.connection.kind
        place = {} if schema is None else {"catalog_name" if kind == "sqlite" else "db_schema_name": schema}
        self.connection.guarded(lambda: self._cursor.adbc_ingest(table, data, mode="append", **place))

    def fetchall(self) -> list[tuple[Any, ...]]:
        """Give the rows that are left."""
        return list(self._fetched())

    def fetchmany(self, size: int = 1) -> list[tuple[Any, ...]]:
        """Give the next rows."""
        rows = self._fetched()
        return [row for _, row in zip(range(size), rows, strict=False)]

    def fetchone(self) -> tuple[Any, ...] | None:
        """Give the next row; None behind the last one."""
        return next(self._fetched(), None)

    def key_text(self, from_end: int, place: int) -> str:
        """Give a value of a row that was fetched, as a text from which PostgreSQL makes the same value again."""
        return _key_text(self.table.column(place)[self.table.num_rows + from_end])

    def _fetched(self) -> Iterator[tuple[Any, ...]]:
        if self._rows is None:
            self.table = self.connection.guarded(self._cursor.fetch_arrow_table)
            self.close()  # all rows are here, and whoever has plain tuples of them does not close anything
            self._rows = zip(*(column.to_pylist() for column in self.table.columns), strict=True)
        return self._rows

    def close(self) -> None:
        """Close it."""
        if self._cursor is not None:
            self._cursor.close()


def is_lost(error: Any) -> bool:
    """Whether an error says that the connection can be used no more."""
    if error.sqlstate:
        return bool(error.sqlstate.startswith(("08", "57P")))
    return getattr(error.status_code, "name", None) == "IO" and not hasattr(error, "sqlite_errorname")


def clean(error: Any, kind: str) -> Any:
    """Give an error of the driver as it may be shown, of the same class."""
    text = _shown_of_sqlite(error) if kind == "sqlite" else shown(error)
    cleaned = type(error)(
        text,
        status_code=getattr(error, "status_code", None),
        vendor_code=getattr(error, "vendor_code", None),
        sqlstate=getattr(error, "sqlstate", None),
    )
    if kind == "sqlite":
        # The driver keeps the code for itself.
        cleaned.sqlite_errorname = "SQLITE_BUSY" if text.endswith("is locked") else "SQLITE_ERROR"
    return cleaned


def shown(error: Any) -> str:
    """Give what the server says in an error of the driver, without values; the driver itself quotes the query."""
    details = {_decoded(name): _decoded(value) for name, value in getattr(error, "details", None) or ()}
    if _BY_RAISE.match(details.get("PG_DIAG_CONTEXT", "")):
        return RAISED
    text = details.get("PG_DIAG_MESSAGE_PRIMARY") or str(error).partition("\n")[0]
    return mask_values(mask_credentials(_PREFIX.sub("", text)), getattr(error, "sqlstate", None))


def _shown_of_sqlite(error: Any) -> str:
    text = str(error).partition("\n")[0]
    change = _CHANGE_FAILED.match(text)
    own = change is None or _SQLITE_SAYS.fullmatch(text, change.end())
    return shown(error) if own else RAISED


def _decoded(text: str | bytes) -> str:
    return text.decode("utf-8", "replace") if isinstance(text, bytes) else text


def _literals(parameters: Any) -> Any:
    if isinstance(parameters, dict):
        return {name: postgresql_literal(value) for name, value in parameters.items()}
    return tuple(map(postgresql_literal, parameters))


def postgresql_literal(value: Any) -> str:  # noqa: PLR0911 - a return per kind
    """Write a value into a statement of PostgreSQL.

    Raises:
        ValueError: If it is a text that PostgreSQL cannot hold.
        TypeError: If it is of a type that no statement of ours has.
    """
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, int | Decimal) and Decimal(value).is_finite():
        return f"({value})" if value < 0 else str(value)
    if isinstance(value, list | tuple):
        return f"ARRAY[{', '.join(map(postgresql_literal, value))}]"
    if isinstance(value, bytes):
        return rf"'\x{value.hex()}'::bytea"
    if isinstance(value, float | Decimal):
        return f"'{value}'::{'float8' if isinstance(value, float) else 'numeric'}"
    if isinstance(value, str | date | time | UUID):
        text = str(value)
        if "\0" in text:
            msg = "a text holds the character U+0000, which PostgreSQL cannot"
            raise ValueError(msg)
        # In this form a backslash means the same whatever the server's settings are.
        return " E'" + text.replace("\\", "\\\\").replace("'", "''") + "'"
    msg = f"a {type(value).__name__} cannot be written into a statement"
    raise TypeError(msg)


_DAY = 86_400_000_000
"""Microseconds."""


def _key_text(scalar: Any) -> str:
    value = scalar.as_py()
    if isinstance(value, time) and scalar.value == _DAY:
        return "24:00"  # of which Python makes the beginning of the day
    if isinstance(value, bytes) and str(scalar.type).startswith("fixed_size_binary"):
        return str(UUID(bytes=value))  # before Arrow knew them
    if isinstance(value, bytes):
        return rf"\x{value.hex()}"
    if isinstance(value, datetime):
        return value.isoformat(" ")
    if isinstance(value, float):
        # Of 32 bits, by their own shortest text.
        return str(scalar.cast("string"))
    return str(value).lower() if isinstance(value, bool) else str(value)
