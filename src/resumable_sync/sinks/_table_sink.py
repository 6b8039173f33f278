"""A sink into a table: what those have in common that keep a checkpoint beside the rows, whatever writes these."""

import threading
import weakref
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Protocol, Self, TypeVar

import attrs
from sqlalchemy import Connection
from typing_extensions import override

from resumable_sync._database import is_mysql, scrub
from resumable_sync._errors import ConfigurationError
from resumable_sync._model import Batch, Checkpoint, Job
from resumable_sync._protocols import CheckpointingSink, Column, PreparingSink, Sink
from resumable_sync._split import PartitionableSink
from resumable_sync.sinks._arguments import check_mode, key_names, split_name
from resumable_sync.sinks._attach import detach
from resumable_sync.sinks._checkpoint import TargetCheckpoint
from resumable_sync.sinks._link import Link
from resumable_sync.sinks._replace import Replacement, refuse_staged
from resumable_sync.sinks._schema_change import add_columns, check_columns
from resumable_sync.sinks._target import Target, create, reflect
from resumable_sync.sinks._writer import check_key
from resumable_sync.sinks._zombies import Zombies

__all__ = ["BatchWriter", "TableSink"]

T = TypeVar("T")


class BatchWriter(Protocol):
    """Writes batches into a target."""

    def write(self, connection: Connection, batch: Batch[Any]) -> None:
        """Write a batch inside the connection's transaction."""
        ...


