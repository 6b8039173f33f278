"""Keeping whoever works on a store's connection from ending the store's transaction."""

import contextlib
import re
import sqlite3
from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, Dialect, event

from resumable_sync._errors import ConfigurationError, StoreError

__all__ = ["Guard", "check_driver"]

_COMMENTS = r"(?:\s|--[^\n]*(?:\n|$)|#[^\n]*(?:\n|$)|/\*.*?\*/)*"
# What ends a transaction, or on MySQL commits the one that is open, written by hand. ROLLBACK TO is a savepoint's.
_ENDS_TRANSACTION = re.compile(
    _COMMENTS + r"(?:COMMIT|END|ABORT|ROLLBACK(?!(?:\s+WORK|\s+TRANSACTION)?\s+TO\b)|START\s+TRANSACTION"
    r"|BEGIN(?:\s+WORK)?\s*;?\s*$)\b",
    re.IGNORECASE | re.DOTALL,
)
# The authorizer's name for BEGIN, COMMIT and ROLLBACK, which Python's sqlite3 does not have.
_SQLITE_TRANSACTION = 22
# Of the server status that PyMySQL keeps.
_IN_TRANSACTION = 1


def check_driver(dialect: Dialect) -> None:
    """Refuse a driver whose connections nobody can watch.

    Raises:
        ConfigurationError: If it is psycopg2, whose connections are closed to Python.
    """
    if dialect.driver.startswith("psycopg2"):
        msg = f"the driver {dialect.driver!r} cannot serve a job store; give it an engine on postgresql+psycopg://"
        raise ConfigurationError(msg)


class Guard:
    """Stops whoever would end the transaction of a store's connection; only the store may.

    Through SQLAlchemy, and through the driver's `commit` and `rollback`, nothing gets past it; on SQLite nothing at
    all. On the other databases a COMMIT that is sent through a cursor of the driver is seen afterwards, unless further
    statements follow it.

    Attributes:
        active: Whether a transaction is in somebody's hands.
        tripped: Whether somebody tried to end it.
    """

    def __init__(self, connection: Connection) -> None:
        self.active = self.tripped = False
        self._used = self._opened = False
        self._driver_connection: Any = connection.connection.driver_connection
        event.listen(connection, "commit", self._ending)
        event.listen(connection, "rollback", self._ending)
        event.listen(connection, "before_cursor_execute", self._executing)
        if isinstance(self._driver_connection, sqlite3.Connection):
            self._driver_connection.set_authorizer(self._authorize)
        else:
            if hasattr(self._driver_connection, "server_status"):
                event.listen(connection, "after_cursor_execute", self._executed)
            for name in ("commit", "rollback"):
                setattr(self._driver_connection, name, self._guarded(getattr(self._driver_connection, name)))

    def begun(self) -> None:
        """A transaction was begun."""
        self.active, self.tripped = True, False
        self._used = self._opened = False

    def remove(self) -> None:
        """Leave the driver's connection as it was, for the next one that the pool gives it to."""
        self.active = False
        if isinstance(self._driver_connection, sqlite3.Connection):
            with contextlib.suppress(sqlite3.Error):  # closed, or another thread's
                self._driver_connection.set_authorizer(None)
        else:
            for name in ("commit", "rollback"):
                self._driver_connection.__dict__.pop(name, None)

    def refuse(self) -> None:
        """Say that somebody tried.

        Raises:
            ConfigurationError: Always.
        """
        self.tripped = True
        msg = (
            "the store's transaction was about to be committed or rolled back from within its block; leave that to the "
            "store, and use connection.begin_nested() for a part that may fail"
        )
        raise ConfigurationError(msg)

    def check(self, connection: Connection) -> None:
        """See that the transaction is still the one that was begun.

        Raises:
            ConfigurationError: If it was ended, or somebody tried.
            StoreError: If its connection is gone.
        """
        if self.tripped:
            self.refuse()
        if connection.closed or connection.invalidated:
            msg = (
                "the store's connection was closed or lost within its transaction, and the sink went on; let it close "
                "no connection, and let such errors out"
            )
            raise StoreError(msg)
        if not self._in_transaction(connection):
            msg = (
                "the store's transaction was committed or rolled back through the driver's own connection, beside the "
                "checkpoint; never do that in a sink"
            )
            raise ConfigurationError(msg)

    def _in_transaction(self, connection: Connection) -> bool:
        """Whether the driver's transaction is still open, where that can be told without asking the server."""
        driver_connection = self._driver_connection
        if isinstance(driver_connection, sqlite3.Connection):
            return driver_connection.in_transaction
        if connection.dialect.driver == "psycopg" and self._used:
            return int(driver_connection.info.transaction_status) != 0
        return not self._opened or bool(driver_connection.server_status & _IN_TRANSACTION)

    def _ending(self, _connection: Connection) -> None:
        if self.active:
            self.refuse()

    def _executing(self, _connection: Connection, _cursor: Any, statement: str, *_: Any) -> None:
        self._used = True
        if self.active and _ENDS_TRANSACTION.match(statement):
            self.refuse()

    def _executed(self, _connection: Connection, *_: Any) -> None:
        # On MySQL a statement that reads no table opens no transaction, and DDL, which `begin` may contain, ends one.
        self._opened = bool(self._driver_connection.server_status & _IN_TRANSACTION)

    def _authorize(self, action: int, *_: Any) -> int:
        if self.active and action == _SQLITE_TRANSACTION:
            self.tripped = True
            return sqlite3.SQLITE_DENY
        return sqlite3.SQLITE_OK

    def _guarded(self, function: Callable[[], None]) -> Callable[[], None]:
        def ending() -> None:
            if self.active:
                self.refuse()
            function()

        return ending
