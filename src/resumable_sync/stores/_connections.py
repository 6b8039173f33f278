"""The connections of a `SQLJobStore`: short ones from the pool, and one that a working thread keeps."""

import contextlib
import os
import re
import threading
import weakref
from typing import Any

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from typing_extensions import override

from resumable_sync._database import begin_immediate, begin_write, is_mysql, scrub, wrap_error
from resumable_sync._errors import StateCorruptError
from resumable_sync.stores import _foreign
from resumable_sync.stores._durability import relax, restore
from resumable_sync.stores._guard import Guard, check_driver

__all__ = ["Connections", "Translated", "Working"]

MIN_IDLE_SECONDS = 10
"""A transaction may be idle for at least this long, however short the ttl of the lease."""
MAX_IDLE_SECONDS = 86_400
"""... and never for longer than this."""

# What a process that was forked inherited: closing it would end connections that belong to its parent.
_inherited: list[Any] = []


class Translated(_foreign.Translated):
    """Turns every foreign error of its block into a `StoreError`; what it does, see the base."""

    __slots__ = ()

    foreign = (SQLAlchemyError, OverflowError, UnicodeError, TypeError)
    remedy = "see to the store's database, then run again: nothing is lost"

    @override
    def corrupt(self, error: Exception) -> StateCorruptError | None:
        undecodable = re.search(r"Could not decode to UTF-8 column '(\w+)'", str(error))
        if undecodable and isinstance(error, OperationalError):
            return StateCorruptError(self.job_id, undecodable[1], "is not UTF-8")
        return None

    @override
    def clean(self, error: Exception) -> None:
        scrub(error)


class Working:
    """A connection that a thread keeps from batch to batch, since getting one costs more than a checkpoint.

    Args:
        engine: Where it comes from.
        idle_seconds: After how long in an idle transaction the server ends it, so that a frozen process does not block
            its successor for ever.
        relaxed: Whether commits on SQLite need not wait for the disk.
    """

    def __init__(self, engine: Engine, idle_seconds: int, *, relaxed: bool = False) -> None:
        self.idle_seconds = idle_seconds
        self._engine = engine
        self._untold = False
        self._listened_to = _is_listened_to(engine)
        self.connection = _connect(engine)
        self._driver_connection: Any = self.connection.connection.driver_connection
        self._old_synchronous: int | None = None
        try:
            self._old_limit = _limit_idle(self.connection, idle_seconds)
            if relaxed and engine.dialect.name == "sqlite":
                self._old_synchronous = relax(self.connection)
            self.guard = Guard(self.connection)
        except BaseException:
            self.connection.close()
            raise
        self._pid = os.getpid()

    def begin(self, *, alone: bool = False) -> None:
        """Begin a write transaction and guard it.

        Args:
            alone: Whether only the store works in it. SQLAlchemy is then not told of it, unless somebody listens to
                its transactions, since that takes as long as a checkpoint on SQLite.
        """
        self._untold = alone and not self._listened_to and not self.connection.in_transaction()
        if not self._untold:
            self.connection.begin()
        if self._engine.dialect.name == "sqlite":  # the other drivers begin by themselves
            begin_immediate(self.connection, self._driver_connection)
        self.guard.begun()

    def commit(self) -> None:
        """Commit.

        Raises:
            ConfigurationError: If the transaction was ended from within, or somebody tried.
        """
        if not self._untold:
            self.guard.check(self.connection)
            self.guard.active = False
            self.connection.commit()
            return
        self.guard.active = False
        try:
            self._driver_connection.commit()
        except self._engine.dialect.loaded_dbapi.Error as error:
            wrapped = wrap_error(error, self.connection, self._driver_connection)
            raise wrapped from error

    def rollback(self) -> None:
        """Roll back, whatever state the transaction is in; a connection that cannot is thrown away."""
        self.guard.active = False
        if self.guard.tripped:
            # After a refused commit SQLAlchemy no longer knows of the transaction; the driver does.
            self.discard()
            return
        try:
            if self._untold:
                self._driver_connection.rollback()
            self.connection.rollback()
        except Exception:  # noqa: BLE001 - the error that led here is the one to be told
            self.discard()

    def discard(self) -> None:
        """Close the connection for good, with whatever is open on it."""
        self.guard.remove()
        if self._engine.dialect.name == "sqlite":
            # Else the file stays locked, even closed, for as long as the traceback of an error holds a cursor.
            with contextlib.suppress(Exception):
                self._driver_connection.rollback()
        with contextlib.suppress(Exception):
            self.connection.invalidate()
        with contextlib.suppress(Exception):
            self.connection.close()

    def give_back(self) -> None:
        """Return the connection to the pool as it was."""
        self.guard.remove()
        if self.connection.closed:
            return
        try:
            if self._old_limit is not None and not self.connection.invalidated:
                _set_idle_limit(self.connection, self._old_limit)
                self.connection.commit()
            if self._old_synchronous is not None and not self.connection.invalidated:
                restore(self.connection, self._old_synchronous)
            self.connection.close()
        except Exception:  # noqa: BLE001 - a broken connection is no reason to fail
            self.discard()

    def __del__(self) -> None:
        # The thread that kept it ended.
        connection: Connection | None = getattr(self, "connection", None)
        if connection is None or connection.closed:
            return
        if getattr(self, "_pid", None) != os.getpid():
            _inherited.append(connection)
        elif self.guard.active:
            self.discard()
        else:
            self.give_back()


