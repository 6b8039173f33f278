"""The anchor of a cursor: a digest of the last row delivered, by which a resume sees whether it is there as it was."""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

__all__ = ["DIGEST_LENGTH", "row_digest"]

DIGEST_LENGTH = 8
"""Hexadecimal digits: enough to notice a change but once in four billion, too few to tell a row from others by it."""

_MICROSECOND = timedelta(microseconds=1)
_AS_THEY_ARE = frozenset({str, int, float, type(None)})


def row_digest(row: Sequence[Any], places: Sequence[int]) -> str:
    """Give the digest of a row: the same in every process, for every driver and time zone of the session.

    Args:
        row: Its values.
        places: Where its columns stand, in an order that does not depend on that of the row.
    """
    values = list(map(row.__getitem__, places))
    if not _AS_THEY_ARE.issuperset(map(type, values)):
        values = [_plain(value) for value in values]
    text = repr(values).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=DIGEST_LENGTH // 2, person=b"resumable_sync").hexdigest()


def _plain(value: Any) -> Any:
    """Give a value as text, numbers or lists of them, in which drivers do not differ."""
    kind: Any = type(value)
    if kind in _AS_THEY_ARE:
        return value
    for types, convert in _CONVERSIONS:
        if isinstance(value, types):
            return convert(value)
    # The repr of an object without its own holds an address, which is another one in every process.
    nameless = {kind.__str__, kind.__repr__} == {object.__str__, object.__repr__}
    return kind.__name__ if nameless else str(value)


def _mapping(value: Mapping[Any, Any]) -> Any:
    return sorted((str(name), repr(_plain(part))) for name, part in value.items())


_CONVERSIONS: list[tuple[Any, Any]] = [
    (bool, int),
    (int, int),
    (float, float),
    (str, str),
    ((bytes, bytearray, memoryview), bytes),
    ((Decimal, UUID), str),
    (datetime, lambda value: (value if value.tzinfo is None else value.astimezone(UTC)).isoformat()),
    ((date, time), lambda value: value.isoformat()),
    (timedelta, lambda value: value // _MICROSECOND),
    (Mapping, _mapping),
    ((list, tuple), lambda value: [_plain(part) for part in value]),
    ((set, frozenset), lambda value: sorted(repr(_plain(part)) for part in value)),
]
