"""Rows per second into a Python function, next to the bare driver; and through one into PostgreSQL, next to COPY.

A loop by hand makes the same reads, by key, calls the same function, and moves a checkpoint in a SQLite file that is
synced to disk, as the library's store is. (So the library does not count the source, which the loop does not either;
and there are so many rows that its start, which has a benchmark of its own, takes a small part.) Where rows are
transformed on their way from PostgreSQL to PostgreSQL, a sink of a few lines takes them as the text of COPY, changes
one value of every row, and writes them in the transaction of the checkpoint; beside it stands one COPY into another,
which changes nothing and has no checkpoint.

`RESUMABLE_SYNC_BENCH_ROWS` and `RESUMABLE_SYNC_BENCH_ROUNDS` change the numbers.
"""

import contextlib
import os
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from typing import Any

from benchmarks import _loops
from benchmarks._common import alternate, nothing, postgres_server, slowdown
from benchmarks._report import Report
from benchmarks._tables import plain, postgres_source, sqlite_source
from sqlalchemy import Connection
from typing_extensions import override

from resumable_sync import Batch, Format, FormattingSink, Job, Sink, run_full_sync
from resumable_sync.connectors.sql import SQLConnector
from resumable_sync.stores.sql import SQLJobStore

ROWS = int(os.environ.get("RESUMABLE_SYNC_BENCH_ROWS", "2000000"))
ROUNDS = int(os.environ.get("RESUMABLE_SYNC_BENCH_ROUNDS", "5"))
SIZES = (1_000, 10_000)
PAGE = "SELECT * FROM orders WHERE id > {0} ORDER BY id LIMIT {0}"
FORM = "{:.2f} x"

Fetch = Callable[[int, int], Sequence[tuple[Any, ...]]]


def by_hand(fetch: Fetch, size: int) -> None:
    """Read all pages, call the function, and move a checkpoint after each."""
    with tempfile.TemporaryDirectory() as folder, contextlib.closing(sqlite3.connect(f"{folder}/store.db")) as store:
        store.execute("PRAGMA journal_mode=WAL")
        store.execute("PRAGMA synchronous=FULL")
        store.execute(_loops.CHECKPOINT)
        store.execute("INSERT INTO checkpoint VALUES ('orders', 1, 0, 0)")
        store.commit()
        place = -1
        while rows := fetch(place, size):
            place = rows[-1][0]
            take(rows)
            store.execute(_loops.MOVE_SQLITE, (place, len(rows)))
            store.commit()
        ((records,),) = store.execute("SELECT records FROM checkpoint").fetchall()
    assert records == ROWS


def take(_rows: Sequence[Any]) -> None:
    """Do nothing with rows."""


def sqlite_by_hand(source: str, size: int) -> None:
    """Read with sqlite3 alone."""
    with contextlib.closing(sqlite3.connect(source)) as connection:
        by_hand(lambda place, limit: connection.execute(PAGE.format("?"), (place, limit)).fetchall(), size)


def postgres_by_hand(source: str, size: int) -> None:
    """Read with psycopg alone."""
    import psycopg

    with psycopg.connect(source, autocommit=True) as connection:
        page = PAGE.format("%s").encode()
        by_hand(lambda place, limit: connection.execute(page, (place, limit)).fetchall(), size)


def library(url: str, size: int) -> None:
    """Read with the library."""
    with (
        tempfile.TemporaryDirectory() as folder,
        SQLJobStore(f"sqlite:///{folder}/store.db") as store,
        contextlib.closing(SQLConnector(url, "orders")) as connector,
    ):
        result = run_full_sync("orders", connector, nothing, store=store, batch_size=size, count=False)
    assert result.records == ROWS


class Shouting(Sink[Any], FormattingSink):
    """Writes rows of text, each with one value in capitals."""

    transactional, idempotent = True, False
    known_formats = ("postgresql-copy-text",)

    @override
    def takes(self, format_: Format, _job: Job, /) -> bool:
        """Take the text of COPY."""
        return format_.name in self.known_formats

    @override
    def begin(self, job: Job, connection: Connection | None) -> None:
        pass

    @override
    def write(self, batch: Batch[Any], connection: Connection | None) -> None:
        assert connection is not None
        driver_connection: Any = connection.connection.driver_connection
        with driver_connection.cursor().copy("COPY orders FROM STDIN") as copy:
            rows = map(shout, batch.records)
            while some := b"".join(islice(rows, 500)):  # so that the server writes them while the next are changed
                copy.write(some)

    @override
    def complete(self, job: Job, connection: Connection | None) -> None:
        pass


def shout(line: bytes) -> bytes:
    """Give a row with its status in capitals, unless it is NULL or has a character that COPY escapes."""
    fields = line.split(b"\t", 3)
    if b"\\" in fields[2]:  # NULL, or an escape
        return line
    fields[2] = fields[2].upper()
    return b"\t".join(fields)


def transform(source: str, target: str, size: int) -> None:
    """Copy through a function."""
    with SQLJobStore(target) as store, contextlib.closing(SQLConnector(source, "orders")) as connector:
        store.delete("orders")
        result = run_full_sync("orders", connector, Shouting(), store=store, batch_size=size)
    assert result.records == ROWS
    assert result.guarantee == "exactly_once"


def into_empty(target: str, copy: Callable[[], None]) -> float:
    """Copy into an empty table; give the seconds."""
    import psycopg

    with psycopg.connect(target) as connection:
        connection.execute("DROP TABLE IF EXISTS orders")
        connection.execute(f"CREATE TABLE orders {_loops.COLUMNS}".encode())
    return timed(copy)


def timed(copy: Callable[[], None]) -> float:
    """Give the seconds that something takes."""
    begun = time.perf_counter()
    copy()
    return time.perf_counter() - begun


def rate(times: Sequence[float]) -> str:
    """Write the median rate."""
    return f"{ROWS / statistics.median(times):,.0f}"


def measure(report: Report, name: str, ours: Callable[[int], None], hand: Callable[[int], None]) -> None:
    """Measure into a function, with batches of each size."""
    for size in SIZES:
        sides = [partial(timed, partial(side, size)) for side in (ours, hand)]
        our_times, times = alternate(ROUNDS, sides)
        line = f"{name} to a function, batches of {size:,}, against the loop"
        report.add(line, rate(our_times), rate(times), figure=1 / slowdown(our_times, times), form=FORM)


def main() -> int:
    """Measure and print."""
    report = Report("functions", f"Rows per second of {ROWS:,} rows through a function", "library", "by hand")
    with sqlite_source(ROWS) as path:
        measure(report, "SQLite", partial(library, f"sqlite:///{path}"), partial(sqlite_by_hand, path))
    with postgres_server(durable=True) as server:
        source = postgres_source(server, ROWS)
        measure(report, "PostgreSQL", partial(library, source), partial(postgres_by_hand, source))
        target = server.create_database()
        for size in SIZES:
            copies = partial(transform, source, target, size), partial(_loops.postgres_stream, source, plain(target))
            ours, stream = alternate(ROUNDS, [partial(into_empty, plain(target), copy) for copy in copies])
            line = f"PostgreSQL to PostgreSQL through a function, batches of {size:,}, against the stream"
            report.add(line, rate(ours), rate(stream), figure=1 / slowdown(ours, stream), form=FORM)
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
