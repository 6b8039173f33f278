"""Parts: what splitting costs, what a second process gains, and how many workers one store carries.

The source has 10,000,000 rows and each store 10,000 parts; `RESUMABLE_SYNC_BENCH_ROWS` and `RESUMABLE_SYNC_BENCH_PARTS`
change that. What takes the time of a copy is the target: two processes that transform what they copy gain the most.
"""

import hashlib
import multiprocessing
import os
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from typing import Any, Self

import sqlalchemy as sa
from benchmarks._common import Report, postgres_server

from resumable_sync import Batch, Job, JobStatus, run_partitioned_sync
from resumable_sync.connectors.sql import SQLConnector
from resumable_sync.stores.sql import SQLJobStore

ROWS = int(os.environ.get("RESUMABLE_SYNC_BENCH_ROWS", "10000000"))
PARTS = int(os.environ.get("RESUMABLE_SYNC_BENCH_PARTS", "10000"))
TRANSFORMED = 100_000
MOST_SPLITTING = 0.05
MOST_UNEVEN = 1.3
LEAST_GAIN = 1.6
SECONDS = 5.0
HEARTBEAT, CHECKPOINT = 20.0, 1.0
"""Seconds between two of one worker."""


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
    report.add("splitting into 64, against reading", told, figure=split / reading, form="{:.3f}", bound=MOST_SPLITTING)
    uneven = max(sizes) / statistics.mean(sizes)
    report.add("largest part, against the mean", "", figure=uneven, form="{:.2f} x", bound=MOST_UNEVEN)


def transforming(url: str, report: Report) -> None:
    """Transform in one process, and in two."""
    seconds = []
    for workers in (1, 2):
        with (
            ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool,
            closing(SQLConnector(url, "few")) as connector,
            SQLJobStore(url) as store,
        ):
            list(pool.map(abs, range(workers * 4)))  # the processes are there
            begun = time.perf_counter()
            run_partitioned_sync("few", connector, transform, store=store, executor=pool, parts=8)
            seconds.append(time.perf_counter() - begun)
    one, two = seconds
    told = f"{one:.1f} s, {two:.1f} s"
    report.add("two processes that transform", told, figure=one / two, form="{:.2f} x", least=LEAST_GAIN)


def storing(url: str, report: Report) -> None:
    """Acquire, renew and save for many parts as fast as it goes, from eight connections."""
    with SQLJobStore(url) as store:
        leases: dict[str, Any] = {}

        def acquire(job_id: str) -> None:
            lease = store.acquire(job_id, owner=f"owner of {job_id}", ttl=600)
            job = Job(id=job_id, status=JobStatus.RUNNING, run=1, run_id="r")
            leases[job_id] = (store.save(job, lease), job)

        def save(job_id: str) -> None:
            store.save(leases[job_id][1], leases[job_id][0])

        def renew(job_id: str) -> None:
            store.renew(leases[job_id][0], 600)

        started = rate(acquire, only_once=True)
        with LockWaits(url) as waits:
            saves = rate(save)
        renewals = rate(renew)
    report.add("parts begun per second", "", figure=started, form="{:.0f}")
    report.add(
        "checkpoints per second", f"{waits.most} sessions waited for a lock at most", figure=saves, form="{:.0f}"
    )
    report.add("heartbeats per second", "", figure=renewals, form="{:.0f}")
    carried = 1 / (1 / CHECKPOINT / saves + 1 / HEARTBEAT / renewals)
    report.add("workers that one store carries, a checkpoint a second each", "", figure=carried, form="{:.0f}")


def rate(work: Callable[[str], object], *, only_once: bool = False) -> float:
    """Do something to all parts in turn, for some seconds or once, in eight threads; give how often per second."""
    ids = [f"orders/{number:04d}" for number in range(PARTS)]
    done = [0] * 8
    begun = time.perf_counter()

    def run(number: int, mine: Sequence[str]) -> None:
        while True:
            for job_id in mine:
                work(job_id)
                done[number] += 1
                if not only_once and time.perf_counter() - begun > SECONDS:
                    return
            if only_once:
                return

    threads = [threading.Thread(target=run, args=(number, ids[number::8])) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(done) / (time.perf_counter() - begun)


class LockWaits:
    """Looks ten times a second how many sessions wait for a lock."""

    def __init__(self, url: str) -> None:
        self.most = 0
        self._engine = sa.create_engine(url)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self._engine.dispose()

    def _watch(self) -> None:
        query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            while not self._done.wait(0.1):
                self.most = max(self.most, int(connection.exec_driver_sql(query).scalar_one()))


def main() -> int:
    """Run all; give the exit status."""
    report = Report(f"parts, PostgreSQL, {ROWS:,} rows", "measured")
    with postgres_server(durable=True) as server:
        source, store = server.create_database(), server.create_database()
        fill(source)
        splitting(source, report)
        transforming(source, report)
        storing(store, report)
    return report.finish()


if __name__ == "__main__":
    raise SystemExit(main())
