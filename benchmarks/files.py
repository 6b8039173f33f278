"""A large CSV file: how soon a job goes on near its end, and how much memory reading takes.

The file has 256 MB; `RESUMABLE_SYNC_BENCH_MB=2048` makes it 2 GB. It is read from the disk's cache, as far as that
holds it. Throughput is compared with a bare loop over the `csv` module.
"""

import csv
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks._common import alternate
from benchmarks._report import Report

from resumable_sync.connectors.files import CSVConnector

MEGABYTES = int(os.environ.get("RESUMABLE_SYNC_BENCH_MB", "256"))
BATCH_SIZE = 10_000
ROUNDS = 5
DEPTH = 0.99
SHORT = 200_000
"""Rows of the file whose reading is compared with a bare loop."""

PEAK = """
import resource, sys
from pathlib import Path
from resumable_sync.connectors.files import CSVConnector
read = 0
for page in CSVConnector(sys.argv[1]).read(None, int(sys.argv[3])):
    read += len(page.records)
    if read >= int(sys.argv[2]):
        break
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def make(path: Path, size: int) -> int:
    """Write a CSV file of about `size` bytes; give the number of its records."""
    block = "".join(
        f'{number:012d},customer {number},"{number % 97}.50, ""EUR""",{"x" * 40}\n' for number in range(9_999)
    )
    count = max(1, size // len(block))
    with path.open("w", encoding="ascii") as file:
        file.write("id,customer,total,note\n")
        for _ in range(count):
            file.write(block)
    return 9_999 * count


def cursor_at(path: Path, depth: float) -> object:
    """Give the cursor of the page at a depth."""
    size = path.stat().st_size
    cursor: dict[str, list[int]] = {}
    for page in CSVConnector(path).read(None, 1_000):
        cursor = page.cursor
        if cursor["place"][0] >= depth * size:
            break
    return cursor


def resume(path: Path, cursor: object) -> Callable[[], float]:
    """Give a function that resumes with a new connector, checks the file, reads a page, and gives its milliseconds."""

    def run() -> float:
        begun = time.perf_counter()
        connector = CSVConnector(path)
        if connector.moved(cursor) is not None:
            raise AssertionError("the file moved")
        pages = connector.read(cursor, 1_000)
        if len(next(pages)) != 1_000:
            raise AssertionError("the page is short")
        seconds = time.perf_counter() - begun
        getattr(pages, "close", lambda: None)()
        return seconds * 1000

    return run


def peak(path: Path, records: int) -> float:
    """Give the most memory, in megabytes, of a process that reads so many records."""
    command = [sys.executable, "-c", PEAK, str(path), str(records), str(BATCH_SIZE)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def read(path: Path) -> Callable[[], float]:
    """Give a function that reads a file by the connector, and gives its seconds."""

    def run() -> float:
        begun = time.perf_counter()
        for _ in CSVConnector(path).read(None, BATCH_SIZE):
            pass
        return time.perf_counter() - begun

    return run


def bare(path: Path) -> Callable[[], float]:
    """Give the same with the `csv` module alone."""

    def run() -> float:
        begun = time.perf_counter()
        with path.open(newline="", encoding="utf-8") as file:
            batch = []
            for row in csv.reader(file):
                batch.append(tuple(row))
                if len(batch) == BATCH_SIZE:
                    batch = []
        return time.perf_counter() - begun

    return run


def main() -> int:
    """Run all, and print a table."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "orders.csv"
        records = make(path, MEGABYTES * 1024 * 1024)
        report = Report("files", f"A CSV file of {path.stat().st_size / 1024**2:,.0f} MiB, {records:,} records")
        (times,) = alternate(ROUNDS, [resume(path, cursor_at(path, DEPTH))])
        report.add("resume at 99 %, first 1,000 records", figure=max(times), form="{:.1f} ms")
        growth = peak(path, records) - peak(path, records // 10)
        report.add("memory, the whole less a tenth", figure=growth, form="{:.1f} MiB")
        short = Path(folder) / "short.csv"
        make(short, SHORT * 90)
        ours, loop = alternate(ROUNDS, [read(short), bare(short)])
        ratio = sorted(one / other for one, other in zip(ours, loop, strict=True))[ROUNDS // 2]
        report.add("reading, against a bare loop over csv", figure=ratio, form="{:.2f} times")
        return report.finish()


if __name__ == "__main__":
    sys.exit(main())
