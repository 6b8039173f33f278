"""Writing windows of another SQLite file, which is attached read-only, without making Python values of their rows.

A file can be detached only when the transaction that has read it is over, and nobody tells a sink when that is. So it
stays attached, without any lock, until the connection goes back to its pool, or the sink sees it again for something
else than a window: names without a schema must find nothing in it.
"""

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import attrs
from sqlalchemy import Connection, event
from sqlalchemy.exc import DBAPIError, OperationalError

from resumable_sync._anchor import row_digest
from resumable_sync._database import run_bare, wrap_error
from resumable_sync._errors import TransientError
from resumable_sync._formats import WINDOW_SCHEMA, SQLiteWindow, StaleRecordsError

__all__ = ["Attaching", "detach", "write_window"]

_ATTACHED = "resumable_sync attached"
# Nobody has such a folder: it is a database in memory, or an error where SQLite takes a URI for a path.
_PROBE = "file:/resumable_sync/probe?mode=memory"

_STALE = "the rows of the source changed between looking for them and writing them"


@attrs.frozen
class Attaching:
    """What can be attached to a connection.

    Attributes:
        files: The files it has.
    """

    files: Sequence[str]

    @classmethod
    def of(cls, connection: Connection) -> Self | None:
        """Look at a connection, inside of its transaction; None if no file can be attached to it as it must be."""
        driver_connection: Any = connection.connection.driver_connection
        if not isinstance(driver_connection, sqlite3.Connection):
            return None
        # SQLite attaches no file of another encoding.
        (encoding,) = driver_connection.execute("PRAGMA encoding").fetchone()
        databases = driver_connection.execute("PRAGMA database_list").fetchall()
        files = {name: file for _, name, file in databases}
        # What is temporary may hide the target.
        hidden = "temp" in files and driver_connection.execute("SELECT 1 FROM temp.sqlite_master LIMIT 1").fetchone()
        if encoding != "UTF-8" or hidden or not files["main"]:
            return None
        try:
            # Not in a transaction before SQLite 3.21, nor more than a limit, nor by a URI everywhere.
            driver_connection.execute(f"ATTACH ? AS {WINDOW_SCHEMA}", (_PROBE,))
            driver_connection.execute(f"DETACH {WINDOW_SCHEMA}")
        except sqlite3.Error:
            return None
        return cls([file for file in files.values() if file])

    def takes(self, file: str) -> bool:
        """Whether a file can be attached: one that is there, and none that the connection has already."""
        # By another connection of the same transaction it would wait for itself.
        return Path(file).exists() and not any(Path(own).exists() and Path(own).samefile(file) for own in self.files)


def write_window(
    connection: Connection, window: SQLiteWindow, columns: Sequence[str], into: str, conflict: str, *, counts: bool
) -> None:
    """Insert the rows of a window, if they are what they were when the window was made.

    Args:
        connection: In a transaction, in which all statements see the same state of the window's file.
        window: The rows.
        columns: Their columns.
        into: `INSERT INTO table (columns)`.
        conflict: What follows the rows, such as `ON CONFLICT ...`; may be empty.
        counts: Whether the number of rows inserted is that of the rows given; else they are counted by themselves.

    Raises:
        StaleRecordsError: If they are not.
        DBAPIError: If the database refuses them, or a lock was waited for too long.
    """
    try:
        _write(connection, window, columns, into, conflict, counts=counts)
    except DBAPIError as error:
        # A writer of the source was killed: who may write to the file undoes what it left, as the next reader does.
        if getattr(error.orig, "sqlite_errorname", "").startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN")):
            raise StaleRecordsError(_STALE) from error
        raise


def _write(
    connection: Connection, window: SQLiteWindow, columns: Sequence[str], into: str, conflict: str, *, counts: bool
) -> None:
    _attach(connection, window.uri)
    if window.digest is not None:
        rows = run_bare(connection, window.last, window.last_parameters).fetchall()
        by_name = sorted(range(len(columns)), key=columns.__getitem__)
        if [row_digest(row, by_name) for row in rows] != [window.digest]:
            raise StaleRecordsError(_STALE)
    inserted = run_bare(connection, f"{into} {window.select} {conflict}", window.parameters)
    if counts and inserted is not None:
        count = inserted.rowcount
    else:
        ((count,),) = run_bare(connection, window.counted, window.parameters).fetchall()
    if count != window.rows:
        raise StaleRecordsError(_STALE)


def _attach(connection: Connection, uri: str) -> None:
    if connection.info.get(_ATTACHED) == uri:
        return
    detach(connection)
    pool = connection.engine.pool
    # `event.contains` goes by the address of the pool, and may mean one that was there before.
    if not any(listener is _returned for listener in pool.dispatch.checkin):
        event.listen(pool, "checkin", _returned)
    _run(connection, f"ATTACH ? AS {WINDOW_SCHEMA}", uri)
    connection.info[_ATTACHED] = uri


def detach(connection: Connection) -> None:
    """Detach what is attached to a connection, in a transaction that has read nothing of it.

    Raises:
        TransientError: If SQLite still holds it from the transaction before, which another try gets over.
    """
    if connection.info.get(_ATTACHED) is not None:
        try:
            _run(connection, f"DETACH {WINDOW_SCHEMA}")
        except OperationalError as error:
            msg = "the source is still attached to the target's connection"
            raise TransientError(msg) from error
        del connection.info[_ATTACHED]


def _run(connection: Connection, statement: str, *parameters: str) -> None:
    # Not by way of `run_bare`: whoever listens to the target's statements is told no path of the source.
    driver_connection: Any = connection.connection.driver_connection
    try:
        driver_connection.execute(statement, parameters)
    except sqlite3.Error as error:
        wrapped = wrap_error(error, connection)
        raise wrapped from error


def _returned(driver_connection: Any, record: Any) -> None:
    if record.info.pop(_ATTACHED, None) is not None and driver_connection is not None:
        try:
            driver_connection.execute(f"DETACH {WINDOW_SCHEMA}")
        except sqlite3.Error:  # closed, or still read from: the next one is a new one
            record.invalidate()
