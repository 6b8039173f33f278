"""What the benchmarks share: rounds that alternate between sides, ports that do nothing, and a table with bounds."""

import contextlib
import gc
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar

from typing_extensions import override

from resumable_sync import Batch, Page
from resumable_sync._protocols import Connector

__all__ = ["HERE", "ReadyPages", "Report", "alternate", "nothing", "postgres_server", "servers", "slowdown"]

T = TypeVar("T")

HERE = Path(__file__).parent


def servers() -> ModuleType:
    """Give the tests' module of real database servers."""
    sys.path.append(str(HERE.parent / "tests"))
    import servers as module

    return module


@contextlib.contextmanager
def postgres_server(*, durable: bool) -> Iterator[Any]:
    """Give a PostgreSQL of our own; one of the tests' does not wait for the disk when it commits.

    Args:
        durable: Whether it does, as wherever data matters.
    """
    module = servers()

    class Durable(module.PostgresServer):  # type: ignore[misc, name-defined]
        def _command(self) -> list[str]:
            return [*super()._command(), "-c", "fsync=on", "-c", "full_page_writes=on"]

    server = Durable() if durable else module.PostgresServer()
    try:
        yield server
    finally:
        server.stop()


def alternate(rounds: int, sides: Sequence[Callable[[], T]]) -> list[list[T]]:
    """Run all sides in every round, each time in the other order, after one round that does not count.

    Returns:
        The results of each side, round by round, so that those of one round can be compared: what else the machine does
        then hits both.
    """
    results: list[list[T]] = [[] for _ in sides]
    for number in range(rounds + 1):
        order = range(len(sides))
        for place in order if number % 2 else reversed(order):
            gc.collect()
            result = sides[place]()
            if number:
                results[place].append(result)
    return results


def slowdown(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Give the median of the ratios of the rounds."""
    return statistics.median(our / their for our, their in zip(ours, theirs, strict=True))


class ReadyPages(Connector[Any], Generic[T]):
    """A connector that costs nothing: the same records in every page."""

    fingerprint = None

    def __init__(self, records: Sequence[T], pages: int, columns: Sequence[str] | None = None) -> None:
        self._records, self._pages, self._columns = records, pages, columns

    @override
    def read(self, cursor: Any, batch_size: int) -> Iterator[Page[T]]:
        records, columns = self._records, self._columns
        for number in range(cursor or 0, self._pages):
            yield Page(records, number + 1, columns)

    @override
    def count(self) -> None:
        return None


def nothing(_batch: Batch[Any]) -> None:
    """Do nothing with a batch."""


class Report:
    """A table of what was measured, and whether each bound was kept.

    Args:
        title: What is measured.
        columns: Headings between the first column and the last two, which are the figure and its bound.
    """

    def __init__(self, title: str, *columns: str) -> None:
        self._title = title
        self._lines = [("", *columns, "figure", "bound", "")]
        self._missed = 0

    def add(
        self,
        name: str,
        *cells: str,
        figure: float,
        form: str,
        bound: float | None = None,
        least: float | None = None,
    ) -> None:
        """Add a line.

        Args:
            name: What it is about.
            cells: One for each column.
            figure: What the bound is for.
            form: How to write it, such as `"{:.2f} ms"`.
            bound: The most it may be; None: for information.
            least: The least it may be, instead.
        """
        limit = bound if least is None else least
        missed = limit is not None and (figure > limit if least is None else figure < limit)
        self._missed += missed
        verdict = "" if limit is None else "MISSED" if missed else "ok"
        self._lines.append((name, *cells, form.format(figure), "" if limit is None else form.format(limit), verdict))

    def finish(self) -> int:
        """Print the table; give the exit status: 1 if a bound was missed."""
        print(f"\n{self._title}")
        print(f"Python {platform.python_version()}, {time.strftime('%Y-%m-%d')}")
        widths = [max(map(len, column)) for column in zip(*self._lines, strict=True)]
        for line in self._lines:
            name, *cells = (
                cell.ljust(width) if place == 0 else cell.rjust(width)
                for place, (cell, width) in enumerate(zip(line, widths, strict=True))
            )
            print(f"  {name}  {'  '.join(cells)}".rstrip())
        return 1 if self._missed else 0