class _Kept(threading.local):
    """What each thread keeps."""

    working: Working | None = None


class Connections:
    """Hands out the connections of one store.

    Args:
        engine: Where they come from.
        owned: Whether the engine was made by the store, and is closed with it.
        relaxed: Whether what a working thread commits on SQLite need not wait for the disk.
    """

    def __init__(self, engine: Engine, *, owned: bool, relaxed: bool = False) -> None:
        check_driver(engine.dialect)
        self.engine = engine
        self.idle_seconds = MIN_IDLE_SECONDS
        self._owned = owned
        self._relaxed = relaxed
        self._pid = os.getpid()
        self._kept = _Kept()
        self._all: weakref.WeakSet[Working] = weakref.WeakSet()

    def read(self) -> Connection:
        """Give a connection for reading; close it."""
        self._after_fork()
        connection = self.engine.connect()
        if not self._owned or connection.dialect.name != "postgresql":
            return connection  # the caller's listeners may make a transaction what it has to be
        # Each statement is a transaction of its own: to begin and end one would take two round trips more.
        return _at(connection, "AUTOCOMMIT")

    def plain(self) -> Connection:
        """Give a connection, in no transaction, whose user begins and commits itself; close it."""
        self._after_fork()
        return _connect(self.engine)

    def write(self) -> "_Write":
        """Give a short write transaction: a block that gets the connection and commits at its end."""
        self._after_fork()
        return _Write(self.engine)

    def outlive(self, ttl: float) -> None:
        """Set how long a transaction may be idle, by the ttl of the lease it works under.

        The time that a sink works without touching its connection counts as idle, so this is five times the ttl; a
        sink that is slower still needs a greater lease_ttl.
        """
        self.idle_seconds = min(max(MIN_IDLE_SECONDS, int(ttl * 5)), MAX_IDLE_SECONDS)

    def working(self) -> Working:
        """Give the connection that this thread keeps."""
        if self._pid != os.getpid():  # asked here too, since a call counts: this runs for every batch
            self._after_fork()
        working = self._kept.working
        if working is not None and (working.connection.closed or working.idle_seconds != self.idle_seconds):
            self.give_back()
            working = None
        if working is None:
            working = self._kept.working = Working(self.engine, self.idle_seconds, relaxed=self._relaxed)
            self._all.add(working)
        return working

    def give_back(self) -> None:
        """Return the connection that this thread keeps to the pool, unless a transaction is open on it."""
        working = self._kept.working
        if working is not None and not working.guard.active:
            self._kept.working = None
            working.give_back()

    def close(self) -> None:
        """Close what is open and idle; a transaction that another thread is in ends with its block."""
        if self._pid != os.getpid():
            return
        for working in list(self._all):
            if not working.guard.active:
                working.give_back()
        if self._owned:
            self.engine.dispose()

    def _after_fork(self) -> None:
        if self._pid == os.getpid():
            return
        _inherited.extend([self._kept.working, self.engine.pool, *self._all])
        self._pid, self._kept, self._all = os.getpid(), _Kept(), weakref.WeakSet()
        self.engine.dispose(close=False)


