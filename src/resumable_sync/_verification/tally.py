"""What a verification has found so far, and the place it has come to: the values that its cursor and records hold."""

import datetime as dt
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any, Literal, get_args
from uuid import UUID

import attrs

from resumable_sync._errors import CursorError

__all__ = ["Difference", "DifferenceKind", "Finding", "Place", "Tally", "plain_key"]

DifferenceKind = Literal["missing", "extra", "different"]
Phase = Literal["walk", "tail", "end"]

_CURSOR_TYPES = (bool, int, float, str, bytes, Decimal, dt.datetime, dt.date, dt.time, dt.timedelta, UUID)


def plain_key(key: Iterable[Any]) -> list[Any]:
    """Give a key in the types of the cursor codec; other values as their text."""
    return [value if value is None or type(value) in _CURSOR_TYPES else str(value) for value in key]


@attrs.frozen(kw_only=True)
class Difference:
    """One row in which source and target differ.

    Attributes:
        kind: `"missing"` (only in the source), `"extra"` (only in the target) or `"different"`.
        key: Its key, as the connector gave it, of the types of the cursor codec; other values as their text.
        columns: The columns that differ, if it is different.
    """

    kind: DifferenceKind
    key: tuple[Any, ...]
    columns: tuple[str, ...] = ()

    def encoded(self) -> list[Any]:
        """Give it in the types of the cursor codec."""
        return [self.kind, list(self.key), list(self.columns)]

    @classmethod
    def decoded(cls, value: Any) -> "Difference":
        """Give back what `encoded` gave."""
        kind, key, columns = value
        return cls(kind=kind, key=tuple(key), columns=tuple(columns))


@attrs.frozen(kw_only=True)
class Tally:
    """Rows counted so far.

    Attributes:
        equal: Rows that are the same on both sides.
        missing: Rows only the source has.
        extra: Rows only the target has.
        different: Rows of both that differ.
        kept: Differences that were kept as values.
    """

    equal: int = 0
    missing: int = 0
    extra: int = 0
    different: int = 0
    kept: int = 0

    @property
    def differing(self) -> int:
        """Rows in which the sides differ."""
        return self.missing + self.extra + self.different

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(
            equal=self.equal + other.equal,
            missing=self.missing + other.missing,
            extra=self.extra + other.extra,
            different=self.different + other.different,
            kept=self.kept + other.kept,
        )


@attrs.frozen
class Finding:
    """What the comparison of some rows brought.

    Attributes:
        tally: The rows.
        differences: Where they differ.
    """

    tally: Tally = attrs.field(factory=Tally)
    differences: tuple[Difference, ...] = ()

    def __add__(self, other: "Finding") -> "Finding":
        return Finding(self.tally + other.tally, self.differences + other.differences)


@attrs.frozen(kw_only=True)
class Place:
    """Where a verification stands.

    Attributes:
        phase: `"walk"` through the source, `"tail"` of the target behind the source's last key, or `"end"`.
        source: Where reading the source goes on: its cursor, or the key before.
        target: The target's rows up to this key were looked at; None is the beginning.
        tally: What was found up to here.
    """

    phase: Phase = "walk"
    source: Any = None
    target: Sequence[Any] | None = None
    tally: Tally = attrs.field(factory=Tally)

    def cursor(self) -> list[Any]:
        """Give it as a cursor, such as `["walk", [4711], [4711], [4711, 0, 0, 0, 0]]`."""
        return [self.phase, self.source, self.target, list(attrs.astuple(self.tally))]

    @classmethod
    def of(cls, cursor: Any) -> "Place":
        """Give the place of a cursor; None is the beginning.

        Raises:
            CursorError: If it is no cursor of a verification.
        """
        if cursor is None:
            return cls()
        if not isinstance(cursor, list) or len(cursor) != 4 or cursor[0] not in get_args(Phase):  # noqa: PLR2004
            msg = "the stored cursor is none of a verification; give verify_full_sync a job_id that is no sync's"
            raise CursorError(msg)
        phase, source, target, counts = cursor
        names = [field.name for field in attrs.fields(Tally)]
        return cls(phase=phase, source=source, target=target, tally=Tally(**dict(zip(names, counts, strict=True))))
