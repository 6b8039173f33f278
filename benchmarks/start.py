"""How soon a process works: imports, and the first batch after a kill."""

import contextlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks._common import HERE, alternate
from benchmarks._report import Report
from benchmarks.memory import sqlite_pair

from resumable_sync import BatchCommitted, Event, run_full_sync
from resumable_sync.connectors.sql import SQLConnector
from resumable_sync.sinks.sql import SQLSink
from resumable_sync.stores.sql import SQLJobStore

ROUNDS = 5
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


def child(source: str, target: str) -> int:
    """Sync; print when the first batch is committed. (The clock is the machine's.)"""

    def observe(event: Event) -> None:
        if isinstance(event, BatchCommitted):
            print(time.monotonic(), event.sequence, flush=True)

    with SQLJobStore(target) as store:
        run_full_sync(
            "orders", SQLConnector(source, "orders"), SQLSink("orders", mode="append"), store=store, observers=[observe]
        )
    return 0


def first_batch(source: str, target: str) -> tuple[float, int]:
    """Start the sync in a process and kill it after its first batch.

    Returns:
        The milliseconds from the start of the process to its first batch, and the number of that.
    """
    begun = time.monotonic()
    command = [sys.executable, "-m", "benchmarks.start", source, target]
    with subprocess.Popen(command, cwd=HERE.parent, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        committed, sequence = process.stdout.readline().split()
        process.kill()
    return (float(committed) - begun) * 1000, int(sequence)


def main() -> int:
    """Measure and print."""
    report = Report("start", "Milliseconds from the start of a process")
    for name, times in zip(IMPORTS, alternate(ROUNDS, [imports(code) for code in IMPORTS.values()]), strict=True):
        report.add(name, figure=statistics.median(times), form="{:.0f}")
    with tempfile.TemporaryDirectory() as folder, sqlite_pair() as (source, _):
        target = f"sqlite:///{Path(folder, 'target.db')}"
        new, _ = first_batch(source, target)
        report.add("first batch of a new job, SQLite to SQLite", figure=new, form="{:.0f}")
        starts = [first_batch(source, target) for _ in range(ROUNDS)]
    places = [place for _, place in starts]
    assert places == sorted(set(places))
    assert places[0] > 0
    report.add("first batch after a kill", figure=statistics.median(took for took, _ in starts), form="{:.0f}")
    return report.finish()


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        sys.exit(main() if len(sys.argv) == 1 else child(*sys.argv[1:]))
