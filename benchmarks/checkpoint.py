"""What a checkpoint costs beside the caller's work, next to a loop written by hand.

All sides insert the same rows in the transaction that moves the checkpoint. What is measured is everything else: the
checkpoint, the commit, and what the engine does between two batches. On SQLite the other side only commits. On a server
there are two hand-written loops, each on a connection that it keeps, each with one UPDATE with a token condition: one
with SQLAlchemy Core, like the library, which the bound is for, and one that gives its SQL to the driver. They take
turns batch by batch, so that what else the machine does hits all of them.
"""

import contextlib
import itertools
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import attrs
from benchmarks._common import ReadyPages, postgres_server, servers
from benchmarks._report import Report
from sqlalchemy import Connection, Update, bindparam, column, create_engine, event, make_url, table, update
from typing_extensions import override

from resumable_sync import Batch, Job, JobStatus, Page, run_full_sync, transactional
from resumable_sync._model import new_run_id
from resumable_sync._protocols import JobStore
from resumable_sync.stores._durability import Durability
from resumable_sync.stores.memory import MemoryJobStore
from resumable_sync.stores.redis import RedisJobStore
from resumable_sync.stores.sql import SQLJobStore

BATCHES = 1_000
WARM_UP = 50
ROWS = [(number, f"customer{number}@example.org", number * 7) for number in range(1_000)]
TABLE = "CREATE TABLE orders (id INTEGER, customer VARCHAR(60), cents INTEGER)"
CHECKPOINT = "CREATE TABLE checkpoint (id VARCHAR(60) PRIMARY KEY, token BIGINT, place BIGINT, records BIGINT)"
MOVE = "UPDATE checkpoint SET place = %s, records = %s WHERE id = 'driver' AND token = 1"

Clock = Callable[[], float]
Insert = Callable[[Any], object]
"""Writes `ROWS` on a connection of the driver."""


def insert_sqlite(connection: Any) -> None:
    """Insert with executemany."""
    connection.executemany("INSERT INTO orders VALUES (?, ?, ?)", ROWS)


def insert_postgres(connection: Any) -> None:
    """Insert with COPY."""
    with connection.cursor() as cursor, cursor.copy("COPY orders FROM STDIN") as copy:
        for row in ROWS:
            copy.write_row(row)


def insert_mariadb(connection: Any) -> None:
    """Insert with the driver's executemany."""
    with connection.cursor() as cursor:
        cursor.executemany("INSERT INTO orders VALUES (%s, %s, %s)", ROWS)


def bare_commits(path: Path, clock: Clock) -> Iterator[float]:
    """Insert and commit on SQLite, once for each time asked; gives the seconds it took beside the insert."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA synchronous=FULL")
    with contextlib.closing(connection):
        while True:
            begun = clock()
            connection.execute("BEGIN IMMEDIATE")
            seconds = clock() - begun
            insert_sqlite(connection)
            begun = clock()
            connection.execute("COMMIT")
            yield seconds + clock() - begun


def bare_moves(path: Path, synchronous: str) -> Iterator[float]:
    """Move a checkpoint on SQLite with the driver alone, once for each time asked; gives the seconds of CPU it took."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(f"PRAGMA synchronous={synchronous}")
    with contextlib.closing(connection):
        connection.execute(CHECKPOINT)
        connection.execute("INSERT INTO checkpoint VALUES ('driver', 1, -1, 0)")
        for number in itertools.count():
            begun = time.thread_time()
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(MOVE.replace("%s", "?"), (number, number * len(ROWS)))
            connection.execute("COMMIT")
            yield time.thread_time() - begun


def core_moves(path: Path, synchronous: str) -> Iterator[float]:
    """Move a checkpoint on SQLite, as `bare_moves`, with SQLAlchemy Core on a connection that is kept."""
    engine = create_engine(f"sqlite:///{path}")
    move = move_by_core()
    with contextlib.closing(engine.connect()) as connection:
        driver_connection: Any = connection.connection.driver_connection
        driver_connection.execute(f"PRAGMA synchronous={synchronous}")
        driver_connection.execute(CHECKPOINT)
        driver_connection.execute("INSERT INTO checkpoint VALUES ('core', 1, -1, 0)")
        driver_connection.commit()
        for number in itertools.count():
            begun = time.thread_time()
            connection.begin()
            driver_connection.execute("BEGIN IMMEDIATE")
            connection.execute(move, {"b_place": number, "b_records": number * len(ROWS)})
            connection.commit()
            yield time.thread_time() - begun


