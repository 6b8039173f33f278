"""Whether records come in the order of their keys, as far as that can be told without knowing how an API compares."""

import re
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, NoReturn

import attrs

from resumable_sync._errors import CursorError

__all__ = ["Order"]

_Key = Sequence[str | int]


_TIME = re.compile(r"\d{4}-\d\d-\d\d")
_CASELESS = re.compile(r"[\d\sTZ:.,+/-]*")
_TWICE = timedelta(hours=2)
"""How far the wall clock may go back at the end of summer; times without an offset from UTC follow it."""


@attrs.frozen
class Order:
    """What is known of the order of a read.

    Attributes:
        descending: Whether keys fall; None: nothing has shown it yet.
        seen: The keys of the page before, where their order is the API's own.
    """

    descending: bool | None = None
    seen: frozenset[str | int] = frozenset()

    def checked(self, after: _Key | None, keys: Sequence[_Key], names: Sequence[str], *, unique: bool) -> "Order":
        """Give what is known behind a page.

        Args:
            after: The key that the page begins behind; None is the beginning.
            keys: Those of its records.
            names: The parameters of the key, for the message.
            unique: Whether no two records have the same key.

        Raises:
            CursorError: If records come in another order than that of their keys, so that some may never come.
        """
        firsts = [key[0] for key in (*([] if after is None else [after]), *keys)]
        values, slack = _comparable(firsts)
        if values:
            return self._one_way(values, slack, names)
        # Of two texts that a collation takes for the same, the first may come again behind the second.
        if not (unique and len(names) == 1) and not all(_CASELESS.fullmatch(str(one)) for one in firsts):
            return self
        runs = [one for at, one in enumerate(firsts) if not at or one != firsts[at - 1]]
        if len(set(runs)) < len(runs) or not self.seen.isdisjoint(runs[1:]):
            _refuse(names, "come again behind others")
        return attrs.evolve(self, seen=frozenset(runs[:-1]))

    def _one_way(self, values: Sequence[Any], slack: Any, names: Sequence[str]) -> "Order":
        descending, peak = self.descending, values[0]
        for value in values[1:]:
            if abs(value - peak) > slack:
                if descending is None:
                    descending = value < peak
                if descending != (value < peak):
                    _refuse(names, "go up and down")
                peak = value
            elif descending is not None:
                peak = min(value, peak) if descending else max(value, peak)
        return attrs.evolve(self, descending=descending)


def _refuse(names: Iterable[str], what: str) -> NoReturn:
    asked = " and ".join(map(repr, names))
    msg = (
        f"the API does not give its records in the order of their keys: those for {asked} {what}, and going on behind "
        "one of them loses what comes late; ask for that order in params, or page in another way; where the key only "
        "names the record to go on behind, give KeysetPaging(ordered=False)"
    )
    raise CursorError(msg)


def _comparable(keys: Sequence[str | int]) -> tuple[Sequence[Any], Any]:
    """Give what keys are compared by, if everybody compares them so, and how far that may go back; else nothing."""
    if all(type(key) is int for key in keys):
        return keys, 0
    times = [_time(key) for key in keys]
    known = [time for time in times if time is not None]
    zoned = {time.tzinfo is not None for time in known}
    if len(known) < len(times) or len(zoned) > 1:
        return [], 0
    return known, timedelta() if True in zoned else _TWICE


def _time(key: str | int) -> datetime | None:
    try:
        return datetime.fromisoformat(key) if isinstance(key, str) and _TIME.match(key) else None
    except ValueError:
        return None
