"""Rows per second from PostgreSQL into Parquet files, next to a loop written by hand.

The library's side has all its checks, exact types, and a checkpoint with every batch: a file for each, synced to disk.
The loop is what people write: a server-side cursor, arrays of its rows, one file, and no checkpoint; it starts anew
when it dies. The second loop writes a file for each batch, as the library does, and still has no checkpoint.
"""

import contextlib
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from decimal import Decimal
from functools import partial
from pathlib import Path

import pyarrow as pa
from benchmarks._common import alternate, postgres_server, slowdown
from benchmarks._loops_parquet import TABLE, VALUES, parquet_by_hand
from benchmarks._report import Report
from benchmarks._tables import source_on
from pyarrow import parquet

from resumable_sync import run_full_sync
from resumable_sync.connectors.arrow import ArrowConnector
from resumable_sync.connectors.sql import SQLConnector
from resumable_sync.sinks.parquet import ParquetSink
from resumable_sync.stores.sql import SQLJobStore

ROWS = 1_000_000
"""So many that the start, which has a benchmark of its own, takes a small part."""
ROUNDS = 5
SIZES = (10_000, 50_000)
FORM = "{:.2f} x"

Connect = Callable[[str, str], SQLConnector | ArrowConnector]


def library(source: str, target: Path, size: int, connect: Connect = SQLConnector) -> None:
    """Copy with the library."""
    with (
        SQLJobStore(f"sqlite:///{target.parent}/store.db") as store,
        contextlib.closing(connect(source, "orders")) as connector,
    ):
        store.delete("orders")
        result = run_full_sync("orders", connector, ParquetSink(target), store=store, batch_size=size)
    assert result.records == ROWS


def into_empty(target: Path, copy: Callable[[], None]) -> float:
    """Copy into an empty target; give the seconds."""
    shutil.rmtree(target, ignore_errors=True)
    begun = time.perf_counter()
    copy()
    seconds = time.perf_counter() - begun
    files = [parquet.read_table(file, columns=["id", "total"]) for file in sorted(target.glob("*.parquet"))]
    table = pa.concat_tables(files)
    assert table.num_rows == ROWS
    assert table.schema.field("total").type == pa.decimal128(12, 2)
    assert max(table["total"].to_pylist()) == Decimal(ROWS) / 100
    return seconds


def rate(times: Sequence[float]) -> str:
    """Write the median rate."""
    return f"{ROWS / statistics.median(times):,.0f}"


def measure(report: Report, url: str, folder: Path) -> None:
    """Measure from a server into files."""
    target = folder / "orders"
    for size in SIZES:
        copies = (
            partial(library, url, target, size),
            partial(library, url, target, size, ArrowConnector),
            partial(parquet_by_hand, url, target, size, a_file_each=False),
            partial(parquet_by_hand, url, target, size, a_file_each=True),
        )
        ours, arrow, loop, files = alternate(ROUNDS, [partial(into_empty, target, copy) for copy in copies])
        rates = rate(ours), rate(loop), rate(files)
        by_arrow = rate(arrow), rate(loop), rate(files)
        name = f"PostgreSQL to Parquet, batches of {size:,}"
        report.add(f"{name}, against the loop", *rates, figure=1 / slowdown(ours, loop), form=FORM)
        report.add(
            f"{name}, by ArrowConnector, against the loop", *by_arrow, figure=1 / slowdown(arrow, loop), form=FORM
        )
        report.add(f"{name}, against a file for each", *rates, figure=1 / slowdown(ours, files), form=FORM)


def main() -> int:
    """Measure and print."""
    report = Report(
        "parquet",
        f"Rows per second of a copy of {ROWS:,} rows into Parquet files",
        "library",
        "loop by hand",
        "a file for each",
    )
    with postgres_server(durable=True) as server, tempfile.TemporaryDirectory() as folder:
        measure(report, source_on(server, TABLE, VALUES, ROWS), Path(folder))
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