def move_by_core() -> Update:
    """Give the UPDATE that moves a checkpoint, for SQLAlchemy Core."""
    checkpoint = table("checkpoint", column("id"), column("token"), column("place"), column("records"))
    this = checkpoint.c.id == "core", checkpoint.c.token == 1
    return update(checkpoint).where(*this).values(place=bindparam("b_place"), records=bindparam("b_records"))


def checkpoints(connection: Any, insert: Insert) -> Iterator[float]:
    """Insert, move the checkpoint and commit, as `bare_commits`, on a server."""
    # psycopg prepares a statement that it sees for the fifth time, PyMySQL none.
    with contextlib.closing(connection), connection.cursor() as cursor:
        for number in itertools.count():
            insert(connection)
            begun = time.perf_counter()
            cursor.execute(MOVE, (number, number * len(ROWS)))
            assert cursor.rowcount == 1
            connection.commit()
            yield time.perf_counter() - begun


def core_checkpoints(url: str, insert: Insert) -> Iterator[float]:
    """Insert, move the checkpoint and commit, as `checkpoints`, with SQLAlchemy Core."""
    engine, move = create_engine(url), move_by_core()
    with contextlib.closing(engine.connect()) as connection:
        for number in itertools.count():
            begun = time.perf_counter()
            connection.begin()
            seconds = time.perf_counter() - begun
            insert(connection.connection.driver_connection)
            begun = time.perf_counter()
            moved = connection.execute(move, {"b_place": number, "b_records": number * len(ROWS)})
            assert moved.rowcount == 1
            connection.commit()
            yield seconds + time.perf_counter() - begun


class Alternating(ReadyPages[str]):
    """Lets the other side do a batch before each page, and measures both.

    Args:
        pages: How many batches.
        others: Each does a batch and gives its seconds.
        insert: What the library's sink does.
        clock: What to measure with.

    Attributes:
        ours: The seconds of the library beside the insert, batch by batch.
        theirs: Those of each other side.
    """

    def __init__(
        self, pages: int, others: Sequence[Iterator[float]], insert: Insert, clock: Clock = time.perf_counter
    ) -> None:
        super().__init__(["record"], pages)
        self.ours: list[float] = []
        self.theirs: list[list[float]] = [[] for _ in others]
        self._others = others
        self._insert = insert
        self._clock = clock
        self._aside = 0.0  # seconds since the page before that the engine is not to blame for

    @override
    def read(self, cursor: Any, batch_size: int) -> Iterator[Page[str]]:
        for page in super().read(cursor, batch_size):
            for other, seconds in zip(self._others, self.theirs, strict=True):
                seconds.append(next(other))
            begun = self._clock()
            yield page
            self.ours.append(self._clock() - begun - self._aside)

    def write(self, _batch: Batch[Any], connection: Connection) -> None:
        """Insert, as the sink."""
        begun = self._clock()
        self._insert(connection.connection.driver_connection)
        self._aside = self._clock() - begun


def compare(url: str, insert: Insert, *others: Iterator[float], clock: Clock = time.perf_counter) -> list[list[float]]:
    """Give the seconds of all sides beside the insert, batch by batch; the library's come first."""
    pages = Alternating(BATCHES, others, insert, clock)
    with SQLJobStore(url) as store:
        run_full_sync("orders", pages, transactional(pages.write), store=store, prefetch=0)
    for other in others:
        other.close()  # type: ignore[attr-defined]  # they are generators
    return [seconds[WARM_UP:] for seconds in (pages.ours, *pages.theirs)]


def sync(url_or_engine: Any, insert: Insert, batches: int) -> None:
    """Run a sync of so many batches from the beginning."""
    pages = Alternating(batches, (), insert)
    with SQLJobStore(url_or_engine) as store:
        store.delete("traced")
        run_full_sync("traced", pages, transactional(pages.write), store=store, prefetch=0)


