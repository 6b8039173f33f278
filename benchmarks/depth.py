"""Time per batch deep in a large table, next to that at its beginning: paging by key costs the same everywhere.

A job is given a checkpoint at 1 % and another at 99 % of the rows; both are resumed and take turns batch by batch.
Nothing is done with the batches, so what is measured is reading them, and the engine. Beside them stands paging by
OFFSET, which must pass over all rows before its page.
"""

import contextlib
import itertools
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks._common import servers
from benchmarks._report import Report
from sqlalchemy import create_engine

from resumable_sync import FullSync, Job, JobStatus
from resumable_sync._model import new_run_id
from resumable_sync.connectors.sql import Paging, SQLConnector
from resumable_sync.stores.memory import MemoryJobStore

ROWS = 10_000_000
BATCH_SIZE = 1_000
BATCHES = 48  # the last 1 % has 100
WARM_UP = 8
ROUNDS = 20
PLACES = (0.01, 0.99)
COLUMNS = "id BIGINT PRIMARY KEY, customer VARCHAR(60) NOT NULL, cents BIGINT NOT NULL"
PAIRS = "region BIGINT NOT NULL, number BIGINT NOT NULL, customer VARCHAR(60) NOT NULL, PRIMARY KEY (region, number)"
NUMBERS = f"WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS - 1}) "


@contextlib.contextmanager
def sqlite_source() -> Iterator[str]:
    """Give the URL of a SQLite file with both tables."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "source.db")
        with contextlib.closing(sqlite3.connect(path)) as connection, connection:
            connection.execute(f"CREATE TABLE items ({COLUMNS.replace('BIGINT', 'INTEGER')})")
            connection.execute(f"CREATE TABLE parts ({PAIRS})")
            connection.execute(f"INSERT INTO items {NUMBERS} SELECT i * 3, 'customer' || i, i FROM n")
            connection.execute(f"INSERT INTO parts {NUMBERS} SELECT i / 4000, i % 4000, 'customer' || i FROM n")
        yield f"sqlite:///{path}"


@contextlib.contextmanager
def postgres_source() -> Iterator[str]:
    """Give the URL of a PostgreSQL database with both tables."""
    with servers().postgres_server() as server:
        url: str = server.create_database()
        engine = create_engine(url)
        with engine.begin() as connection:
            run = connection.exec_driver_sql
            run(f"CREATE TABLE items ({COLUMNS})")
            run(f"CREATE TABLE parts ({PAIRS})")
            numbers = f"FROM generate_series(0, {ROWS - 1}) AS i"
            run(f"INSERT INTO items SELECT i * 3, 'customer' || i, i {numbers}")
            run(f"INSERT INTO parts SELECT i / 4000, i %% 4000, 'customer' || i {numbers}")
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("VACUUM ANALYZE")
        engine.dispose()
        yield url
        server.drop_database(url)


def stopped_at(share: float, cursor: Any) -> MemoryJobStore:
    """Give a store that holds a job whose checkpoint is at that place."""
    store = MemoryJobStore()
    lease = store.acquire("bench", owner="bench", ttl=60.0)
    job = Job(
        id="bench",
        status=JobStatus.INTERRUPTED,
        run=1,
        run_id=new_run_id(),
        attempt=1,
        cursor=cursor,
        processed_records=int(ROWS * share),
        processed_batches=int(ROWS * share) // BATCH_SIZE,
    )
    store.save(job, lease)
    store.release(lease)
    return store


def resumed(stack: contextlib.ExitStack, connector: SQLConnector, share: float) -> Iterator[object]:
    """Resume a job at a place and give its batches."""
    cursor = connector.cursor_at(int(ROWS * share))
    sync: FullSync[Any] = FullSync(
        "bench", connector, store=stopped_at(share, cursor), batch_size=BATCH_SIZE, prefetch=0, count=False
    )
    stack.enter_context(sync)
    return iter(sync)


def seconds(batches: Iterator[object]) -> float:
    """Give the seconds that the next batch takes."""
    begun = time.perf_counter()
    next(batches)
    return time.perf_counter() - begun


def take_turns(connector: SQLConnector) -> tuple[list[float], list[float]]:
    """Resume at both places and give the seconds of their batches."""
    near: list[float] = []
    far: list[float] = []
    with contextlib.ExitStack() as stack:
        at_near, at_far = (resumed(stack, connector, share) for share in PLACES)
        for _ in range(BATCHES // 2):  # in the other order every second time
            near.append(seconds(at_near))
            far += [seconds(at_far), seconds(at_far)]
            near.append(seconds(at_near))
    # The first ones warm up, and the very first may check the key.
    return near[WARM_UP:], far[WARM_UP:]


def measure(report: Report, name: str, url: str, table: str, paging: Paging = "keyset") -> dict[str, float]:
    """Measure one table; give the milliseconds at both places."""
    with contextlib.closing(SQLConnector(url, table, paging=paging)) as connector:
        found = [take_turns(connector) for _ in range(ROUNDS if paging == "keyset" else 1)]
    near, far = (statistics.median(itertools.chain(*times)) for times in zip(*found, strict=True))
    cells = f"{near * 1000:.2f} ms", f"{far * 1000:.2f} ms"
    report.add(name, *cells, figure=far / near, form="{:.2f} x")
    return {f"{name}, at {share:.0%}": took * 1000 for share, took in zip(PLACES, (near, far), strict=True)}


def main() -> int:
    """Measure and print."""
    report = Report(
        "depth", f"Time per batch of {BATCH_SIZE:,} at 1 % and at 99 % of {ROWS:,} rows", "at 1 %", "at 99 %"
    )
    bars: dict[str, float] = {}
    for name, source in (("SQLite", sqlite_source), ("PostgreSQL", postgres_source)):
        with source() as url:
            bars |= measure(report, f"{name}, integer key", url, "items")
            bars |= measure(report, f"{name}, key of two columns", url, "parts")
            measure(report, f"{name}, by OFFSET", url, "items", "offset")  # its batches differ too much for a chart
    report.chart("depth", f"Milliseconds per batch of {BATCH_SIZE:,}", bars, "{:.2f}")
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
