"""A connection of the sink's own, kept from batch to batch."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, Engine

from resumable_sync._arrow.adbc import AdbcDatabase
from resumable_sync._database import LOCK_TIMEOUT, begin_write, is_mysql, make_engine

__all__ = ["Link"]

T = TypeVar("T")

IDLE_TIMEOUT = LOCK_TIMEOUT
"""Seconds after which the server ends a transaction that waits for its client: a frozen process must not hold the lock
of its checkpoint against its successor."""


class Link:
    """An engine and one connection of it, which is replaced when it breaks.

    Args:
        database: The target's. An engine is used as it is, and not disposed of.
    """

    def __init__(self, database: str | URL | Engine | AdbcDatabase) -> None:
        self._adbc = database if isinstance(database, AdbcDatabase) else None
        self._engine = None if isinstance(database, AdbcDatabase) else make_engine(database)
        self._owned = not isinstance(database, Engine)
        self._connection: Connection | None = None

    @property
    def engine(self) -> Engine:
        """The engine; that of ADBC is made when it is first asked for."""
        if self._engine is not None:
            return self._engine
        assert self._adbc is not None  # noqa: S101 - for the type checker
        return self._adbc.engine

    def transact(self, work: Callable[[Connection], T]) -> T:
        """Do work in a write transaction, which commits when it returns and rolls back when it raises."""
        connection = self._connect()
        try:
            begin_write(connection)
            result = work(connection)
            connection.commit()
        except BaseException as error:
            self._abandon(connection, error)
            raise
        return result

    def _connect(self) -> Connection:
        if self._connection is not None:
            return self._connection
        connection = self.engine.connect()
        try:
            if connection.dialect.name != "sqlite":
                # The checkpoint is what was committed last, not what stood there when the transaction began.
                connection = connection.execution_options(isolation_level="READ COMMITTED")
                self._limit_idle(connection)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return connection

    def _limit_idle(self, connection: Connection) -> None:
        dialect: Any = connection.dialect
        if not self._owned:
            return
        if dialect.name == "postgresql":
            name = "idle_in_transaction_session_timeout"
            statement = f"SELECT set_config('{name}', '{IDLE_TIMEOUT}s', false) WHERE current_setting('{name}') = '0'"
        elif is_mysql(dialect) and dialect.is_mariadb:
            name = "@@SESSION.idle_transaction_timeout"
            statement = f"SET SESSION idle_transaction_timeout = IF({name} = 0, {IDLE_TIMEOUT}, {name})"
        else:
            return
        connection.exec_driver_sql(statement)
        connection.commit()

    def _abandon(self, connection: Connection, error: BaseException) -> None:
        # Whatever rolling back says, the error that led here is the one to tell.
        with suppress(Exception):
            if not isinstance(error, Exception):
                # Interrupted in the middle of an answer: what is read next would belong to an earlier statement.
                connection.invalidate(error)
            connection.rollback()
        # The pool finds out whether it can be used again.
        self.release()

    def release(self) -> None:
        """Give the connection back; the next transaction takes one anew."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(Exception):
                connection.close()

    def close(self) -> None:
        """Give the connection back, and close an engine of our own."""
        self.release()
        if self._adbc is not None:
            self._adbc.close()
        elif self._owned:
            self.engine.dispose()
