"""Rows that are known to be as the driver gave them, so that nobody needs to look at each of their values again."""

from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any

from typing_extensions import override

__all__ = ["SQLITE_KINDS", "DriverRows"]

Row = tuple[Any, ...]

SQLITE_KINDS = frozenset({type(None), int, float, str, bytes})
"""Types of the values that SQLite's driver gives; exactly these, and no float of them is NaN, for which SQLite has
NULL."""


def _noting(method: Callable[..., Any]) -> Any:
    @wraps(method)
    def note(self: "DriverRows", *arguments: Any) -> Any:
        self.untouched = False
        return method(self, *arguments)

    return note


class DriverRows(list[Row]):
    """Rows of SQLite as its driver gave them: plain tuples of one length, of values of `SQLITE_KINDS`.

    It is a list like any other, and whoever has it may put other rows into it, which its methods note: to compare it
    with a second list costs a twentieth of the time in which the driver reads them. What goes past the methods is not
    noted, such as `heapq`, and compiled code that takes it for a plain list. Tuples and such values cannot be changed.

    Args:
        rows: The driver's rows.

    Attributes:
        untouched: Whether nobody put a row into it.
    """

    __slots__ = ("untouched",)

    def __init__(self, rows: Iterable[Row]) -> None:
        super().__init__(rows)
        self.untouched = True

    append = _noting(list.append)
    extend = _noting(list.extend)
    insert = _noting(list.insert)
    __setitem__ = _noting(list.__setitem__)
    __iadd__ = _noting(list.__iadd__)

    @override
    def __reduce__(self) -> tuple[Any, ...]:
        return list, (list(self),)  # in another process they are anybody's
