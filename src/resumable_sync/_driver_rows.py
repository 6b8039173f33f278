"""Rows that are known to be as the driver gave them, so that nobody needs to look at each of their values again."""

from collections.abc import Sequence
from operator import is_
from typing import Any

from typing_extensions import override

__all__ = ["SQLITE_KINDS", "DriverRows"]

Row = tuple[Any, ...]

SQLITE_KINDS = frozenset({type(None), int, float, str, bytes})
"""Types of the values that SQLite's driver gives; exactly these, and no float of them is NaN, for which SQLite has
NULL."""


class DriverRows(list[Row]):
    """Rows of SQLite as its driver gave them: plain tuples of one length, of values of `SQLITE_KINDS`.

    It is a list like any other, and whoever has it may put other rows into it. `untouched` tells whether that was done:
    tuples and such values cannot be changed, so the very tuples are the same rows.

    Args:
        rows: The driver's own list, which nobody else has or changes: to copy it once more takes a look at every row.
    """

    __slots__ = ("_given",)

    def __init__(self, rows: Sequence[Row]) -> None:
        super().__init__(rows)
        self._given = rows

    def untouched(self) -> bool:
        """Whether the list holds the driver's own rows, in their order, and no others."""
        return len(self) == len(self._given) and all(map(is_, self, self._given))

    @override
    def __reduce__(self) -> tuple[Any, ...]:
        return list, (list(self),)  # in another process they are anybody's
