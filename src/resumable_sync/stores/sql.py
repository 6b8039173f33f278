"""Jobs in a SQL database: SQLite, PostgreSQL, MariaDB and MySQL."""

import os
import re
import weakref
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from types import TracebackType
from typing import Any, Self

from sqlalchemy import URL, Connection, Engine
from typing_extensions import override

from resumable_sync._database import (
    URLOrParts,
    database_identity,
    make_engine,
    parse_url,
    shown_url,
    sqlite_path,
)
from resumable_sync._errors import (
    ConfigurationError,
    JobHeldError,
    LeaseLostError,
    StateCorruptError,
    StoreError,
)
from resumable_sync._history import History, HistoryStore
from resumable_sync._model import AttemptRecord, DeadLetter, Job, Lease
from resumable_sync._protocols import DeadLetterStore, LineageStore, StoreTransaction
from resumable_sync._validate import check_job_id
from resumable_sync.stores import _schema
from resumable_sync.stores._connections import Connections, Translated
from resumable_sync.stores._durability import Durability, Saved, check_durability
from resumable_sync.stores._histories import Histories
from resumable_sync.stores._identity import same_database
from resumable_sync.stores._leases import LATER_ATTEMPT, check_owner, check_ttl
from resumable_sync.stores._lineage import Lineage
from resumable_sync.stores._prepared import Prepared
from resumable_sync.stores._rows import (
    check_room,
    is_token,
    job_from_row,
    lease_from_row,
    letter_from_row,
    row_of_job,
    row_of_letter,
    time_of,
)
from resumable_sync.stores._sql_text import SQLText
from resumable_sync.stores._statements import Statements
from resumable_sync.stores._transaction import (
    EnlistedTransaction,
    OwnTransaction,
    refuse_inside_transaction,
    save_alone,
)
from resumable_sync.stores._upkeep import Upkeep

__all__ = ["SQLJobStore", "from_data"]

ENVIRONMENT_VARIABLE = "RESUMABLE_SYNC_STORE"
DEFAULT_URL = "sqlite:///resumable_sync.db"
DEFAULT_PREFIX = "resumable_sync_"

MAX_RACES = 5
"""How often the job may be deleted between its creation and its grant before `acquire` gives up."""


