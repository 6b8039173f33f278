"""Rows per second of a copy, next to loops written by hand, and to what the database can do at best.

The library's side is the README's: SQLConnector to SQLSink in the store's transaction, with all its checks. The loops
page by key, write, move a checkpoint and commit; the best ones do as the library does: between two databases of
PostgreSQL one takes the text of COPY, and a thread that reads ahead, and from one SQLite file to another one attaches
the source and inserts a window of its key at a time. PostgreSQL's best is one COPY into another, in one transaction,
which starts anew when it dies; SQLite's is one INSERT from another file, attached, which does too.
"""

import contextlib
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from benchmarks._common import alternate, postgres_server, slowdown
from benchmarks._loops import (
    CHECKPOINT,
    COLUMNS,
    SOURCE,
    VALUES,
    postgres_by_hand,
    postgres_stream,
    postgres_text_by_hand,
    sqlite_attached,
    sqlite_by_hand,
    sqlite_windows_by_hand,
)
from benchmarks._report import Report
from benchmarks._tables import plain, postgres_source
from sqlalchemy import create_engine

from resumable_sync import run_full_sync
from resumable_sync.connectors.sql import SQLConnector
from resumable_sync.sinks.sql import SQLSink
from resumable_sync.stores._durability import Durability
from resumable_sync.stores.sql import SQLJobStore

ROWS = 500_000
SERVER_ROWS = 1_000_000
"""For what needs half of the time; and so that the start, which has a benchmark of its own, takes a small part."""
ATTACHED_ROWS = 2_000_000
"""For what needs but a quarter."""
ROUNDS = 5
SIZES = (1_000, 10_000)
FORM = "{:.2f} x"


def library(
    source: str,
    target: str,
    size: int,
    durability: Durability = "full",
    *,
    rows: int = ROWS,
    fast_path: bool = True,
) -> None:
    """Copy with the library."""
    with (
        SQLJobStore(target, durability=durability) as store,
        contextlib.closing(SQLConnector(source, "orders")) as connector,
    ):
        store.delete("orders")
        sink = SQLSink("orders", mode="append")
        result = run_full_sync("orders", connector, sink, store=store, batch_size=size, fast_path=fast_path)
    assert result.records == rows


def into_empty(url: str, copy: Callable[[], None], rows: int = ROWS) -> float:
    """Copy so many rows into an empty target; give the seconds."""
    engine = create_engine(url)
    with engine.begin() as connection:
        for statement in (
            "DROP TABLE IF EXISTS orders",
            "DROP TABLE IF EXISTS checkpoint",
            f"CREATE TABLE orders {COLUMNS}",
            CHECKPOINT,
            "INSERT INTO checkpoint VALUES ('orders', 1, 0, 0)",
        ):
            connection.exec_driver_sql(statement)
    begun = time.perf_counter()
    copy()
    seconds = time.perf_counter() - begun
    with engine.begin() as connection:
        (count,) = connection.exec_driver_sql("SELECT count(*) FROM orders").one()
    assert count == rows
    engine.dispose()
    return seconds


def rate(times: Sequence[float], rows: int = ROWS) -> str:
    """Write the median rate."""
    return f"{rows / statistics.median(times):,.0f}"


@contextlib.contextmanager
def sqlite_files(rows: int) -> Iterator[tuple[Path, Path]]:
    """Give a source of so many rows and a target, both in WAL mode."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "source.db"), Path(folder, "target.db")
        numbers = f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})"
        for path in (source, target):
            with contextlib.closing(sqlite3.connect(path)) as connection:
                connection.execute("PRAGMA journal_mode=WAL")
        with contextlib.closing(sqlite3.connect(source)) as connection, connection:
            connection.execute(f"CREATE TABLE orders {SOURCE}")
            connection.execute(f"INSERT INTO orders {numbers} SELECT {VALUES.format(time='TEXT')} FROM n")
        yield source, target


def measure_sqlite(report: Report) -> None:
    """Measure SQLite to SQLite, by way of Python and without."""
    with sqlite_files(ROWS) as (source, target):
        urls = f"sqlite:///{source}", f"sqlite:///{target}"
        for size in SIZES:
            both = partial(library, *urls, size, fast_path=False), partial(sqlite_by_hand, source, target, size)
            ours, by_hand = alternate(ROUNDS, [partial(into_empty, urls[1], copy) for copy in both])
            name = f"SQLite to SQLite by way of Python, batches of {size:,}, against the loop"
            report.add(name, rate(ours), rate(by_hand), "", figure=1 / slowdown(ours, by_hand), form=FORM)
    with sqlite_files(ATTACHED_ROWS) as (source, target):
        urls = f"sqlite:///{source}", f"sqlite:///{target}"
        for size in SIZES:
            copies = (
                partial(library, *urls, size, rows=ATTACHED_ROWS),
                partial(sqlite_windows_by_hand, source, target, size),
                partial(sqlite_attached, source, target),
            )
            sides = [partial(into_empty, urls[1], copy, ATTACHED_ROWS) for copy in copies]
            ours, best, attached = alternate(ROUNDS, sides)
            library_rate, best_rate, at_once = (rate(times, ATTACHED_ROWS) for times in (ours, best, attached))
            for line, rates, one, other in (
                ("against one INSERT", (library_rate, "", at_once), ours, attached),
                ("against the best loop", (library_rate, best_rate, ""), ours, best),
                ("the best loop against one INSERT", ("", best_rate, at_once), best, attached),
            ):
                name = f"SQLite to SQLite, batches of {size:,}, {line}"
                report.add(name, *rates, figure=1 / slowdown(one, other), form=FORM)


def measure_postgres(report: Report) -> None:
    """Measure PostgreSQL to PostgreSQL, both in one server."""
    with postgres_server(durable=True) as server:
        source = postgres_source(server, SERVER_ROWS)
        urls = source, server.create_database()
        target = plain(urls[1])
        for size in SIZES:
            copies = (
                partial(library, *urls, size, rows=SERVER_ROWS),
                partial(postgres_by_hand, source, target, size),
                partial(postgres_text_by_hand, source, target, size),
                partial(postgres_stream, source, target),
                partial(library, *urls, size, "relaxed", rows=SERVER_ROWS),
            )
            sides = [partial(into_empty, urls[1], copy, SERVER_ROWS) for copy in copies]
            ours, by_hand, best, stream, relaxed = alternate(ROUNDS, sides)
            name = f"PostgreSQL to PostgreSQL, batches of {size:,}"
            for other, times, bare in (
                ("the stream", stream, ("", rate(stream, SERVER_ROWS))),
                ("the loop", by_hand, (rate(by_hand, SERVER_ROWS), "")),
                ("the best loop", best, (rate(best, SERVER_ROWS), "")),
            ):
                rates = rate(ours, SERVER_ROWS), *bare
                report.add(f"{name}, against {other}", *rates, figure=1 / slowdown(ours, times), form=FORM)
            best_of_all = rate(best, SERVER_ROWS), rate(stream, SERVER_ROWS)
            report.add(
                f"{name}, the best loop against the stream",
                "",
                *best_of_all,
                figure=1 / slowdown(best, stream),
                form=FORM,
            )
            rates = rate(relaxed, SERVER_ROWS), "", ""
            report.add(f"{name}, relaxed against durable", *rates, figure=1 / slowdown(relaxed, ours), form=FORM)


def main() -> int:
    """Measure and print."""
    report = Report("throughput", "Rows per second of a copy", "library", "loop by hand", "at once")
    measure_sqlite(report)
    measure_postgres(report)
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
