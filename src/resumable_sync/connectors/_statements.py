"""SQL statements compiled once and run with little CPU: plain tuples from the driver, errors without record values."""

import contextlib
import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import attrs
from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine import Dialect
from sqlalchemy.sql import ClauseElement

from resumable_sync._database import run_bare, scrub
from resumable_sync._driver_rows import DriverRows
from resumable_sync._errors import ConfigurationError

__all__ = [
    "Fetch",
    "Fetched",
    "Statement",
    "compile_statement",
    "connect",
    "fetch_driven",
    "fetch_rows",
    "is_mysql",
    "plans_rows",
    "scrubbed",
    "set_utc",
    "stream",
]

Row = tuple[Any, ...]


def is_mysql(dialect: Dialect) -> bool:
    """Whether a dialect is that of MySQL or MariaDB."""
    return dialect.name in {"mysql", "mariadb"}


def plans_rows(dialect: Dialect) -> bool:
    """Whether a database plans `(a, b) > (x, y)` well: MySQL reads the whole index, and others may not know it."""
    return dialect.name in {"postgresql", "sqlite"}


Fetch = Callable[..., list[Row]]
"""Fetches rows from a driver's cursor: all, or at most as many as a second argument says."""


def fetch_rows(cursor: Any, most: int | None = None) -> list[Row]:
    """Fetch rows as any driver gives them; a `Fetch`."""
    rows: Any = cursor.fetchall() if most is None else cursor.fetchmany(most)
    # Of PyMySQL it is a tuple. To copy a list of many rows takes a look at every one.
    return rows if type(rows) is list else list(rows)


def fetch_driven(cursor: Any, most: int | None = None) -> list[Row]:
    """Fetch rows of SQLite as `DriverRows`, unless a listener has changed how its driver makes them; a `Fetch`."""
    if cursor.row_factory is None and cursor.connection.text_factory is str:
        return DriverRows(cursor if most is None else islice(cursor, most))
    return fetch_rows(cursor, most)


@attrs.frozen(kw_only=True)
class Fetched:
    """Rows, and the driver's cursor that fetched them, which knows more about the last ones than the rows tell."""

    rows: list[Row]
    driver_cursor: Any


@attrs.frozen(kw_only=True)
class Statement:
    """A statement in the driver's own form.

    Attributes:
        text: The statement.
        names: Names of its parameters in order, if the driver takes them by position; else None.
        fixed: Values of the parameters that never change.
    """

    text: str
    names: tuple[str, ...] | None
    fixed: Mapping[str, Any]

    def run(
        self, connection: Connection, values: Mapping[str, Any] | None = None, fetch: Fetch = fetch_rows
    ) -> Fetched:
        """Run the statement and fetch all its rows."""
        try:  # not `scrubbed`, whose calls count: this runs for every page
            # Left open: a closed cursor of psycopg forgets what it fetched. All rows are here, so it holds nothing.
            driver_cursor: Any = run_bare(connection, self.text, self.parameters(values))
            rows = fetch(driver_cursor)
        except Exception as error:
            _without_values(scrub(error))
            raise
        return Fetched(rows=rows, driver_cursor=driver_cursor)

    def parameters(self, values: Mapping[str, Any] | None = None) -> Any:
        """Give the parameters in the driver's form."""
        merged = {**self.fixed, **(values or {})}
        return merged if self.names is None else tuple(map(merged.__getitem__, self.names))


def compile_statement(clause: ClauseElement, dialect: Dialect) -> Statement:
    """Compile a statement for a driver; values it holds already are converted here, once."""
    compiled: Any = clause.compile(dialect=dialect)
    state = compiled.construct_expanded_state()
    fixed = dict(state.parameters)
    for name, processor in state.processors.items():
        if fixed.get(name) is not None:
            fixed[name] = processor(fixed[name])
    return Statement(text=state.statement, names=state.positiontup and tuple(state.positiontup), fixed=fixed)