class TableSink(Sink[Any], PreparingSink, CheckpointingSink, PartitionableSink):
    """Writes batches into a table, on the store's connection or one of its own.

    Args:
        table: `"name"` or `"schema.name"`.
        mode: `"append"`, `"upsert"` or `"replace"`.
        key: Names of the key's columns.
        schema: The schema, for a table whose name holds a dot.
        on_schema_change: `"fail"` or `"evolve"`.
        publish_incomplete: Whether a run that left dead letters takes the target's place all the same.

    Raises:
        ConfigurationError: If the arguments do not fit together.
    """

    transactional = False
    idempotent = False
    publishes_incomplete = False
    _named = ""
    """What messages add to the name of the class."""

    def __init__(
        self,
        table: str,
        mode: str,
        key: str | Sequence[str] | None,
        *,
        schema: str | None,
        on_schema_change: str,
        publish_incomplete: bool,
    ) -> None:
        check_mode(mode, publish_incomplete=publish_incomplete)
        if on_schema_change not in ("fail", "evolve"):
            msg = f"on_schema_change={on_schema_change!r} is not possible; use 'fail' or 'evolve'"
            raise ConfigurationError(msg)
        self._schema, self._table = split_name(table, schema)
        self._mode = mode
        self._key = key_names(key, mode)
        self._evolves = on_schema_change == "evolve"
        self.idempotent = mode == "upsert"
        self.publishes_incomplete = publish_incomplete
        self._columns: Sequence[Column] | None = None
        self._whole: Job | None = None
        self._open()

    @abstractmethod
    def _made_link(self) -> Link | None:
        """Make the connection of its own; None if it writes on the store's."""

    @abstractmethod
    def _writer(self, target: Target, connection: Connection) -> BatchWriter:
        """Make what writes into a target."""

    def _open(self) -> None:
        self._writers: dict[str, Any] = {}
        self._replacement = Replacement(self._table, self._schema, self._whole) if self._mode == "replace" else None
        self._token: int | None = None
        self._job_id: str | None = None
        # Two threads on one connection would commit each other's rows.
        self._lock = threading.RLock()
        self._zombies = Zombies(self._table, self._schema)
        self._checkpoint = TargetCheckpoint(self._table, self._schema)
        self._link = self._made_link()
        if self._link is not None:
            self._finalizer = weakref.finalize(self, self._link.close)

    def close(self) -> None:
        """Close the connections of its own; a later call opens them again."""
        if self._link is not None:
            self._link.close()

    @override
    def prepare(self, columns: Sequence[Column]) -> None:
        self._columns = tuple(columns)

    @override
    def part(self, job: Job) -> Self:
        made = type(self).__new__(type(self))
        made.__dict__.update(self._settings(), _whole=attrs.evolve(job, cursor=None))  # the plan need not travel
        made._open()  # noqa: SLF001 - our own
        return made

    @override
    def checkpoint(self, job: Job) -> Checkpoint | None:
        if self._link is None:
            return None

        def claim(connection: Connection) -> Checkpoint | None:
            self._checkpoint.create(connection)
            return self._checkpoint.claim(connection, job, token)

        with self._lock:
            token = self._take_over(job)
            return self._transact(self._link, claim)

    @override
    def begin(self, job: Job, connection: Connection | None) -> None:
        if self._link is None:
            given = self._given(connection)
            _scrubbed(lambda: self._prepare(given, job))
            return

        def start(own: Connection) -> None:
            self._checkpoint.create(own)
            self._checkpoint.begin(own, job, token)
            if self._replacement is not None:
                # Tables are made and dropped while the checkpoint is locked, against zombies.
                self._prepare(own, job)

        with self._lock:
            token = self._take_over(job)
            if self._replacement is None:
                # In a transaction of its own, since MySQL and MariaDB commit with it.
                self._transact(self._link, lambda own: self._prepare(own, job))
            self._transact(self._link, start)

    @override
    def write(self, batch: Batch[Any], connection: Connection | None) -> None:
        if self._link is None:
            given = self._given(connection)
            _scrubbed(lambda: self._ready(given, batch.job_id).write(given, batch))
            return

        def write(own: Connection) -> None:
            if self._checkpoint.advance(own, batch):
                self._ready(own, batch.job_id).write(own, batch)

        with self._lock:
            self._check_job(batch.job_id)
            self._transact(self._link, write)
            self._token = batch.fencing_token

    @override
    def complete(self, job: Job, connection: Connection | None) -> None:
        if self._link is None:
            given = self._given(connection)
            _scrubbed(lambda: self._publish(given, job))
            return

        def finish(own: Connection) -> None:
            self._checkpoint.claim(own, job, token)
            self._publish(own, job)
            self._checkpoint.finish(own, job)

        with self._lock:
            self._check_job(job.id)
            token = self._take_token(job)
            self._transact(self._link, finish)
            self._link.release()

    def _prepare(self, connection: Connection, job: Job) -> None:
        detach(connection)
        # A run that goes on has columns already: what is missing then was taken away.
        evolve = self._evolves and not job.has_progress
        if job.lease is not None:
            self._zombies.end(connection, job.id, job.lease.fencing_token)
        if self._replacement is None:
            if job.has_progress or self._whole is not None:
                refuse_staged(connection, self._whole or job, self._table, self._schema)
            target = self._target(connection)
            self._check(connection, target, evolve=evolve)
            if evolve and self._columns:
                target = add_columns(connection, (self._table, self._schema), target, self._columns)
            self._writers[job.id] = self._writer(target, connection)
            return
        old = None if job.has_progress else reflect(connection, self._table, self._schema)
        if old is not None:
            self._check(connection, old, evolve=evolve)  # before anything is made
        place = self._replacement.begin(connection, job, self._make)
        loaded = reflect(connection, place.name, place.schema)
        if loaded is None:
            msg = f"there is no table {self._shown()!r} any more, into which run {job.run} was swapped; start a new run"
            raise ConfigurationError(msg)
        if job.has_progress:
            self._check(connection, loaded, evolve=False)  # it got the new columns when the run began
        elif evolve and self._columns and place.staged:
            loaded = add_columns(connection, (place.name, place.schema), loaded, self._columns)
        self._writers[job.id] = self._writer(attrs.evolve(loaded, name=self._shown()), connection)

    def _publish(self, connection: Connection, job: Job) -> None:
        if self._replacement is not None:
            detach(connection)
            self._replacement.complete(connection, job)

    def _target(self, connection: Connection) -> Target:
        """Look at the target; make it, if it is not there.

        Raises:
            ConfigurationError: If it cannot be made, or somebody drops it.
        """
        target = reflect(connection, self._table, self._schema)
        if target is None:
            self._make(connection, self._schema, self._table)
            target = reflect(connection, self._table, self._schema)
        if target is None:
            msg = f"table {self._shown()!r} was made and is gone: somebody dropped it; run again"
            raise ConfigurationError(msg)
        return target

    def _check(self, connection: Connection, target: Target, *, evolve: bool) -> None:
        """Refuse a target that does not fit, before anything is made or altered."""
        check_key(target, self._key_of(target), mysql=is_mysql(connection.dialect))
        if self._columns and connection.dialect.name != "adbc":
            check_columns(connection, (self._table, self._schema), target, self._columns, evolve=evolve)

    def _key_of(self, target: Target) -> Sequence[str]:
        key = (self._key or target.primary_key) if self._mode == "upsert" else ()
        if self._mode == "upsert" and not key:
            msg = f"table {target.name!r} has no primary key to upsert by; name the columns of a unique index in key="
            raise ConfigurationError(msg)
        return key

    def _make(self, connection: Connection, schema: str | None, name: str) -> None:
        columns = self._columns
        if connection.dialect.name == "adbc":
            msg = f"there is no table {self._shown()!r}, and how one is declared there is not known; create it"
            raise ConfigurationError(msg)
        if not columns:
            msg = (
                f"there is no table {self._shown()!r}, and the connector does not tell its columns, from which it "
                "could be made; create the table"
            )
            raise ConfigurationError(msg)
        key = self._key or tuple(column.name for column in columns if column.primary_key)
        unknown = [name for name in key if name not in {column.name for column in columns}]
        if unknown:
            msg = f"the source has no column {', '.join(map(repr, unknown))} for the key of table {self._shown()!r}"
            raise ConfigurationError(f"{msg}; it has {', '.join(repr(column.name) for column in columns)}")
        if self._mode == "upsert" and not key:
            msg = f"there is no table {self._shown()!r}, and the source has no key to upsert by; name it in key="
            raise ConfigurationError(msg)
        create(connection, name, schema, columns, key)

    def _ready(self, connection: Connection, job_id: str) -> Any:
        writer = self._writers.get(job_id)
        if writer is None and self._replacement is not None:
            called = f"{type(self).__name__} with mode='replace'"
            msg = f"job {job_id!r}: {called} was given a batch before begin(job); call that first"
            raise ConfigurationError(msg)
        if writer is None:
            # No attempt of this process began it: a replay of dead letters.
            target = reflect(connection, self._table, self._schema)
            if target is None:
                msg = f"there is no table {self._shown()!r}; call begin(job) first, which makes it, or create it"
                raise ConfigurationError(msg)
            writer = self._writers[job_id] = self._writer(target, connection)
        return writer

    def _given(self, connection: Connection | None) -> Connection:
        if connection is None:
            msg = (
                f"{type(self).__name__}({self._shown()!r}) writes on the connection of a transactional store, such as "
                "SQLJobStore, and got none; use one, or give the sink its own url="
            )
            raise ConfigurationError(msg)
        return connection

    def _take_over(self, job: Job) -> int:
        # Nobody tells a sink that an attempt ended, so the job that began last has it.
        if self._job_id != job.id:
            self._job_id, self._token = job.id, None
        return self._take_token(job)

    def _check_job(self, job_id: str) -> None:
        if self._job_id is not None and self._job_id != job_id:
            msg = (
                f"{type(self).__name__}({self._shown()!r}){self._named} is for one job at a time: job {job_id!r} was "
                f"writing, and job {self._job_id!r} began on the same object; give each job one of its own"
            )
            raise ConfigurationError(msg)

    def _take_token(self, job: Job) -> int:
        if job.lease is not None:
            self._token = job.lease.fencing_token
        if self._token is None:
            called = f"{type(self).__name__}{self._named}"
            msg = f"job {job.id!r}: {called} needs the fencing token, but job.lease is None; get the lease first"
            raise ConfigurationError(msg)
        return self._token

    def _transact(self, link: Link, work: Callable[[Connection], T]) -> T:
        return _scrubbed(lambda: link.transact(work))

    def _shown(self) -> str:
        return f"{self._schema}.{self._table}" if self._schema else self._table

    @override
    def __getstate__(self) -> dict[str, Any]:
        return self._settings()

    def _settings(self) -> dict[str, Any]:
        runtime = (
            "_writers",
            "_replacement",
            "_token",
            "_job_id",
            "_lock",
            "_checkpoint",
            "_link",
            "_finalizer",
            "_probed",
        )
        return {name: value for name, value in self.__dict__.items() if name not in runtime}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()


def _scrubbed(work: Callable[[], T]) -> T:
    try:
        return work()
    except Exception as error:
        scrub(error)  # drivers put statement, parameters and rows into their texts
        raise