class _Write:
    __slots__ = ("_connection", "_engine")

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def __enter__(self) -> Connection:
        self._connection = _connect(self._engine)
        try:
            self._connection.begin()
            begin_write(self._connection)
            _limit_idle_here(self._connection)
        except BaseException:
            self._close()
            raise
        return self._connection

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._connection.commit()
        finally:
            self._close()

    def _close(self) -> None:
        connection = self._connection
        try:
            if is_mysql(connection.dialect) and not connection.invalidated:
                connection.rollback()
                connection.exec_driver_sql(f"SET SESSION {_limit_name(connection)} = {_BEFORE}")
        except Exception:  # noqa: BLE001 - it is broken; what led here is the one to be told
            connection.invalidate()
        finally:
            connection.close()


def _limit_idle_here(connection: Connection) -> None:
    """Have the server end a short transaction whose process is frozen amid its statements.

    It holds the job's row, which a successor waits for: a heartbeat that froze would keep it out for ever.
    """
    name = _limit_name(connection)
    if connection.dialect.name == "postgresql":
        limit = _set_config(name, f"{MIN_IDLE_SECONDS}s", local=True)
        connection.exec_driver_sql(f"{limit} WHERE current_setting('{name}') = '0'")
    elif name is not None:
        # No setting of MariaDB ends with the transaction: it is put back afterwards.
        old = f"@@SESSION.{name}"
        new = f"IF({old} = 0, {MIN_IDLE_SECONDS}, LEAST({old}, {MIN_IDLE_SECONDS}))"
        connection.exec_driver_sql(f"SET {_BEFORE} = {old}, SESSION {name} = {new}")


def _is_listened_to(engine: Any) -> bool:
    """Whether somebody listens to the transactions of an engine, and may do something at their beginning or end."""
    events = engine.dispatch
    return bool(events.begin or events.commit or events.rollback)


def _connect(engine: Engine) -> Connection:
    connection = engine.connect()
    # Ownership is decided by conditional UPDATEs on what is committed now, not on a snapshot from the transaction's
    # start; and an engine in autocommit mode must not commit rows before their checkpoint.
    level = "READ COMMITTED"
    if connection.dialect.name == "sqlite":
        driver_connection: Any = connection.connection.driver_connection
        if driver_connection.isolation_level is not None:
            return connection
        level = "SERIALIZABLE"
    return _at(connection, level)


def _at(connection: Connection, level: Any) -> Connection:
    try:
        return connection.execution_options(isolation_level=level)
    except BaseException:
        connection.close()
        raise


_BEFORE = "@resumable_sync_limit_before"
_LIMITS = {
    "postgresql": "idle_in_transaction_session_timeout",
    "mariadb": "idle_transaction_timeout",
    # MySQL has no limit for transactions alone.
    "mysql": "wait_timeout",
}


def _limit_idle(connection: Connection, seconds: int) -> str | None:
    """Have the server end this session's transactions when they are idle too long, unless a limit is set already.

    Returns:
        The old limit; None if nothing was changed.
    """
    name = _limit_name(connection)
    if name is None:
        return None
    if connection.dialect.name == "postgresql":
        old, limit = "0", _set_config(name, f"{seconds}s")
        changed = connection.exec_driver_sql(f"{limit} WHERE current_setting('{name}') = '0'").first() is not None
    else:
        old = str(connection.exec_driver_sql(f"SELECT @@SESSION.{name}").scalar_one())
        changed = old == "0" or (name == "wait_timeout" and int(old) > seconds)
        if changed:
            _set_idle_limit(connection, str(seconds))
    connection.commit()
    return old if changed else None


def _set_idle_limit(connection: Connection, limit: str) -> None:
    name = _limit_name(connection)
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(_set_config(name, limit))
    else:
        connection.exec_driver_sql(f"SET SESSION {name}={int(limit)}")


def _set_config(name: str | None, limit: str, *, local: bool = False) -> str:
    return f"SELECT set_config('{name}', '{limit}', {str(local).lower()})"


def _limit_name(connection: Connection) -> str | None:
    if is_mysql(connection.dialect):
        return _LIMITS["mariadb" if getattr(connection.dialect, "is_mariadb", False) else "mysql"]
    return _LIMITS.get(connection.dialect.name)
