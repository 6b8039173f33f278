"""Parts: what splitting costs, and what a second process gains.

The source has 10,000,000 rows; `RESUMABLE_SYNC_BENCH_ROWS` changes that. What takes the time of a copy is the target:
two processes that transform what they copy gain the most.
"""

import hashlib
import multiprocessing
import os
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from typing import Any

import sqlalchemy as sa
from benchmarks._common import postgres_server
from benchmarks._report import Report

from resumable_sync import Batch, run_partitioned_sync
from resumable_sync.connectors.sql import SQLConnector
from resumable_sync.stores.sql import SQLJobStore

ROWS = int(os.environ.get("RESUMABLE_SYNC_BENCH_ROWS", "10000000"))
TRANSFORMED = 200_000
ROUNDS = 3
NOTHING: Batch[Any] = Batch(
    records=[], cursor=None, previous_cursor=None, job_id="", run=1, sequence=0, fencing_token=1, key=""
)


def transform(batch: Batch[Any]) -> None:
    """Take a while over every record."""
    for record in batch.records:
        hashlib.pbkdf2_hmac("sha256", repr(record).encode(), b"salt", 40)


def fill(url: str) -> None:
    """Make a table with 90 % of its rows in a hundredth of the range of its key."""
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TABLE items AS SELECT CASE WHEN mod(n, 10) = 0 THEN n::bigint * 100 ELSE 900000000 + n END AS id, "
            f"'customer ' || n AS customer, n * 1.5 AS total, now() AS at FROM generate_series(1, {ROWS}) AS n"
        )
        connection.exec_driver_sql("ALTER TABLE items ADD PRIMARY KEY (id)")
        connection.exec_driver_sql(f"CREATE TABLE few AS SELECT * FROM items ORDER BY id LIMIT {TRANSFORMED}")
        connection.exec_driver_sql("ALTER TABLE few ADD PRIMARY KEY (id)")
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM ANALYZE items")
    engine.dispose()


def splitting(url: str, report: Report) -> None:
    """Split into 64 parts, and read everything."""
    with closing(SQLConnector(url, "items")) as connector:
        parts, splits = connector.split(64), []
        for _ in range(5):
            begun = time.perf_counter()
            parts = connector.split(64)
            splits.append(time.perf_counter() - begun)
        split = statistics.median(splits)
        begun = time.perf_counter()
        read = sum(len(page) for page in connector.read(None, 10_000))
        reading = time.perf_counter() - begun
        sizes = [part.count() for part in parts]
    assert read == sum(sizes) == ROWS
    told = f"{split:.2f} s of {reading:.1f} s"
    report.add("splitting into 64, against reading", told, figure=split / reading, form="{:.3f}")
    uneven = max(sizes) / statistics.mean(sizes)
    report.add("largest part, against the mean", "", figure=uneven, form="{:.2f} x")


def seconds_of(url: str, name: str, workers: int) -> float:
    """Transform the rows in so many processes that have imported everything; give the seconds."""
    with (
        ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool,
        closing(SQLConnector(url, "few")) as connector,
        SQLJobStore(url) as store,
    ):
        list(pool.map(time.sleep, [0.5] * workers))
        list(pool.map(transform, [NOTHING] * workers * 4))
        begun = time.perf_counter()
        run_partitioned_sync(name, connector, transform, store=store, executor=pool, parts=8)
        return time.perf_counter() - begun


def transforming(url: str, report: Report) -> None:
    """Transform in one process, and in two."""
    rounds = [[seconds_of(url, f"few {round_} {workers}", workers) for workers in (1, 2)] for round_ in range(ROUNDS)]
    gain = statistics.median(one / two for one, two in rounds)
    told = ", ".join(f"{one:.1f} s, {two:.1f} s" for one, two in rounds)
    report.add("two processes that transform", told, figure=gain, form="{:.2f} x")


def main() -> int:
    """Run all; give the exit status."""
    report = Report("partitions", f"parts, PostgreSQL, {ROWS:,} rows", "measured")
    with postgres_server(durable=True) as server:
        source = server.create_database()
        fill(source)
        splitting(source, report)
        transforming(source, report)
    return report.finish()


if __name__ == "__main__":
    raise SystemExit(main())
