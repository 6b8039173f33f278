"""The engine alone: time per batch where connector, sink and store cost nothing.

The bound holds for CPU time, of all threads, since the wall clock shows what else the machine does.
"""

import statistics
import sys
import time
from collections.abc import Callable

from benchmarks._common import ReadyPages, alternate, nothing
from benchmarks._report import Report

from resumable_sync import run_full_sync
from resumable_sync.stores.memory import MemoryJobStore

BATCHES = 10_000
ROUNDS = 9


def side(prefetch: int) -> Callable[[], tuple[float, float]]:
    """Give a function that runs a sync and gives microseconds per batch, by CPU and by wall clock."""

    def run() -> tuple[float, float]:
        connector = ReadyPages(["record"], BATCHES)
        cpu, wall = time.process_time(), time.perf_counter()
        run_full_sync("bench", connector, nothing, store=MemoryJobStore(), prefetch=prefetch)
        scale = 1e6 / BATCHES
        return (time.process_time() - cpu) * scale, (time.perf_counter() - wall) * scale

    return run


def main() -> int:
    """Measure and print."""
    report = Report("engine", "Engine alone, microseconds per batch", "wall")
    depths = (0, 1)
    for prefetch, results in zip(depths, alternate(ROUNDS, [side(prefetch) for prefetch in depths]), strict=True):
        cpu, wall = (statistics.median(times) for times in zip(*results, strict=True))
        report.add(f"prefetch={prefetch}, CPU", f"{wall:.1f}", figure=cpu, form="{:.1f}")
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
