"""The syncs that the crash tests kill: a real table, a real target, a real store, in whatever databases."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import attrs

# Here, once for all the children that are forked: each of them would spend a third of its time on it.
import psycopg  # noqa: F401
import pymysql  # noqa: F401
from sqlalchemy import Column, Engine, Integer, MetaData, String, Table, create_engine, inspect, select, text
from sqlalchemy.pool import NullPool

from resumable_sync import Batch
from resumable_sync.connectors.sql import SQLConnector
from resumable_sync.sinks.sql import SQLSink
from resumable_sync.stores.redis import RedisJobStore
from resumable_sync.stores.sql import SQLJobStore
from resumable_sync.testing import Fault, FaultyConnector, FaultySink, FaultyStore, SyncParts

JOB_ID = "orders"

_tables = MetaData()
SOURCE = Table("source", _tables, Column("id", Integer, primary_key=True), Column("name", String(40), nullable=False))
TARGET = Table("target", _tables, Column("id", Integer, nullable=False), Column("name", String(40), nullable=False))


@attrs.frozen
class Insert:
    """A plain callable that inserts into the target and commits, with nothing to do with the store."""

    url: str

    def __call__(self, batch: Batch[Any]) -> None:
        with contextlib.closing(_Once(self.url)) as once, once.engine.begin() as connection:
            connection.execute(TARGET.insert(), batch.dicts())


class _Once:
    def __init__(self, url: str) -> None:
        self.engine = create_engine(url, poolclass=NullPool)

    def close(self) -> None:
        self.engine.dispose()


@attrs.frozen(kw_only=True)
class Program:
    """A sync from one database to another one, with the store in either.

    Attributes:
        source: URL of the database with the table `source`.
        store: URL of the store's database; a SQL database or a Redis.
        target: URL of the database that gets the table `target`.
        sink: `"store"` writes in the store's transaction, `"own"` keeps its checkpoint beside the rows, `"plain"` is a
            callable.
        mode: Mode of the `SQLSink`.
        rows: How many rows the source has.
        options: Arguments of `run_full_sync`.
        faults: What happens to the store, the connector and the sink of this process.
    """

    source: str
    store: str
    target: str
    sink: str = "store"
    mode: Any = "append"
    rows: int = 20
    options: dict[str, Any] = attrs.field(factory=lambda: {"batch_size": 6})
    faults: Sequence[Fault] = ()

    def make(self) -> SyncParts:
        """Give the parts; in each process anew."""
        sinks: dict[str, Callable[[], Any]] = {
            "store": partial(SQLSink, "target", mode=self.mode),
            "own": partial(SQLSink, "target", mode=self.mode, url=self.target),
            "plain": partial(Insert, self.target),
        }
        return SyncParts(
            job_id=JOB_ID,
            connector=FaultyConnector(SQLConnector(self.source, "source"), self.faults),
            sink=FaultySink(sinks[self.sink](), self.faults),
            store=FaultyStore(self.job_store(), self.faults),
            options={"max_stalled_attempts": 1_000_000, **self.options},
        )

    def job_store(self) -> SQLJobStore | RedisJobStore:
        """Give the store."""
        return RedisJobStore(self.store) if self.store.startswith("redis") else SQLJobStore(self.store)

    def fill(self) -> None:
        """Make the source."""
        with self.engine(self.source) as engine:
            SOURCE.create(engine)
            with engine.begin() as connection:
                connection.execute(SOURCE.insert(), [{"id": one, "name": name} for one, name in self.expected()])

    def expected(self) -> Sequence[tuple[int, str]]:
        """Give what the target must hold at the end."""
        return [(number, f"name {number}") for number in range(1, self.rows + 1)]

    def delivered(self) -> Sequence[tuple[int, str]]:
        """Give what the target holds."""
        with self.engine(self.target) as engine:
            if not inspect(engine).has_table("target"):
                return []
            with engine.connect() as connection:
                return [(row.id, row.name) for row in connection.execute(select(TARGET))]

    def reset(self) -> None:
        """Forget job and target."""
        with self.job_store() as store:
            store.delete(JOB_ID)
        with self.engine(self.target) as engine:
            TARGET.drop(engine, checkfirst=True)
            if self.sink == "plain":
                TARGET.create(engine)

    def row(self) -> Mapping[str, Any]:
        """Give the job's row as it is stored, whatever the time."""
        with self.engine(self.store) as engine, engine.connect() as connection:
            return dict(connection.execute(text("SELECT * FROM resumable_sync_jobs")).mappings().one())

    @contextlib.contextmanager
    def engine(self, url: str) -> Iterator[Engine]:
        """Give an engine that keeps nothing open."""
        # In the parent nothing stays open that could keep a file or a database from being dropped.
        engine = create_engine(url, poolclass=NullPool)
        try:
            yield engine
        finally:
            engine.dispose()
