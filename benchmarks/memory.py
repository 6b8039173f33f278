"""Memory of a sync of one and of ten million rows: the peak of a fresh process, and what of it the imports take.

The sync is that of the README, SQLConnector to SQLSink in the store's transaction, in batches of 10,000.
`RESUMABLE_SYNC_BENCH_ROWS` makes ten times as many rows of another number.
"""

import contextlib
import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks._common import HERE, servers
from benchmarks._report import Report
from sqlalchemy import create_engine

from resumable_sync import run_full_sync
from resumable_sync.connectors.sql import SQLConnector
from resumable_sync.sinks.sql import SQLSink
from resumable_sync.stores.sql import SQLJobStore

ROWS = int(os.environ.get("RESUMABLE_SYNC_BENCH_ROWS", "1000000"))
BATCH = 10_000
COLUMNS = "id BIGINT PRIMARY KEY, customer VARCHAR(60) NOT NULL, cents BIGINT NOT NULL, note VARCHAR(200)"
VALUES = "i, 'customer' || i || '@example.org', i * 7, 'fragile; leave at the door of the neighbour, please'"


def peak_megabytes() -> float:
    """Give the most memory this process ever had. (ru_maxrss may show what its parent had when it forked.)"""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def child(rows: str, source: str, target: str) -> int:
    """Sync, and print the peaks after the imports and at the end."""
    if source.startswith("postgresql"):
        import psycopg  # noqa: F401 - it counts as an import

    imports = peak_megabytes()
    with SQLJobStore(target) as store:
        sink = SQLSink("orders", mode="append")
        result = run_full_sync("orders", SQLConnector(source, "orders"), sink, store=store, batch_size=BATCH)
    assert result.records == int(rows)
    print(imports, peak_megabytes())
    return 0


@contextlib.contextmanager
def sqlite_pair(rows: int = ROWS) -> Iterator[tuple[str, str]]:
    """Give the URLs of a source with the rows and of an empty target."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "source.db")
        with contextlib.closing(sqlite3.connect(path)) as connection, connection:
            connection.execute(f"CREATE TABLE orders ({COLUMNS.replace('BIGINT', 'INTEGER')})")
            numbers = f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})"
            connection.execute(f"INSERT INTO orders {numbers} SELECT {VALUES} FROM n")
        yield f"sqlite:///{path}", f"sqlite:///{folder}/target.db"


@contextlib.contextmanager
def postgres_pair(rows: int = ROWS) -> Iterator[tuple[str, str]]:
    """As `sqlite_pair`, on PostgreSQL."""
    with servers().postgres_server() as server:
        source, target = server.create_database(), server.create_database()
        engine = create_engine(source)
        with engine.begin() as connection:
            connection.exec_driver_sql(f"CREATE TABLE orders ({COLUMNS})")
            connection.exec_driver_sql(f"INSERT INTO orders SELECT {VALUES} FROM generate_series(1, {rows}) AS i")
            connection.exec_driver_sql("ANALYZE orders")
        engine.dispose()
        yield source, target
        server.drop_database(source)
        server.drop_database(target)


def peaks(rows: int, pair: Callable[[int], contextlib.AbstractContextManager[tuple[str, str]]]) -> tuple[float, float]:
    """Give the peaks of a process of its own after the imports and at the end."""
    with pair(rows) as urls:
        command = [sys.executable, "-m", "benchmarks.memory", str(rows), *urls]
        output = subprocess.run(command, check=True, cwd=HERE.parent, stdout=subprocess.PIPE, text=True).stdout
    imports, peak = map(float, output.split())
    return imports, peak


def main() -> int:
    """Measure and print."""
    report = Report("memory", f"Peak memory of a sync in batches of {BATCH:,}", "imports", "above them")
    bars = {}
    for name, pair in (("SQLite to SQLite", sqlite_pair), ("PostgreSQL to PostgreSQL", postgres_pair)):
        found = []
        for rows in (ROWS, 10 * ROWS):
            imports, peak = peaks(rows, pair)
            found.append(peak)
            bars[f"{name}, {rows:,} rows"] = peak
            cells = f"{imports:.0f} MiB", f"{peak - imports:.0f} MiB"
            report.add(f"{name}, {rows:,} rows", *cells, figure=peak, form="{:.0f} MiB")
        few, many = found
        report.add(f"{name}, growth with ten times the rows", "", "", figure=many - few, form="{:.1f} MiB")
    report.chart("memory", "Peak memory of the process, MiB", bars)
    return report.finish()


if __name__ == "__main__":
    sys.exit(main() if len(sys.argv) == 1 else child(*sys.argv[1:]))
