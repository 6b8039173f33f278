"""What keeping the history of a run costs it, and how large a report is, and how long it takes to make.

The cost is the share of a sync's time that goes into the history: a sync on a durable SQLite file, whose store measures
its own calls. The report is that of a job of 10,000,000 records which was killed twelve times, with as many samples,
attempts and dead letters as there can be.
"""

import statistics
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import attrs
from benchmarks._common import ReadyPages
from benchmarks._report import Report
from sqlalchemy import Connection
from typing_extensions import override

from resumable_sync import Batch, DeadLetter, Guarantee, History, Job, JobStatus, Lease, Sample, run_full_sync
from resumable_sync import transactional as as_transactional
from resumable_sync._history import MAX_SAMPLES
from resumable_sync._model import utc_now
from resumable_sync.report import job_report
from resumable_sync.stores.sql import SQLJobStore

ROWS = [(number, f"customer{number}@example.org", number * 7) for number in range(1_000)]
SECONDS = 20
RECORDS = 10_000_000
DEATHS = 12
LETTERS = 100
EARLIER = 87
"""Attempts of earlier runs: a hundred are kept in all."""


class Measured(SQLJobStore):
    """Measures how long keeping histories takes.

    Attributes:
        seconds: How long it took so far.
        cpu_seconds: How much of that the processor was busy with it.
        samples: How often it was called.
    """

    seconds = cpu_seconds = 0.0
    samples = 0

    @override
    def keep_history(self, history: History | None, lease: Lease) -> None:
        begun, busy = time.perf_counter(), time.thread_time()
        super().keep_history(history, lease)
        self.seconds += time.perf_counter() - begun
        self.cpu_seconds += time.thread_time() - busy
        self.samples += 1


def insert(_batch: Batch[Any], connection: Connection) -> None:
    """Insert 1,000 rows, as a sink."""
    driver_connection: Any = connection.connection.driver_connection
    driver_connection.executemany("INSERT INTO orders VALUES (?, ?, ?)", ROWS)


def cost(folder: Path) -> tuple[float, float, int]:
    """Give the share of a sync's time, and of its CPU, that goes into its history, in percent; and how many samples."""
    with Measured(f"sqlite:///{folder / 'cost.db'}") as store:
        lease = store.acquire("first", owner="first", ttl=60.0)  # makes the tables
        with store.transaction() as transaction:
            transaction.connection.exec_driver_sql("CREATE TABLE orders (id INTEGER, customer TEXT, cents INTEGER)")
        store.release(lease)
        begun, busy = time.perf_counter(), time.thread_time()
        sink = as_transactional(insert)
        pages = ReadyPages(["record"], 10_000_000)
        run_full_sync("orders", pages, sink, store=store, prefetch=0, max_runtime=SECONDS)
        shares = store.seconds / (time.perf_counter() - begun), store.cpu_seconds / (time.thread_time() - busy)
        return 100 * shares[0], 100 * shares[1], store.samples


def long_past(store: SQLJobStore) -> None:
    """Let a job live through all that there can be."""
    now, token = utc_now(), None
    job = Job(id="orders", status=JobStatus.RUNNING, run=1, run_id="0a1b2c3d-0000-4000-8000-0123456789ab")
    lease = None
    for number in range(1, EARLIER + DEATHS + 2):
        lease = store.acquire("orders", owner=f"host-{number}:{number}:x", ttl=60.0, replacing=token)
        if number == EARLIER + 1:
            job = attrs.evolve(job, run=2, processed_records=0, attempt=0)
        records = job.processed_records + RECORDS // (DEATHS + 1) + 1
        job = attrs.evolve(
            job, attempt=job.attempt + 1, cursor=[records], processed_records=records, total_records=RECORDS,
            processed_batches=records // 1_000, started_at=now - timedelta(hours=3), updated_at=now,
        )  # fmt: skip
        lease = store.save(job, lease)
        token = lease.fencing_token
    assert lease is not None
    samples = tuple(
        Sample(
            attempt=1 + place * DEATHS // MAX_SAMPLES, started_at=now - timedelta(seconds=36 * (MAX_SAMPLES - place)),
            seconds=36.0, records=33_333, batches=33, read_seconds=9.123456, write_seconds=17.654321 + place / 100,
            commit_seconds=4.5, failed_tries=place % 7, processed_records=33_333 * (place + 1),
        )
        for place in range(MAX_SAMPLES)
    )  # fmt: skip
    stops = dict.fromkeys(range(100), "a stop was requested")
    store.keep_history(
        History(run_id=job.run_id, guarantee=Guarantee.AT_LEAST_ONCE, samples=samples, stops=stops), lease
    )
    letters = [
        DeadLetter(job_id="orders", run=2, record=["x" * 10_000], error=f"Error{place}: {'y' * 2_000}", key="k")
        for place in range(LETTERS)
    ]
    done = attrs.evolve(
        job, status=JobStatus.INCOMPLETE, dead_letters=LETTERS, finished_at=now, error="E: " + "z" * 2_000
    )
    with store.transaction() as transaction:
        store.add_dead_letters(letters, transaction)
        transaction.save(done, lease)
    store.release(lease)


def main() -> int:
    """Measure and print."""
    report = Report("report", "History and report", "samples")
    with tempfile.TemporaryDirectory() as name:
        *shares, samples = cost(Path(name))
        for what, share in zip(("time", "CPU"), shares, strict=True):
            report.add(f"history, share of a sync's {what}", str(samples), figure=share, form="{:.2f} %")
        with SQLJobStore(f"sqlite:///{Path(name, 'past.db')}") as store:
            long_past(store)
            times, page = [], ""
            for _ in range(5):
                begun = time.perf_counter()
                page = job_report("orders", store=store)
                times.append(time.perf_counter() - begun)
        size = len(page.encode()) / 1000
    what = f"report of {RECORDS:,} records, {DEATHS} deaths"
    report.add(f"{what}: size", str(MAX_SAMPLES), figure=size, form="{:.0f} KB")
    report.add(f"{what}: time", str(MAX_SAMPLES), figure=statistics.median(times), form="{:.3f} s")
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
