"""Memory of a sync of one and of ten million rows: the peak of a fresh process, and what of it the imports take.

The sync is that of the README, SQLConnector to SQLSink in the store's transaction, in batches of 10,000; of one million
rows once more without the fast path, as Python values. `RESUMABLE_SYNC_BENCH_ROWS` makes ten times as many rows of
another number.
"""

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks._common import HERE, postgres_server
from benchmarks._report import Report
from benchmarks._tables import postgres_source, sqlite_source
from sqlalchemy import create_engine

from resumable_sync import run_full_sync
from resumable_sync.connectors.sql import SQLConnector
from resumable_sync.sinks.sql import SQLSink
from resumable_sync.stores.sql import SQLJobStore

ROWS = int(os.environ.get("RESUMABLE_SYNC_BENCH_ROWS", "1000000"))
BATCH = 10_000
VALUES = " as Python values"


def peak_megabytes() -> float:
    """Give the most memory this process ever had. (ru_maxrss may show what its parent had when it forked.)"""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def child(rows: str, source: str, target: str, how: str = "") -> int:
    """Sync, and print the peaks after the imports and at the end."""
    if source.startswith("postgresql"):
        import psycopg  # noqa: F401 - it counts as an import

    imports = peak_megabytes()
    with SQLJobStore(target) as store:
        sink = SQLSink("orders", mode="append")
        connector = SQLConnector(source, "orders")
        result = run_full_sync("orders", connector, sink, store=store, batch_size=BATCH, fast_path=how != VALUES)
    assert result.records == int(rows)
    assert (result.format == "records") == (how == VALUES)
    print(imports, peak_megabytes())
    return 0


@contextlib.contextmanager
def sqlite_pair(rows: int) -> Iterator[tuple[str, str]]:
    """Give the URLs of a source with the rows and of an empty target."""
    with sqlite_source(rows) as path:
        yield f"sqlite:///{path}", f"sqlite:///{Path(path).with_name('target.db')}"


@contextlib.contextmanager
def postgres_pair(rows: int) -> Iterator[tuple[str, str]]:
    """As `sqlite_pair`, on a PostgreSQL that is at rest: what filling it has left is done."""
    with postgres_server(durable=True) as server:
        source = postgres_source(server, rows)
        engine = create_engine(source, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            for statement in ("VACUUM", "CHECKPOINT"):
                connection.exec_driver_sql(statement)
        engine.dispose()
        yield source, server.create_database()


def peaks(
    rows: int, pair: Callable[[int], contextlib.AbstractContextManager[tuple[str, str]]], how: str
) -> tuple[float, float]:
    """Give the peaks of a process of its own after the imports and at the end."""
    with pair(rows) as urls:
        command = [sys.executable, "-m", "benchmarks.memory", str(rows), *urls, how]
        output = subprocess.run(command, check=True, cwd=HERE.parent, stdout=subprocess.PIPE, text=True).stdout
    imports, peak = map(float, output.split())
    return imports, peak


def main() -> int:
    """Measure and print."""
    report = Report("memory", f"Peak memory of a sync in batches of {BATCH:,}", "imports", "above them")
    bars = {}
    for name, pair in (("SQLite to SQLite", sqlite_pair), ("PostgreSQL to PostgreSQL", postgres_pair)):
        found = []
        for rows, how in ((ROWS, VALUES), (ROWS, ""), (10 * ROWS, "")):
            imports, peak = peaks(rows, pair, how)
            found.append(peak)
            line = f"{name}, {rows:,} rows{how}"
            bars[line] = peak
            cells = f"{imports:.0f} MiB", f"{peak - imports:.0f} MiB"
            report.add(line, *cells, figure=peak, form="{:.0f} MiB")
        _, few, many = found
        report.add(f"{name}, growth with ten times the rows", "", "", figure=many - few, form="{:.1f} MiB")
    report.chart("memory", "Peak memory of the process, MiB", bars)
    return report.finish()


if __name__ == "__main__":
    sys.exit(main() if len(sys.argv) == 1 else child(*sys.argv[1:]))
