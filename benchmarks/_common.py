"""What the benchmarks share: rounds that alternate between sides, ports that do nothing, real servers."""

import contextlib
import gc
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar

from typing_extensions import override

from resumable_sync import Batch, Page
from resumable_sync._protocols import Connector

__all__ = ["HERE", "ReadyPages", "alternate", "nothing", "postgres_server", "servers", "slowdown"]

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
