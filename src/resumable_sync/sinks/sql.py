"""`SQLSink`: batches into a table, exactly once."""

import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar

import attrs
from sqlalchemy import Connection, Engine
from typing_extensions import override

from resumable_sync._database import URLOrParts, is_mysql, parse_url, scrub, shown_url
from resumable_sync._errors import ConfigurationError
from resumable_sync._formats import COPY_TEXT, SQLITE_WINDOW, Format, FormattingSink
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
from resumable_sync.sinks._writer import Writer, check_key
from resumable_sync.sinks._zombies import Zombies

__all__ = ["SQLSink"]

T = TypeVar("T")


class SQLSink(Sink[Any], PreparingSink, CheckpointingSink, FormattingSink, PartitionableSink):
    """Write batches into a table on SQLite, PostgreSQL, MySQL or MariaDB, every record exactly once.

    Without `url` it writes on the connection of a transactional store, such as `SQLJobStore`: rows and the store's
    checkpoint commit together. With `url` it writes there on a connection of its own, and keeps a checkpoint beside
    the rows, in the table `resumable_sync_checkpoints` of the target's schema: rows, checkpoint and the check of the
    fencing token commit together, and the engine goes on from there. A predecessor that is frozen inside a COPY, where
    nothing else ends it, has its session ended by the next attempt, which must log in as the same role for that.

    The statements of a batch:

        append, PostgreSQL (psycopg)      COPY orders (id, total) FROM STDIN
        append, else                      INSERT INTO orders (id, total) VALUES (?, ?)      in one executemany
        upsert, PostgreSQL (psycopg)      COPY into a temporary table of the session, then
                                          INSERT INTO orders ... SELECT ... ON CONFLICT (id) DO UPDATE SET ...
        from a file to a file of SQLite   INSERT INTO main.orders (id, total) SELECT id, total FROM the file, attached
        upsert, SQLite                    INSERT ... ON CONFLICT (id) DO UPDATE SET total = excluded.total
        upsert, MySQL, MariaDB            INSERT ... ON DUPLICATE KEY UPDATE total = VALUES(total)
        replace                           as append, into the staging table
        with `url`, before that           UPDATE resumable_sync_checkpoints SET cursor = ... WHERE ... cursor = ...

    `"replace"` loads a staging table over as many attempts as it takes, and puts it in the place of the target when the
    run is complete. Readers see all the old rows or all the new ones, never a mixture, nor a table half full. The
    statements of a run:

        begin, SQLite                     CREATE TABLE resumable_sync_1f... (...), as the target was made
        begin, PostgreSQL                 CREATE TABLE resumable_sync_1f... (LIKE orders ...), and its keys and indexes
        begin, MySQL, MariaDB             CREATE TABLE resumable_sync_1f..._<fencing token> LIKE orders
        complete, SQLite, PostgreSQL      DROP TABLE orders; ALTER TABLE resumable_sync_1f... RENAME TO orders; in the
                                          transaction that completes the job, or with `url` the target's checkpoint
        complete, MySQL, MariaDB          RENAME TABLE orders TO ..._old, ... TO orders; then DROP TABLE ..._old

    - Columns, keys, indexes, checks, comments and grants of the target are kept, and its triggers on SQLite and
      PostgreSQL, though they do not fire for what is loaded. What would break is refused before anything is read, with
      the way out: foreign keys, on SQLite only if they refer to it and are enforced; on MySQL and MariaDB triggers; on
      PostgreSQL views and whatever else is bound to the table itself rather than to its name.
    - Staging tables stand in the register `resumable_sync_staging` in the target's schema. Those of earlier runs of the
      same job into the same target are dropped when it begins a new one; that of a job which never runs again stays. A
      table that is not registered is never dropped. Job ids are taken for those of one store: two stores whose jobs of
      the same name replace the same target get into each other's way.
    - A run that is `incomplete` is published by the replay of its last dead letter, or at once with
      `publish_incomplete`; what is replayed later goes into the target then.
    - Until it is published, a run goes on with this sink only, and so does the replay of its dead letters: any other is
      refused, since it would not publish what was loaded. (With `url` in another database only a `SQLSink` is.)
    - What somebody changes in the target's columns while a run loads is not undone: the swap refuses, and says what to
      do. A check that comes or goes meanwhile is followed on PostgreSQL; elsewhere the run keeps those it began with.
    - On PostgreSQL the swap waits up to 10 s for transactions that read the target, then fails and is tried again. One
      of REPEATABLE READ or SERIALIZABLE that began before the last batch, and reads the target for the first time
      after the swap, sees only what was loaded when it began, as PostgreSQL shows it after a TRUNCATE.

    Records are dicts, tuples with `Page.columns`, or Arrow data; their columns are matched with the table's by name. A
    missing table is created from the columns of a connector that can tell them, with the primary key that those have;
    every type becomes the widest of its kind.

    An existing table is compared with those columns before the first batch. What does not fit is named in one error: a
    column that the table lacks, one that is NOT NULL there without a default and not in the source, and one of a kind
    that the source's does not go into. With `on_schema_change="evolve"` a new run adds the columns that the table
    lacks, as columns that may be NULL (`ALTER TABLE orders ADD COLUMN region TEXT`), and with `mode="replace"` it is
    the staging table that gets them. Nothing else of an existing table is ever altered, and `begin` touches none of
    its rows.

    Values that a driver cannot bind, or would change without a word, are converted by their type and the column's:

    - a datetime with a time zone goes into a column without one as UTC; one without goes everywhere as it is;
    - on SQLite dates and times are ISO text as SQLAlchemy writes it. A Decimal is text in a column of text or of no
      type, such as `SQLSink` makes for more than 15 digits, else a number, and refused if a double cannot hold it. NaN
      is refused, since SQLite makes NULL of it;
    - lists, tuples and dicts become JSON text, but in arrays of PostgreSQL. A str in a JSON column is JSON text, unless
      the connector says that its column is PostgreSQL's, whose drivers give JSON decoded;
    - a timedelta becomes a time of day, or a number of microseconds in a column of integers.

    What fits no column raises `ValueError` without the value, which counts as refused by the sink. Numbers and times
    are rounded to the digits that the column has, by the database.

    With `url` an object is for one job at a time. Once another job has begun on it, the earlier one's next batch is a
    `ConfigurationError`, and nothing of it is written.

    Args:
        table: `"name"` or `"schema.name"`.
        mode: `"append"` adds every record. `"upsert"` replaces the row of the same key; of several records of a key in
            a batch the last one stays. `"replace"` puts a new table in the place of the old one.
        key: Names of the key's columns, for `"upsert"`; by default the table's primary key. There must be a unique
            index on exactly these. On MySQL and MariaDB there must be no other, which would replace rows too. For
            `"replace"` the primary key of a target that does not exist yet; one that does keeps its own.
        url: SQLAlchemy URL of the target's database, its parts as a dict, or an engine; None to write in the store's.
            With an engine the sink does not pickle.
        schema: The schema, for a table whose name holds a dot.
        on_schema_change: What to do when the source has columns that the table lacks: `"fail"` (default), or
            `"evolve"`, which adds them.
        publish_incomplete: With `"replace"`, whether a run that left dead letters takes the target's place all the same
            (default False).

    Raises:
        ConfigurationError: If the arguments do not fit together.
        MissingExtraError: If the database's driver is not installed.

    Examples:
        >>> SQLSink("orders", mode="append")
        SQLSink('orders', mode='append')
        >>> SQLSink("sales.orders", mode="upsert", key="id", url="postgresql+psycopg://etl:secret@warehouse/dw")
        SQLSink('sales.orders', mode='upsert', key=('id',), url='postgresql+psycopg://etl:***@warehouse/dw')
    """

    transactional = False
    """Whether it writes on the store's connection: without `url`."""

    idempotent = False
    """Whether writing a record again has no effect: with `mode="upsert"`."""

    preferred_batch_size = 5_000
    """How many records make a batch unless the caller says: enough for what every batch costs to count for little."""

    known_formats = (COPY_TEXT, SQLITE_WINDOW)
    publishes_incomplete = False
    """Whether a run with dead letters is completed too: `publish_incomplete`."""

    def __init__(
        self,
        table: str,
        mode: Literal["append", "upsert", "replace"],
        key: str | Sequence[str] | None = None,
        url: URLOrParts | Engine | None = None,
        *,
        schema: str | None = None,
        on_schema_change: Literal["fail", "evolve"] = "fail",
        publish_incomplete: bool = False,
    ) -> None:
        check_mode(mode, publish_incomplete=publish_incomplete)
        if on_schema_change not in ("fail", "evolve"):
            msg = f"on_schema_change={on_schema_change!r} is not possible; use 'fail' or 'evolve'"
            raise ConfigurationError(msg)
        self._schema, self._table = split_name(table, schema)
        self._mode = mode
        self._key = key_names(key, mode)
        self._evolves = on_schema_change == "evolve"
        self._url = url if url is None or isinstance(url, Engine) else parse_url(url)
        self.transactional = url is None
        self.idempotent = mode == "upsert"
        self.publishes_incomplete = publish_incomplete
        self._columns: Sequence[Column] | None = None
        self._whole: Job | None = None
        self._open()

    def _open(self) -> None:
        self._writers: dict[str, Writer] = {}
        self._replacement = Replacement(self._table, self._schema, self._whole) if self._mode == "replace" else None
        self._token: int | None = None
        self._job_id: str | None = None
        # Two threads on one connection would commit each other's rows.
        self._lock = threading.RLock()
        self._zombies = Zombies(self._table, self._schema)
        self._checkpoint = TargetCheckpoint(self._table, self._schema)
        self._link = None if self._url is None else Link(self._url)
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
    def part(self, job: Job) -> "SQLSink":
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
    def takes(self, format_: Format, job: Job, /) -> bool:
        # A subclass that changes the records wants to see them.
        writer = self._writers.get(job.id)
        return type(self).write is SQLSink.write and writer is not None and writer.takes(format_)

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
        detach(connection)
        if self._replacement is not None:
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
        if self._columns:
            check_columns(connection, (self._table, self._schema), target, self._columns, evolve=evolve)

    def _key_of(self, target: Target) -> Sequence[str]:
        key = (self._key or target.primary_key) if self._mode == "upsert" else ()
        if self._mode == "upsert" and not key:
            msg = f"table {target.name!r} has no primary key to upsert by; name the columns of a unique index in key="
            raise ConfigurationError(msg)
        return key

    def _writer(self, target: Target, connection: Connection) -> Writer:
        return Writer(target, self._key_of(target), self._columns, self._zombies, connection)

    def _make(self, connection: Connection, schema: str | None, name: str) -> None:
        columns = self._columns
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

    def _ready(self, connection: Connection, job_id: str) -> Writer:
        writer = self._writers.get(job_id)
        if writer is None and self._replacement is not None:
            msg = f"job {job_id!r}: SQLSink with mode='replace' was given a batch before begin(job); call that first"
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
                f"SQLSink({self._shown()!r}) writes on the connection of a transactional store, such as SQLJobStore, "
                "and got none; use one, or give the sink its own url="
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
                f"SQLSink({self._shown()!r}) with url= is for one job at a time: job {job_id!r} was writing, and job "
                f"{self._job_id!r} began on the same object; give each job one of its own"
            )
            raise ConfigurationError(msg)

    def _take_token(self, job: Job) -> int:
        if job.lease is not None:
            self._token = job.lease.fencing_token
        if self._token is None:
            msg = (
                f"job {job.id!r}: SQLSink with url= needs the fencing token, but job.lease is None; get the lease first"
            )
            raise ConfigurationError(msg)
        return self._token

    def _transact(self, link: Link, work: Callable[[Connection], T]) -> T:
        return _scrubbed(lambda: link.transact(work))

    def _shown(self) -> str:
        return f"{self._schema}.{self._table}" if self._schema else self._table

    @override
    def __repr__(self) -> str:
        url = self._url.url if isinstance(self._url, Engine) else self._url
        parts = [repr(self._shown()), f"mode={self._mode!r}"]
        parts += [f"key={self._key!r}"] if self._key else []
        parts += ["on_schema_change='evolve'"] if self._evolves else []
        parts += ["publish_incomplete=True"] if self.publishes_incomplete else []
        parts += [f"url={shown_url(url)!r}"] if url is not None else []
        return f"SQLSink({', '.join(parts)})"

    @override
    def __getstate__(self) -> dict[str, Any]:
        if isinstance(self._url, Engine):
            msg = "SQLSink made from an engine does not pickle; make it from a URL"
            raise ConfigurationError(msg)
        return self._settings()

    def _settings(self) -> dict[str, Any]:
        runtime = ("_writers", "_replacement", "_token", "_job_id", "_lock", "_checkpoint", "_link", "_finalizer")
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
