"""How soon a process works: imports, and the first batch after a kill, at the beginning and at 99 % of 6,000,000 rows.

A batch is of 1,000 rows; at 99 % of 10,000 as well, of which reading and writing them is a part.

`RESUMABLE_SYNC_BENCH_ROWS` changes that number.
"""

import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import attrs
from benchmarks._common import HERE, alternate
from benchmarks._report import Report
from benchmarks.memory import postgres_pair, sqlite_pair

from resumable_sync import BatchCommitted, Event, run_full_sync
from resumable_sync.connectors.sql import SQLConnector
from resumable_sync.sinks.sql import SQLSink
from resumable_sync.stores.sql import SQLJobStore

ROUNDS = 5
SIZES = (1_000, 10_000)
ROWS = int(os.environ.get("RESUMABLE_SYNC_BENCH_ROWS", "6000000"))
IMPORTS = {
    "python": "pass",
    "import sqlalchemy": "import sqlalchemy",
    "import resumable_sync": "import resumable_sync",
    "the same with SQL connector, sink and store": (
        "import resumable_sync.connectors.sql, resumable_sync.sinks.sql, resumable_sync.stores.sql"
    ),
}


def imports(code: str) -> Callable[[], float]:
    """Give a function that runs a program and gives its milliseconds."""

    def run() -> float:
        begun = time.monotonic()
        subprocess.run([sys.executable, "-c", code], check=True)
        return (time.monotonic() - begun) * 1000

    return run


def child(source: str, target: str, size: str) -> int:
    """Sync; print when the imports were done, and when the first batch is committed. (The clock is the machine's.)"""
    if source.startswith("postgresql"):
        import psycopg  # noqa: F401 - it counts as an import
    imported = time.monotonic()

    def observe(event: Event) -> None:
        if isinstance(event, BatchCommitted):
            print(imported, time.monotonic(), event.sequence, flush=True)

    with SQLJobStore(target) as store:
        sink = SQLSink("orders", mode="append")
        connector = SQLConnector(source, "orders")
        run_full_sync("orders", connector, sink, store=store, batch_size=int(size), observers=[observe])
    return 0


def first_batch(source: str, target: str, size: int = 1_000) -> tuple[float, float, int]:
    """Start the sync in a process and kill it after its first batch.

    Returns:
        The milliseconds from the start of the process to its first batch, those after the imports, and the number of
        that batch.
    """
    begun = time.monotonic()
    command = [sys.executable, "-m", "benchmarks.start", source, target, str(size)]
    with subprocess.Popen(command, cwd=HERE.parent, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        imported, committed, sequence = process.stdout.readline().split()
        process.kill()
    return (float(committed) - begun) * 1000, (float(committed) - float(imported)) * 1000, int(sequence)


def reach(source: str, target: str) -> None:
    """Let the job be at 99 % of the rows, as a worker left it that was killed there."""
    with SQLJobStore(target) as store, contextlib.closing(SQLConnector(source, "orders")) as connector:
        sink: SQLSink = SQLSink("orders", mode="append")
        run_full_sync("orders", connector, sink, store=store, batch_size=1_000, max_records=1_000)
        job = store.load("orders")
        assert job is not None
        records = ROWS * 99 // 100
        cursor = connector.cursor_at(records)
        far = attrs.evolve(job, cursor=cursor, processed_records=records, processed_batches=records // 1_000)
        lease = store.acquire("orders", owner="benchmark", ttl=60.0)
        store.release(store.save(far, lease))


def after_kills(source: str, target: str) -> list[float]:
    """Give the milliseconds after the imports to the first batch after a kill, at 99 %, by the size of the batch."""
    reach(source, target)
    first_batch(source, target)  # is the first one that is killed
    starts = [[first_batch(source, target, size) for size in SIZES] for _ in range(ROUNDS)]
    places = [place for both in starts for _, _, place in both]
    assert places == sorted(set(places))
    assert places[0] >= ROWS * 99 // 100 // 1_000
    return [statistics.median(took for _, took, _ in times) for times in zip(*starts, strict=True)]


def main() -> int:
    """Measure and print."""
    report = Report("start", "Milliseconds from the start of a process")
    for name, times in zip(IMPORTS, alternate(ROUNDS, [imports(code) for code in IMPORTS.values()]), strict=True):
        report.add(name, figure=statistics.median(times), form="{:.0f}")
    with sqlite_pair(ROWS) as (source, target):
        new, _, _ = first_batch(source, target)
        report.add("first batch of a new job, SQLite to SQLite", figure=new, form="{:.0f}")
        starts = [first_batch(source, target) for _ in range(ROUNDS)]
        killed = statistics.median(took for took, _, _ in starts)
        report.add("first batch after a kill, SQLite to SQLite", figure=killed, form="{:.0f}")
    missed = report.finish()
    report = Report(
        "start", f"Milliseconds after the imports to the first batch, after a kill at 99 % of {ROWS:,} rows"
    )
    for name, pair in (("SQLite to SQLite", sqlite_pair), ("PostgreSQL to PostgreSQL", postgres_pair)):
        with pair(ROWS) as (source, target):
            for size, took in zip(SIZES, after_kills(source, target), strict=True):
                report.add(f"{name}, at 99 %, batches of {size:,}", figure=took, form="{:.0f}")
    return missed | report.finish()


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        sys.exit(main() if len(sys.argv) == 1 else child(*sys.argv[1:]))
