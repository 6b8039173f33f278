"""Memory of a sync of a million rows: the peak of a fresh process, above what its imports take.

The sync is that of the README: SQLConnector to SQLSink in the store's transaction, all options as they come.
"""

import contextlib
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks._common import HERE, servers
from benchmarks._report import Report
from sqlalchemy import create_engine

from resumable_sync import run_full_sync
from resumable_sync.connectors.sql import SQLConnector
from resumable_sync.sinks.sql import SQLSink
from resumable_sync.stores.sql import SQLJobStore

ROWS = 1_000_000
COLUMNS = "id BIGINT PRIMARY KEY, customer VARCHAR(60) NOT NULL, cents BIGINT NOT NULL, note VARCHAR(200)"
VALUES = "i, 'customer' || i || '@example.org', i * 7, 'fragile; leave at the door of the neighbour, please'"


def peak_megabytes() -> float:
    """Give the most memory this process ever had. (ru_maxrss may show what its parent had when it forked.)"""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def child(source: str, target: str) -> int:
    """Sync, and print the peaks after the imports and at the end."""
    if source.startswith("postgresql"):
        import psycopg  # noqa: F401 - it counts as an import

    imports = peak_megabytes()
    with SQLJobStore(target) as store:
        result = run_full_sync("orders", SQLConnector(source, "orders"), SQLSink("orders", mode="append"), store=store)
    assert result.records == ROWS
    print(imports, peak_megabytes())
    return 0


@contextlib.contextmanager
def sqlite_pair() -> Iterator[tuple[str, str]]:
    """Give the URLs of a source with the rows and of an empty target."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "source.db")
        with contextlib.closing(sqlite3.connect(path)) as connection, connection:
            connection.execute(f"CREATE TABLE orders ({COLUMNS.replace('BIGINT', 'INTEGER')})")
            numbers = f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS})"
            connection.execute(f"INSERT INTO orders {numbers} SELECT {VALUES} FROM n")
        yield f"sqlite:///{path}", f"sqlite:///{folder}/target.db"


@contextlib.contextmanager
def postgres_pair() -> Iterator[tuple[str, str]]:
    """As `sqlite_pair`, on PostgreSQL."""
    with servers().postgres_server() as server:
        source, target = server.create_database(), server.create_database()
        engine = create_engine(source)
        with engine.begin() as connection:
            connection.exec_driver_sql(f"CREATE TABLE orders ({COLUMNS})")
            connection.exec_driver_sql(f"INSERT INTO orders SELECT {VALUES} FROM generate_series(1, {ROWS}) AS i")
        engine.dispose()
        yield source, target
        server.drop_database(source)
        server.drop_database(target)


def main() -> int:
    """Measure and print."""
    report = Report("memory", f"Peak memory of a sync of {ROWS:,} rows above that of the imports", "imports", "peak")
    for name, pair in (("SQLite to SQLite", sqlite_pair), ("PostgreSQL to PostgreSQL", postgres_pair)):
        with pair() as urls:
            command = [sys.executable, "-m", "benchmarks.memory", *urls]
            output = subprocess.run(command, check=True, cwd=HERE.parent, stdout=subprocess.PIPE, text=True).stdout
        imports, peak = map(float, output.split())
        report.add(name, f"{imports:.0f} MB", f"{peak:.0f} MB", figure=peak - imports, form="{:.0f} MB")
    return report.finish()


if __name__ == "__main__":
    sys.exit(main() if len(sys.argv) == 1 else child(*sys.argv[1:]))