class SQLJobStore(DeadLetterStore, LineageStore, HistoryStore):
    """Keep jobs in a database, and let sinks write in the transaction that moves the checkpoint.

    The store makes its tables (`resumable_sync_jobs`, `..._dead_letters`, `..._attempts`, `..._history`, `..._meta`)
    when the first job is acquired, and touches no others; it brings older ones up to date when a job is acquired or
    deleted. A checkpoint is one UPDATE and one COMMIT (on MariaDB and MySQL also a SELECT of one row):

        UPDATE resumable_sync_jobs SET status = ?, cursor = ?, ..., lease_expires_at = <clock> + lease_ttl
        WHERE id = ? AND fencing_token = ? AND lease_ttl IS NOT NULL RETURNING lease_expires_at, stop_requested

    Leases run by the database's clock. A lease that was released is no longer good for `save` and `renew`.

    Once a second at most the history of the run is written beside, between two batches: at most 25 KB, in one row.

    A thread keeps one connection from `acquire` to `release`, or to the first error. So that a frozen process does not
    block its successor for ever, the server is told to end a transaction that is idle for five times the ttl of the
    lease (at least 10 s), and on PostgreSQL, once the job is saved in it, for one ttl. The time that a sink computes
    without using its connection counts: raise `lease_ttl` for one that is slower. SQLite has no such limit.

    Args:
        url_or_engine: A SQLAlchemy URL, or an engine. By default the URL in the environment variable
            `RESUMABLE_SYNC_STORE`, else the SQLite file `resumable_sync.db` in the working directory. In-memory SQLite
            is refused: a heartbeat of its own connection would not see it; psycopg2 too: use psycopg.
        table_prefix: What the names of the tables start with: letters, digits and `_`, at most 40.
        durability: `"full"`: what was saved survives a crash of the server and a power cut. `"relaxed"`: they may undo
            the newest batches, those of less than a second; PostgreSQL then commits without waiting for the disk
            (`synchronous_commit=off`), and SQLite does (`synchronous=NORMAL`, if in WAL mode). Rows that a sink wrote
            in the store's transactions are undone with their checkpoint, so that they are delivered exactly once all
            the same; others may be delivered again. Leases, and jobs that ended, are never undone. An attempt whose
            batches were undone fails with `StoreError`, and the next start goes on from what is left. A kill of the
            process, however hard, undoes nothing. Not possible on MariaDB and MySQL.

    Raises:
        ConfigurationError: If the URL, the prefix or the durability cannot be used.

    Examples:
        >>> from resumable_sync.stores.sql import SQLJobStore
        >>> with SQLJobStore("sqlite:///no-such-file.db") as store:
        ...     print(store.load("orders"))
        None
    """

    def __init__(
        self,
        url_or_engine: str | URL | Engine | None = None,
        *,
        table_prefix: str = DEFAULT_PREFIX,
        durability: Durability = "full",
    ) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_]{1,40}", table_prefix):
            msg = f"table_prefix={table_prefix!r} cannot start a table's name; use 1 to 40 letters, digits and _"
            raise ConfigurationError(msg)
        if url_or_engine is None:
            url_or_engine = os.environ.get(ENVIRONMENT_VARIABLE) or DEFAULT_URL
        owned = not isinstance(url_or_engine, Engine)
        self._open(make_engine(url_or_engine, durable=True), table_prefix, durability, owned=owned)

    def _open(self, engine: Engine, prefix: str, durability: Durability, *, owned: bool) -> None:
        self.durability = check_durability(durability, engine.dialect)
        self._path = sqlite_path(engine.url) if engine.dialect.name == "sqlite" else None
        if engine.dialect.name == "sqlite" and self._path is None:
            msg = "an in-memory SQLite database cannot be a job store; use a file, or MemoryJobStore"
            raise ConfigurationError(msg)
        self._prefix = prefix
        self._owned = owned
        names = _schema.Names(prefix)
        self._sql = SQLText(names, engine.dialect)
        relaxed = durability == "relaxed"
        # SQLite crashes with the processes that use it, and nothing goes on from its memory.
        self._saved = Saved() if relaxed and engine.dialect.name == "postgresql" else None
        self._statements = Statements(self._sql, relaxed=self._saved is not None)
        self._lineage = Lineage(self._sql)
        self._histories = Histories(self._sql)
        self._identity = database_identity(engine)
        self._connections = Connections(engine, owned=owned, relaxed=relaxed)
        self._upkeep = Upkeep(names, self._connections, self._path)
        # Engines whose connections may be enlisted.
        self._known: weakref.WeakSet[Engine] = weakref.WeakSet([engine])
        self._finalizer = weakref.finalize(self, self._connections.close)

    @override
    def __getstate__(self) -> dict[str, Any]:
        if not self._owned:
            msg = "a store made from an engine cannot be pickled; make it from a URL"
            raise ConfigurationError(msg)
        url = self._connections.engine.url
        if self._path is not None and not str(url.database).startswith("file:"):
            url = url.set(database=str(self._path))  # the other process may have another working directory
        return {"url": url, "table_prefix": self._prefix, "durability": self.durability}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._open(make_engine(state["url"], durable=True), state["table_prefix"], state["durability"], owned=True)

    @override
    def __repr__(self) -> str:
        return f"SQLJobStore({shown_url(self._connections.engine.url)!r}, table_prefix={self._prefix!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections that the store made; a later call would open new ones."""
        self._connections.close()

    def ddl(self) -> str:
        """Give the SQL that makes the tables, for a role that may not make them itself."""
        return self._upkeep.ddl()

    @override
    def load(self, job_id: str) -> Job | None:
        check_job_id(job_id)
        with Translated("loading", job_id):
            statements = self._reading()
            if statements is None:
                return None
            with self._connections.read() as connection:
                row = connection.execute(statements.load, {"b_id": job_id}).mappings().one_or_none()
            return None if row is None else job_from_row(row, row["now"])

    @override
    def jobs(self) -> Iterable[Job]:
        with Translated("listing the jobs"):
            statements = self._reading()
            if statements is None:
                return []
            with self._connections.read() as connection:
                rows = connection.execute(statements.jobs).mappings().all()
            return [job_from_row(row, row["now"]) for row in rows]

    @override
    def acquire(self, job_id: str, *, owner: str, ttl: float, replacing: int | None = None) -> Lease:
        check_job_id(job_id)
        check_owner(owner)
        refuse_inside_transaction(self._identity, job_id)
        grant = {"b_id": job_id, "b_owner": owner, "b_ttl": _microseconds(check_ttl(ttl))}
        if replacing is not None:
            grant["b_token"] = replacing
        with Translated("acquiring", job_id):
            if not self._upkeep.exists():
                self._upkeep.create()
            for _ in range(MAX_RACES):
                lease = self._grant(job_id, grant)
                if lease is not None:
                    self._connections.outlive(ttl)
                    return lease
                if replacing is not None:
                    raise JobHeldError(LATER_ATTEMPT, None, job_id)
                # In a transaction of its own: on MariaDB, the lock that an INSERT of an existing row takes would make
                # the UPDATEs after it deadlock.
                with self._connections.write() as connection:
                    connection.execute(self._statements.create, {"b_id": job_id})
        msg = f"job {job_id!r} was deleted each time it was about to be acquired; see who does that, and try again"
        raise StoreError(msg)

    def _grant(self, job_id: str, grant: dict[str, Any]) -> Lease | None:
        """Try to get the lease; None if there is no such job.

        Raises:
            JobHeldError: If somebody else has it.
            StateCorruptError: If the job is damaged.
        """
        statements = self._statements
        with self._connections.write() as connection:
            this = {"b_id": job_id}  # with other parameters SQLAlchemy would write the statement once more
            row = connection.execute(statements.load, this).mappings().one_or_none()
            if row is None:
                return None
            check_room(job_from_row(row, row["now"]))  # a damaged row is left as it is
            granted = connection.execute(statements.replace if "b_token" in grant else statements.grant, grant)
            newest = granted.mappings().one_or_none() if granted.returns_rows else None
            won = newest is not None if granted.returns_rows else bool(granted.rowcount)
            newest = newest or connection.execute(statements.load, this).mappings().one_or_none()
            if newest is None:
                return None
            if not won:
                expires_at = newest["lease_expires_at"]
                until = None if expires_at is None else time_of(expires_at)
                raise JobHeldError(newest["lease_owner"] or LATER_ATTEMPT, until, job_id)
            if not is_token(newest["fencing_token"]):  # by the newest token of a deleted job; nothing is committed
                raise StateCorruptError(job_id, "fencing_token", "would be greater than any clock's time")
            self._lineage.granted(connection, newest)
            self._histories.granted(connection, job_id, newest["fencing_token"])
            return lease_from_row(newest)

    @override
    def renew(self, lease: Lease, ttl: float) -> Lease:
        parameters = {"b_id": lease.job_id, "b_token": lease.fencing_token, "b_ttl": _microseconds(check_ttl(ttl))}
        with Translated("renewing the lease of", lease.job_id), self._connections.write() as connection:
            return self._extend(connection, self._statements.renew, parameters, lease)

    @override
    def save(self, job: Job, lease: Lease) -> Lease:
        save = partial(self._save, self._statements.save)
        return save_alone(self._connections, save, self._saved, job, lease)

    @override
    def release(self, lease: Lease) -> None:
        parameters = {"b_id": lease.job_id, "b_token": lease.fencing_token}
        try:
            with Translated("releasing", lease.job_id), self._connections.write() as connection:
                released = connection.execute(self._statements.release, parameters).rowcount
                if released:
                    self._lineage.given_back(connection, lease)
        finally:
            self._connections.give_back()
            if self._saved is not None:
                self._saved.forget(lease)
        if not released:
            raise LeaseLostError(lease.job_id, lease.fencing_token)

    @override
    def request_stop(self, job_id: str) -> None:
        check_job_id(job_id)
        with Translated("stopping", job_id):
            if self._upkeep.version() is not None:
                with self._connections.write() as connection:
                    connection.execute(self._statements.request_stop, {"b_id": job_id})

    @override
    def delete(self, job_id: str) -> None:
        check_job_id(job_id)
        parameters: dict[str, Any] = {"b_id": job_id}
        statements = self._statements
        with Translated("deleting", job_id):
            if not self._upkeep.exists():
                return
            with self._connections.write() as connection:
                token = connection.execute(statements.token_to_delete, parameters).scalar_one_or_none()
                if is_token(token):
                    connection.execute(statements.note_deleted, {"b_token": token})
                connection.execute(statements.purge_letters, parameters)
                self._lineage.forget(connection, job_id)
                self._histories.forget(connection, job_id)
                connection.execute(statements.delete, parameters)

    @override
    def transaction(self) -> AbstractContextManager[StoreTransaction]:
        save = partial(self._save, self._statements.save)
        return OwnTransaction(self._connections, self._identity, save, self._saved)

    @override
    def enlist(self, connection: Connection) -> StoreTransaction:
        with Translated("taking part in a transaction"):
            if connection.engine not in self._known:
                with self._connections.read() as own:
                    same = same_database(connection, own)
                if not same:
                    msg = (
                        "the connection does not lead to the job store's database: rows and checkpoint cannot commit "
                        "together; give the store the same database, or call commit(batch) without a connection"
                    )
                    raise ConfigurationError(msg)
                self._known.add(connection.engine)
        return EnlistedTransaction(connection, partial(self._save, self._statements.save_enlisted), self._saved)

    @override
    def add_dead_letters(self, letters: Sequence[DeadLetter], transaction: StoreTransaction) -> None:
        rows = [row_of_letter(letter) for letter in letters]
        if rows:
            with Translated("keeping dead letters of", letters[0].job_id):
                transaction.connection.execute(self._statements.add_letter, rows)

    @override
    def dead_letters(self, job_id: str) -> Iterable[DeadLetter]:
        check_job_id(job_id)
        with Translated("reading the dead letters of", job_id):
            if not self._has(_schema.DEAD_LETTERS_SINCE):
                return []
            with self._connections.read() as connection:
                rows = connection.execute(self._statements.letters, {"b_id": job_id}).mappings().all()
            return [letter_from_row(row) for row in rows]

    @override
    def remove_dead_letter(self, letter: DeadLetter, transaction: StoreTransaction) -> None:
        with Translated("removing a dead letter of", letter.job_id):
            parameters = {"b_id": letter.job_id, "b_letter": letter.id}
            transaction.connection.execute(self._statements.remove_letter, parameters)

    @override
    def purge_dead_letters(self, job_id: str, transaction: StoreTransaction) -> None:
        with Translated("removing the dead letters of", job_id):
            transaction.connection.execute(self._statements.purge_letters, {"b_id": job_id})

    @override
    def attempts(self, job_id: str) -> Sequence[AttemptRecord]:
        check_job_id(job_id)
        with Translated("reading the lineage of", job_id):
            if not self._has(_schema.ATTEMPTS_SINCE):
                return []
            with self._connections.read() as connection:
                return self._lineage.read(connection, job_id)

    @override
    def keep_history(self, history: History | None, lease: Lease) -> None:
        with self.transaction() as transaction, Translated("keeping the history of", lease.job_id):
            self._histories.keep(transaction.connection, history, lease)

    @override
    def history(self, job_id: str) -> History | None:
        check_job_id(job_id)
        with Translated("reading the history of", job_id):
            if not self._has(_schema.HISTORY_SINCE):
                return None
            with self._connections.read() as connection:
                return self._histories.read(connection, job_id)

    def _has(self, since: int) -> bool:
        """Whether there are tables, and of the version that some came with, or a later one."""
        version = self._upkeep.version()
        return version is not None and version >= since

    def _reading(self) -> Statements | None:
        """Give the statements to read jobs with; None if there are no tables."""
        version = self._upkeep.version()
        if version is None or version == _schema.SCHEMA_VERSION:
            return None if version is None else self._statements
        return Statements(self._sql, version)

    def _save(self, statement: Prepared, connection: Connection, job: Job, lease: Lease) -> Lease:
        if job.id != lease.job_id:
            msg = f"job {job.id!r} cannot be saved under a lease of {lease.job_id!r}; acquire a lease of its own"
            raise ConfigurationError(msg)
        parameters = row_of_job(job)
        parameters["b_id"], parameters["b_token"] = lease.job_id, lease.fencing_token
        if self._saved is not None:
            parameters["b_run"], parameters["b_least"], parameters["b_most"] = self._saved.expected(lease)
        try:
            return self._extend(connection, statement, parameters, lease)
        except LeaseLostError:
            if self._saved is not None:
                held = {"b_id": lease.job_id, "b_token": lease.fencing_token}
                batches = connection.execute(self._statements.held_batches, held).scalar_one_or_none()
                if batches is not None:
                    raise self._saved.undone(lease, batches) from None
            raise

    def _extend(self, connection: Connection, update: Prepared, parameters: dict[str, Any], lease: Lease) -> Lease:
        """Send an UPDATE that extends the lease, and give the lease as it is then.

        Raises:
            LeaseLostError: If its token is not the newest.
        """
        row = update.execute(connection, parameters)
        if row and self._statements.extended is not None:
            row = self._statements.extended.execute(connection, {"b_id": lease.job_id})
        if not row:
            raise LeaseLostError(lease.job_id, lease.fencing_token)
        return Lease(
            job_id=lease.job_id,
            owner=lease.owner,
            fencing_token=lease.fencing_token,
            expires_at=time_of(row[0]),
            stop_requested=bool(row[1]),
        )


def _microseconds(seconds: float) -> int:
    return max(1, round(seconds * 1_000_000))


def from_data(
    *, url: URLOrParts | None = None, table_prefix: str = DEFAULT_PREFIX, durability: Durability = "full"
) -> SQLJobStore:
    """Build a `SQLJobStore` from plain data; what the registry calls for `{"type": "sql", ...}`.

    Args:
        url: As for `SQLJobStore`, or the parts of a URL in a dict.
        table_prefix: As for `SQLJobStore`.
        durability: As for `SQLJobStore`.

    Raises:
        ConfigurationError: If the URL, the prefix or the durability cannot be used.
    """
    return SQLJobStore(None if url is None else parse_url(url), table_prefix=table_prefix, durability=durability)