@contextlib.contextmanager
def connect(engine: Engine, *, autocommit: bool = True) -> Iterator[Connection]:
    """Open a connection to read from, closed at the end of the block.

    With `autocommit` every statement is a transaction of its own: no snapshot stays open while a sink is at work, and
    a page costs one round trip instead of three.

    Yields:
        The connection.

    Raises:
        ConfigurationError: If the database is a SQLite file that does not exist.
    """
    _check_file(engine)
    with scrubbed():
        connection = engine.connect()
    with connection:
        if autocommit:
            with scrubbed():
                connection = connection.execution_options(isolation_level="AUTOCOMMIT")
        yield connection


def _check_file(engine: Engine) -> None:
    # SQLite would make an empty file, and the source would seem to have no such table.
    name = engine.url.database
    if engine.dialect.name != "sqlite" or not name or name == ":memory:" or engine.url.query.get("mode") == "memory":
        return
    path = name.removeprefix("file:").partition("?")[0]
    if path and path != ":memory:" and "mode=memory" not in name and not Path(path).exists():
        msg = f"there is no SQLite file {path!r}; check the path (in a URL three slashes come before a relative one)"
        raise ConfigurationError(msg)


def set_utc(engine: Engine) -> None:
    """Let the connections of an engine of our own speak UTC.

    MySQL gives a TIMESTAMP as local time, in which an hour comes twice every autumn.
    """
    if is_mysql(engine.dialect):

        @event.listens_for(engine, "connect")
        def configure(connection: Any, _record: Any) -> None:
            with contextlib.closing(connection.cursor()) as cursor:
                cursor.execute("SET SESSION time_zone = '+00:00'")


def stream(
    connection: Connection, statement: Statement, values: Mapping[str, Any], size: int, fetch: Fetch
) -> Iterator[Fetched]:
    """Run a statement and fetch its rows piece by piece from a cursor that the server keeps.

    Args:
        connection: Must not be in autocommit mode.
        statement: What to run.
        values: Values of its parameters.
        size: Rows in a piece.
        fetch: Fetches the rows of a piece.

    Yields:
        1 to `size` rows.
    """
    parameters = statement.parameters(values)
    driver: Any = connection.connection.driver_connection
    cursor = _server_cursor(connection, driver)
    exhausted = False
    try:
        with scrubbed():
            cursor.execute(statement.text, parameters)
        while True:
            with scrubbed():
                rows = fetch(cursor, size)
            if not rows:
                exhausted = True
                return
            yield Fetched(rows=rows, driver_cursor=cursor)
            del rows  # the next ones shall not find these still in memory
    finally:
        if not exhausted and is_mysql(connection.dialect):
            _abandon(connection, driver, cursor)
        else:
            with contextlib.suppress(Exception):  # of a connection that is broken
                cursor.close()


def _abandon(connection: Connection, driver: Any, cursor: Any) -> None:
    """Give up a result of PyMySQL that was not read to its end, without reading the rest of it.

    Closing the cursor would do that, and so would collecting it; when the connection is gone the server stops.
    """
    with contextlib.suppress(Exception):
        driver.close()
    if cursor._result is not None:  # noqa: SLF001 - no public way to say it
        cursor._result.unbuffered_active = False  # noqa: SLF001
    cursor.connection = None
    connection.invalidate()


def _server_cursor(connection: Connection, driver: Any) -> Any:
    if connection.dialect.name == "postgresql":
        return driver.cursor(name="resumable_sync_stream")
    if is_mysql(connection.dialect):
        from pymysql.cursors import SSCursor  # noqa: PLC0415 - an optional package

        return driver.cursor(SSCursor)
    return driver.cursor()


@contextlib.contextmanager
def scrubbed() -> Iterator[None]:
    """Take record values out of the errors of a block.

    Yields:
        None.
    """
    try:
        yield
    except Exception as error:
        _without_values(scrub(error))
        raise


def _without_values(error: BaseException) -> None:
    """Cut the value that a driver quotes when it cannot make a Python value of it."""
    origin = getattr(error, "orig", None) or error
    client_side = isinstance(origin, sqlite3.Error) or (
        type(origin).__module__.startswith("psycopg") and getattr(origin, "sqlstate", None) is None
    )
    if client_side and origin.args and isinstance(origin.args[0], str):
        text = re.sub(r"(?s)(with text |: )'.*'", r"\1'***'", origin.args[0])
        if text != origin.args[0]:
            origin.args = (text, *origin.args[1:])