@contextlib.contextmanager
def sqlite_file(name: str) -> Iterator[Path]:
    """Give a SQLite file in WAL mode with the table in it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute(TABLE)
        yield path


def connect(url: str) -> Any:
    """Make the tables on a server, and give a connection of its driver."""
    engine = create_engine(url)
    with engine.begin() as connection:
        for statement in (TABLE, CHECKPOINT, "INSERT INTO checkpoint VALUES ('core', 1, -1, 0), ('driver', 1, -1, 0)"):
            connection.exec_driver_sql(statement)
    engine.dispose()
    parsed = make_url(url)
    if parsed.get_backend_name() == "postgresql":
        import psycopg

        return psycopg.connect(parsed.set(drivername="postgresql").render_as_string(hide_password=False))
    import pymysql

    return pymysql.connect(host=parsed.host, port=parsed.port or 0, user=parsed.username, database=parsed.database)


def per_batch(trace: Callable[[int], Iterable[str]]) -> tuple[int, int]:
    """Count statements and commits per batch, without the caller's inserts.

    Args:
        trace: Gives all statements of a sync of so many batches; what one of 150 sends more than one of 50 is the
            batches' own.
    """
    counts = []
    for batches in (50, 150):
        kinds = [statement.split(maxsplit=1)[0].upper() for statement in trace(batches) if statement.strip()]
        ours = [kind for kind in kinds if kind not in {"INSERT", "COPY", "COMMIT"}]
        counts.append((len(ours), kinds.count("COMMIT")))
    (few, few_commits), (many, many_commits) = counts
    return round((many - few) / 100), round((many_commits - few_commits) / 100)


def trace_sqlite(batches: int) -> list[str]:
    """Give the statements that SQLite ran."""
    statements: list[str] = []

    def trace(connection: Any, _record: Any) -> None:
        connection.set_trace_callback(statements.append)

    with sqlite_file("traced.db") as path:
        engine = create_engine(f"sqlite:///{path}")
        event.listen(engine, "connect", trace)
        sync(engine, insert_sqlite, batches)
        engine.dispose()
    return statements


def trace_postgres(server: Any, url: str, batches: int) -> list[str]:
    """Give the statements that PostgreSQL logged."""
    database = make_url(url).database
    server.execute(f"ALTER DATABASE {database} SET log_statement = 'all'")
    before = len(server.log())
    sync(url, insert_postgres, batches)
    server.execute(f"ALTER DATABASE {database} RESET log_statement")
    logged = (line.partition("LOG:")[2].strip() for line in server.log()[before:].splitlines())
    return [text.partition(": ")[2] for text in logged if text.startswith(("statement:", "execute "))]


def trace_mariadb(server: Any, url: str, batches: int) -> list[str]:
    """Give the statements that MariaDB logged."""
    server.execute("SET GLOBAL log_output = 'TABLE'")
    server.execute("TRUNCATE TABLE mysql.general_log")
    server.execute("SET GLOBAL general_log = 1")
    sync(url, insert_mariadb, batches)
    server.execute("SET GLOBAL general_log = 0")
    rows = server.execute("SELECT argument FROM mysql.general_log WHERE command_type = 'Query'")
    return [argument if isinstance(argument, str) else bytes(argument).decode() for (argument,) in rows]


def saves(
    report: Report,
    name: str,
    opened: contextlib.AbstractContextManager[JobStore],
    others: Mapping[str, Iterator[float]] = {},
) -> float:
    """Measure `save` by itself, which is a transaction of its own; give the microseconds it takes.

    Many in a row, as in no sync, where caches are cold after each batch: that is what stands beside the insert.

    Args:
        report: Gets the line.
        name: Of the line.
        opened: The store.
        others: Those that do the same without the library, in turn, and give the seconds of CPU it took.
    """
    with opened as store:
        lease = store.acquire("saved", owner="bench", ttl=600.0)
        job = Job(id="saved", status=JobStatus.RUNNING, run=1, run_id=new_run_id(), attempt=1)
        wall, cpu = [], []
        by_hand: list[list[float]] = [[] for _ in others]
        for first in range(0, BATCHES, WARM_UP):
            for number in range(first, first + WARM_UP):
                job = attrs.evolve(job, cursor=[number], processed_records=number * 1_000, processed_batches=number)
                begun, busy = time.perf_counter(), time.thread_time()
                lease = store.save(job, lease)
                cpu.append(time.thread_time() - busy)
                wall.append(time.perf_counter() - begun)
            for other, seconds in zip(others.values(), by_hand, strict=True):
                seconds.extend(itertools.islice(other, WARM_UP))
    microseconds = statistics.median(cpu[WARM_UP:]) * 1e6
    report.add(f"save, {name}", milliseconds(wall[WARM_UP:]), figure=microseconds, form="{:.0f} us of CPU")
    for tool, seconds in zip(others, by_hand, strict=True):
        microseconds = statistics.median(seconds[WARM_UP:]) * 1e6
        report.add(f"{name}, UPDATE and COMMIT by {tool}", "", figure=microseconds, form="{:.0f} us of CPU")
    return statistics.median(wall[WARM_UP:]) * 1e6


def milliseconds(times: list[float]) -> str:
    """Write the median."""
    return f"{statistics.median(times) * 1000:.3f} ms"


def main() -> int:
    """Measure and print."""
    costs = Report("checkpoint", "A checkpoint beside the insert of 1,000 rows", "library", "by hand")
    alone = Report("checkpoint", "A checkpoint by itself, by store and durability", "time")
    counts = Report("checkpoint", "Statements beside the insert, and commits, per batch")

    def count(name: str, trace: Callable[[int], Iterable[str]]) -> None:
        statements, commits = per_batch(trace)
        counts.add(f"{name}, statements", figure=statements, form="{:.0f}")
        counts.add(f"{name}, commits", figure=commits, form="{:.0f}")

    def compare_server(name: str, server: Any, insert: Insert) -> str:
        url: str = server.create_database()
        driver = checkpoints(connect(url), insert)
        ours, *others = compare(url, insert, core_checkpoints(url, insert), driver)
        for theirs, tool in zip(others, ("SQLAlchemy Core", "the driver"), strict=True):
            ratio = statistics.median(ours) / statistics.median(theirs)
            times = milliseconds(ours), milliseconds(theirs)
            costs.add(f"{name}, by hand with {tool}", *times, figure=ratio, form="{:.2f} x")
        return url

    for name, clock in (
        ("SQLite, beyond a bare commit", time.perf_counter),
        ("SQLite, beyond a bare commit, CPU", time.thread_time),
    ):
        with sqlite_file("ours.db") as path, sqlite_file("theirs.db") as other:
            ours, theirs = compare(f"sqlite:///{path}", insert_sqlite, bare_commits(other, clock), clock=clock)
        beyond = statistics.median(our - their for our, their in zip(ours, theirs, strict=True)) * 1000
        times = milliseconds(ours), milliseconds(theirs)
        costs.add(name, *times, figure=beyond, form="{:.3f} ms")
    count("SQLite", trace_sqlite)
    bars = {"memory": saves(alone, "memory", contextlib.nullcontext(MemoryJobStore()))}
    for durability in get_args(Durability):
        synchronous = "FULL" if durability == "full" else "NORMAL"
        with sqlite_file("saved.db") as path, sqlite_file("core.db") as core, sqlite_file("bare.db") as bare:
            others = {"SQLAlchemy Core": core_moves(core, synchronous), "the driver": bare_moves(bare, synchronous)}
            name = f"SQLite, {durability}"
            bars[name] = saves(alone, name, SQLJobStore(f"sqlite:///{path}", durability=durability), others)
    with postgres_server(durable=True) as server:
        url = compare_server("PostgreSQL", server, insert_postgres)
        for durability in get_args(Durability):
            name = f"PostgreSQL, {durability}"
            bars[name] = saves(alone, name, SQLJobStore(url, durability=durability))
    with postgres_server(durable=False) as server:
        url = compare_server("PostgreSQL, fsync=off", server, insert_postgres)
        count("PostgreSQL", lambda batches: trace_postgres(server, url, batches))
    with servers().mariadb_server(own=True) as server:
        url = compare_server("MariaDB, no fsync", server, insert_mariadb)
        count("MariaDB", lambda batches: trace_mariadb(server, url, batches))
        bars["MariaDB, no fsync"] = saves(alone, "MariaDB, no fsync", SQLJobStore(url))
    with servers().redis_server(own=True) as server:
        bars["Redis, no fsync"] = saves(alone, "Redis, no fsync", RedisJobStore(server.create_database()))
    alone.chart("checkpoint", "A checkpoint by itself, microseconds", bars)
    return costs.finish() | counts.finish() | alone.finish()


if __name__ == "__main__":
    sys.exit(main())
