"""Reading ahead and the size of batches: what each choice gives, next to the one that is made where nobody says.

Every line is a copy with one setting of `prefetch` or `batch_size`; its figure is how many times as fast it is as the
same copy with the default. An API that takes 20 ms for every answer is read into a function that waits as long for
every batch, as one would that sends it on.
"""

import contextlib
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from benchmarks._common import alternate, postgres_server, slowdown
from benchmarks._report import Report
from benchmarks._tables import postgres_source
from benchmarks.http import LATENCY, PAGE, RECORDS, api
from benchmarks.throughput import into_empty, rate, sqlite_files

from resumable_sync import Batch, run_full_sync
from resumable_sync.connectors.http import HTTPConnector, OffsetPaging
from resumable_sync.connectors.sql import SQLConnector
from resumable_sync.sinks.sql import SQLSink
from resumable_sync.stores.memory import MemoryJobStore
from resumable_sync.stores.sql import SQLJobStore

ROUNDS = 5
FAST_ROWS = 1_000_000
VALUE_ROWS = 300_000
SIZES = (1_000, 3_000, 10_000, 30_000)


def copy(source: str, target: str, rows: int, **options: Any) -> None:
    """Copy with the library."""
    with SQLJobStore(target) as store, contextlib.closing(SQLConnector(source, "orders")) as connector:
        store.delete("orders")
        result = run_full_sync("orders", connector, SQLSink("orders", mode="append"), store=store, **options)
    assert result.records == rows


def forward(url: str, **options: Any) -> float:
    """Read the API into a function that waits; give the seconds."""

    def send(_batch: Batch[Any]) -> None:
        time.sleep(LATENCY)

    begun = time.perf_counter()
    connector = HTTPConnector(url, records="data.items", paging=OffsetPaging(page_size=PAGE))
    result = run_full_sync("orders", connector, send, store=MemoryJobStore(), batch_size=PAGE, **options)
    assert result.records == RECORDS
    return time.perf_counter() - begun


def compare(
    report: Report, name: str, rows: int, run: Callable[..., float], settings: Sequence[Mapping[str, Any]]
) -> None:
    """Measure each setting next to the default, which comes first."""
    default, *others = alternate(ROUNDS, [partial(run, **setting) for setting in ({}, *settings)])
    report.add(f"{name}, by default", rate(default, rows), figure=1.0, form="{:.2f} x")
    for setting, times in zip(settings, others, strict=True):
        ((option, value),) = setting.items()
        line = f"{name}, {option}={value:,}"
        report.add(line, rate(times, rows), figure=1 / slowdown(times, default), form="{:.2f} x")


def measure_copies(report: Report, name: str, source: str, target: str, ahead: Sequence[int]) -> None:
    """Measure a copy by the fast path, with each number of pages ahead and each size; and one as Python values."""

    def run(rows: int = FAST_ROWS, **options: Any) -> float:
        return into_empty(target, partial(copy, source, target, rows, **options), rows)

    pages = [{"prefetch": number} for number in ahead]
    compare(report, name, FAST_ROWS, run, [*pages, *({"batch_size": size} for size in SIZES)])


def measure_values(report: Report, name: str, source: str, target: str) -> None:
    """Measure a copy as Python values, with and without reading ahead."""

    def run(**options: Any) -> float:
        return into_empty(target, partial(copy, source, target, VALUE_ROWS, fast_path=False, **options), VALUE_ROWS)

    compare(report, f"{name} as Python values", VALUE_ROWS, run, [{"prefetch": number} for number in (0, 1)])


def main() -> int:
    """Measure and print."""
    report = Report("defaults", "Reading ahead and batch size, against the default", "rows/s")
    name = "SQLite to SQLite"
    with sqlite_files(FAST_ROWS) as (source, target):
        measure_copies(report, name, f"sqlite:///{source}", f"sqlite:///{target}", (0, 1))
    with sqlite_files(VALUE_ROWS) as (source, target):
        measure_values(report, name, f"sqlite:///{source}", f"sqlite:///{target}")
    name = "PostgreSQL to PostgreSQL"
    with postgres_server(durable=True) as server:
        target = server.create_database()
        measure_copies(report, name, postgres_source(server, FAST_ROWS), target, (0, 1, 4))
        measure_values(report, name, postgres_source(server, VALUE_ROWS), target)
    with api() as url:
        compare(report, "HTTP to a function, each 20 ms", RECORDS, partial(forward, url), [{"prefetch": 0}])
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
