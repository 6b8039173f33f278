"""`SQLSink`: batches into a table, exactly once."""

from collections.abc import Sequence
from typing import Any, Literal

from sqlalchemy import Connection, Engine
from typing_extensions import override

from resumable_sync._database import URLOrParts, parse_url, shown_url
from resumable_sync._errors import ConfigurationError
from resumable_sync._formats import COPY_TEXT, SQLITE_WINDOW, Format, FormattingSink
from resumable_sync._model import Job
from resumable_sync.sinks._link import Link
from resumable_sync.sinks._table_sink import TableSink
from resumable_sync.sinks._target import Target
from resumable_sync.sinks._writer import Writer

__all__ = ["SQLSink"]


class SQLSink(TableSink, FormattingSink):
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
    _named = " with url="
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
        self._url = url if url is None or isinstance(url, Engine) else parse_url(url)
        self.transactional = url is None
        super().__init__(
            table,
            mode,
            key,
            schema=schema,
            on_schema_change=on_schema_change,
            publish_incomplete=publish_incomplete,
        )

    @override
    def _made_link(self) -> Link | None:
        return None if self._url is None else Link(self._url)

    @override
    def takes(self, format_: Format, job: Job, /) -> bool:
        # A subclass that changes the records wants to see them.
        writer = self._writers.get(job.id)
        return type(self).write is SQLSink.write and writer is not None and writer.takes(format_)

    @override
    def _writer(self, target: Target, connection: Connection) -> Writer:
        return Writer(target, self._key_of(target), self._columns, self._zombies, connection)

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
        return super().__getstate__()
