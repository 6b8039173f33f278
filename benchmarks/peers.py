"""The same table copied by the library, by hand, and by other tools, each in a fresh process.

`python -m benchmarks.peers [postgres] [parquet] [sqlite]` copies from PostgreSQL to PostgreSQL, from PostgreSQL into
Parquet files, and from SQLite to SQLite; all by default. A round lets each tool copy the whole table into an empty
target; the next round goes the other way round. Every ratio is one of the same round.

Of a tool that is a package, the seconds are those of the copy, without the imports; of one that is a program, those of
its process, less what it takes to say its version. CPU and memory are those of the process, imports included, and of
all it started, without the server. Each tool has an environment of its own (`nox -s peers`); one without is said to be
missing.

`RESUMABLE_SYNC_BENCH_ROWS` and `RESUMABLE_SYNC_BENCH_ROUNDS` change the numbers.
"""

import contextlib
import os
import sqlite3
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, get_args

from benchmarks import _loops_parquet
from benchmarks._common import alternate, postgres_server
from benchmarks._environments import versions
from benchmarks._report import Report
from benchmarks._sides import Side, Task, Took, run, sides, started
from benchmarks._tables import plain, postgres_source, source_on, sqlite_source
from pyarrow import parquet
from sqlalchemy import create_engine

ROWS = int(os.environ.get("RESUMABLE_SYNC_BENCH_ROWS", "500000"))
ROUNDS = int(os.environ.get("RESUMABLE_SYNC_BENCH_ROUNDS", "5"))
TITLES: dict[Task, str] = {
    "postgres": "PostgreSQL to PostgreSQL",
    "parquet": "PostgreSQL to Parquet",
    "sqlite": "SQLite to SQLite",
}


def into_postgres(server: Any, source: str, side: Side) -> tuple[Took, str]:
    """Let a side copy into a new database; give what it took."""
    url = server.create_database()
    server.execute("CHECKPOINT")
    with tempfile.TemporaryDirectory() as folder:
        took = run(side.commands("postgres", source, plain(url), Path(folder)))
    engine = create_engine(url)
    with engine.connect() as connection:
        (count,) = connection.exec_driver_sql(f"SELECT count(DISTINCT id) FROM {side.table}").one()
    engine.dispose()
    server.drop_database(url)
    assert count == ROWS, (side.name, count)
    return took, ""


def into_parquet(source: str, side: Side) -> tuple[Took, str]:
    """Let a side write into an empty folder; give what it took, and of what type decimal numbers are in its files."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as own:
        took = run(side.commands("parquet", source, folder, Path(own)))
        files = [path for path in Path(folder).rglob("*.parquet") if not path.parent.name.startswith("_dlt")]
        tables = [parquet.ParquetFile(path).read(columns=["total"]) for path in files]
    assert sum(table.num_rows for table in tables) == ROWS, side.name
    return took, str(tables[0].schema.field("total").type)


def into_sqlite(source: str, side: Side) -> tuple[Took, str]:
    """Let a side copy into a new file; give what it took."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "target.db")
        with contextlib.closing(sqlite3.connect(target)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
        took = run(side.commands("sqlite", source, str(target), Path(folder)))
        counts = [count for path in Path(folder).glob("target*.db") for count in counted(path)]
    assert ROWS in counts, (side.name, counts)
    return took, ""


def counted(path: Path) -> list[int]:
    """Give how many rows a file has of `orders`, if it has any. (dlt writes into a file beside the named one.)"""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE name = 'orders'").fetchall()
        return [connection.execute(f"SELECT count(DISTINCT id) FROM {name}").fetchone()[0] for (name,) in tables]


def measure(task: Task, copy: Callable[[Side], tuple[Took, str]], columns: Sequence[str]) -> int:
    """Measure all sides that can do a task; give the exit status."""
    here = [side for side in sides(task) if side.installed]
    for side in sides(task):
        if not side.installed:
            print(f"{TITLES[task]}: {side.name} is missing; `nox -s peers` makes its environment")
    starts = [started(side) for side in here]
    rounds = alternate(ROUNDS, [partial(copy, side) for side in here])
    seconds = [[took.seconds - start for took, _ in results] for start, results in zip(starts, rounds, strict=True)]
    title = f"{TITLES[task]}, {ROWS:,} rows: how many times as fast the library is"
    report = Report("peers", title, "rows/s", "CPU", "memory", *columns, versions=versions())
    bars = {}
    for side, times, results in zip(here, seconds, rounds, strict=True):
        bars[side.name] = ROWS / statistics.median(times)
        cpu = statistics.median(took.cpu for took, _ in results)
        memory = statistics.median(took.megabytes for took, _ in results)
        cells = f"{bars[side.name]:,.0f}", f"{cpu:.1f} s", f"{memory:,.0f} MiB", *(results[0][1] for _ in columns)
        ratio = statistics.median(theirs / ours for theirs, ours in zip(times, seconds[0], strict=True))
        report.add(f"{TITLES[task]}: {side.name}", *cells, figure=ratio, form="{:.2f} x")
    report.chart(f"peers-{task}", f"{TITLES[task]}, rows per second", bars)
    return report.finish()


def main(tasks: Sequence[str]) -> int:
    """Measure and print."""
    missed = 0
    with postgres_server(durable=True) as server:
        if "postgres" in tasks:
            missed |= measure("postgres", partial(into_postgres, server, postgres_source(server, ROWS)), [])
        if "parquet" in tasks:
            source = source_on(server, _loops_parquet.TABLE, _loops_parquet.VALUES, ROWS)
            missed |= measure("parquet", partial(into_parquet, source), ["decimals are"])
    if "sqlite" in tasks:
        with sqlite_source(ROWS) as source:
            missed |= measure("sqlite", partial(into_sqlite, source), [])
    return missed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or get_args(Task)))
