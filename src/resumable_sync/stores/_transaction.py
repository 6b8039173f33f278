"""Transactions of a `SQLJobStore`: its own, and those it takes part in."""

from collections.abc import Callable
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Self

from sqlalchemy import Connection

from resumable_sync._errors import ConfigurationError
from resumable_sync._model import Job, Lease
from resumable_sync.stores._connections import Connections, Translated, Working
from resumable_sync.stores._durability import Saved

__all__ = ["EnlistedTransaction", "OwnTransaction", "Save", "refuse_inside_transaction", "save_alone"]

Save = Callable[[Connection, Job, Lease], Lease]

_open_databases: ContextVar[tuple[str, ...]] = ContextVar("resumable_sync_open_databases", default=())


def refuse_inside_transaction(identity: str, job_id: str) -> None:
    """Refuse to start a sync from inside a transaction of the same database.

    On SQLite it would wait for a lock that its own caller holds; elsewhere its batches would commit while those of the
    caller's transaction may be rolled back.

    Raises:
        ConfigurationError: If this thread is inside such a transaction.
    """
    if identity in _open_databases.get():
        msg = (
            f"job {job_id!r} cannot be started from inside a transaction of its own store's database (a sink started a "
            "sync); start it before or after, or give it a store in another database"
        )
        raise ConfigurationError(msg)


def save_alone(connections: Connections, save: Save, saved: Saved | None, job: Job, lease: Lease) -> Lease:
    """Save a job in a transaction that nothing else is done in; raises what `OwnTransaction` does."""
    with Translated("saving", job.id):
        working = _idle(connections)
        try:
            working.begin(alone=True)
            extended = save(working.connection, job, lease)
            if saved is not None:
                saved.in_doubt(lease, job)
            working.commit()
        except BaseException:
            working.rollback()
            # Whatever went wrong, the next try gets a connection that is known to be good.
            connections.give_back()
            raise
    if saved is not None:
        saved.committed(lease, job)
    return extended


def _idle(connections: Connections) -> Working:
    """Give the connection that this thread keeps.

    Raises:
        ConfigurationError: If a transaction is open on it.
    """
    working = connections.working()
    if working.guard.active:
        msg = "this thread is inside a transaction of this store already; save with that one"
        raise ConfigurationError(msg)
    return working


class OwnTransaction:
    """A transaction of the store; the block that it is the context of decides whether it commits.

    A class and not a generator function: an interrupt inside `contextlib.contextmanager` can leave it open.
    """

    def __init__(self, connections: Connections, identity: str, save: Save, saved: Saved | None) -> None:
        self._connections = connections
        self._identity = identity
        self._save = save
        self._saved = saved
        self._last: tuple[Lease, Job] | None = None
        self._working: Working | None = None
        self._outer: tuple[str, ...] = ()

    @property
    def connection(self) -> Connection:
        """The connection of the open transaction.

        Raises:
            ConfigurationError: If the block was not entered, or left.
        """
        return self._open.connection

    def save(self, job: Job, lease: Lease) -> Lease:
        """Store the job when the transaction commits.

        Raises:
            ConfigurationError: If the transaction was ended from within.
            LeaseLostError: If the lease's token is not the newest.
        """
        working = self._open
        working.guard.check(working.connection)
        with Translated("saving", job.id):
            extended = self._save(working.connection, job, lease)
        self._last = lease, job
        return extended

    @property
    def _open(self) -> Working:
        if self._working is None:
            msg = "the store's transaction is not open; use it inside its with block"
            raise ConfigurationError(msg)
        return self._working

    def __enter__(self) -> Self:
        outer = _open_databases.get()
        with Translated("opening a transaction of the job store"):
            working = _idle(self._connections)
            self._outer, self._working = outer, working
            try:
                working.begin()
            except BaseException:
                self._working = None
                working.discard()
                raise
        _open_databases.set((*outer, self._identity))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        working = self._working
        if working is None:
            return  # a second call, after one that an interrupt had cut short
        committed = False
        try:
            if kind is None:
                if self._saved is not None and self._last is not None:
                    self._saved.in_doubt(*self._last)
                with Translated("committing to the job store"):
                    working.commit()
                committed = True
                if self._saved is not None and self._last is not None:
                    self._saved.committed(*self._last)
        finally:
            if not committed:
                working.rollback()
                # Whatever went wrong, the next try gets a connection that is known to be good.
                self._connections.give_back()
            self._working = None
            _open_databases.set(self._outer)
        if working.guard.tripped and isinstance(error, Exception) and not isinstance(error, ConfigurationError):
            working.guard.refuse()  # the driver's words for it say nothing


class EnlistedTransaction:
    """A transaction that the caller owns, and commits or rolls back.

    Args:
        connection: The caller's.
        save: Saves on it.
        saved: Is told that it may be committed.
    """

    def __init__(self, connection: Connection, save: Save, saved: Saved | None) -> None:
        self._connection = connection
        self._save = save
        self._saved = saved

    @property
    def connection(self) -> Connection:
        """The caller's connection."""
        return self._connection

    def save(self, job: Job, lease: Lease) -> Lease:
        """Store the job when the caller commits.

        Raises:
            ConfigurationError: If the connection commits every statement by itself.
            LeaseLostError: If the lease's token is not the newest; the caller must roll back.
        """
        with Translated("saving", job.id):
            if _commits_by_itself(self._connection):
                msg = (
                    f"job {job.id!r} cannot be saved on a connection in autocommit mode; open a transaction with "
                    "engine.begin() on an engine without isolation_level='AUTOCOMMIT'"
                )
                raise ConfigurationError(msg)
            if not self._connection.in_transaction():
                self._connection.begin()
            extended = self._save(self._connection, job, lease)
        if self._saved is not None:
            self._saved.in_doubt(lease, job)
        return extended


def _commits_by_itself(connection: Connection) -> bool:
    driver_connection: Any = connection.connection.driver_connection
    if connection.dialect.name == "sqlite":
        return driver_connection.isolation_level is None and not driver_connection.in_transaction
    autocommit = getattr(driver_connection, "autocommit", False)
    if callable(autocommit):  # PyMySQL's is a setter
        return bool(driver_connection.get_autocommit())
    return bool(autocommit)
