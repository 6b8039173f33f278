"""The Arrow types of columns: by the source's types, by name, or by the values of a first batch.

Never a float for a number that was exact.
"""

import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import types

from resumable_sync._arrow.columns import pyarrow
from resumable_sync._database import plain_type
from resumable_sync._errors import ConfigurationError
from resumable_sync._protocols import Column
from resumable_sync.sinks._kinds import source_kind

__all__ = ["base_of", "inferred", "named_types", "type_of"]

MOST_DIGITS, MOST_DIGITS_WIDE = 38, 76
"""Digits of decimal128 and decimal256."""

FREE_SCALE = 18
"""Decimals of a number that is declared without any: with 20 digits before the point."""

# The order matters: a bool is an int, a datetime a date.
_BASES: list[type | tuple[type, ...]] = [
    bool,
    int,
    float,
    str,
    (bytes, bytearray, memoryview),
    Decimal,
    datetime,
    date,
    time,
    timedelta,
    UUID,
    (dict, Mapping),
    (list, tuple),
    (ipaddress.IPv4Address, ipaddress.IPv6Address),  # and interfaces, which are addresses
    (ipaddress.IPv4Network, ipaddress.IPv6Network),
]
_DECIMAL = re.compile(r"\s*decimal\s*\(\s*(\d+)\s*,\s*(\d+)\s*\)\s*")
_TIMESTAMP = re.compile(r"\s*timestamp\s*\[\s*(s|ms|us|ns)\s*,\s*(?:tz=)?([\w/+:-]+)\s*\]\s*")


def base_of(kind: type) -> type | None:
    """Give the plain type that a type of values is, or is made from; None if it is of no known one."""
    if kind.__name__ == "NaTType":
        return None  # pandas' calls itself a datetime
    for base in _BASES:
        if issubclass(kind, base):
            return base[0] if isinstance(base, tuple) else base
    return None


def named_types(given: Mapping[str, str] | None) -> dict[str, Any]:
    """Give types by their names, such as `decimal(38, 6)`, `timestamp[us, UTC]` or pyarrow's own: `int32`, `string`.

    Raises:
        ConfigurationError: If there is no such type.
    """
    return {name: _named(name, text) for name, text in (given or {}).items()}


def _named(column: str, text: object) -> Any:
    pa = pyarrow()
    if isinstance(text, str):
        number, moment = _DECIMAL.fullmatch(text), _TIMESTAMP.fullmatch(text)
        try:
            if number is not None:
                return _decimal(int(number[1]), int(number[2]))
            return pa.timestamp(moment[1], moment[2]) if moment else pa.type_for_alias(text.strip())
        except ValueError:
            pass
    msg = (
        f"types={{{column!r}: {text!r}}} names no type; name one such as 'decimal(38, 6)', 'timestamp[us, UTC]', "
        "'int64', 'double', 'string' or 'date32'"
    )
    raise ConfigurationError(msg, ("types", column))


def _decimal(precision: int, scale: int) -> Any:
    """Give a decimal type.

    Raises:
        ValueError: If there is none of so many digits.
    """
    pa = pyarrow()
    if not 0 < precision <= MOST_DIGITS_WIDE or not 0 <= scale <= precision:
        msg = f"there are no decimals of {precision} digits, {scale} of them behind the point"
        raise ValueError(msg)
    return pa.decimal128(precision, scale) if precision <= MOST_DIGITS else pa.decimal256(precision, scale)


def type_of(column: Column) -> Any:
    """Give the Arrow type of a source's column; None where the source does not know it."""
    return _of_source(column.type)


def _of_source(source: Any) -> Any:
    pa, kind = pyarrow(), source_kind(source)
    plain = {
        "boolean": pa.bool_(),
        "float": pa.float64(),
        "bytes": pa.binary(),
        "datetime": pa.timestamp("us"),
        "instant": pa.timestamp("us", tz="UTC"),
        "date": pa.date32(),
        "time": pa.time64("us"),
        "interval": pa.duration("us"),
        "unknown": None,
    }
    if kind == "integer":
        # SQLite calls its 64 bits INTEGER, too.
        unsigned = getattr(plain_type(source), "unsigned", False) and isinstance(plain_type(source), types.BigInteger)
        return pa.uint64() if unsigned else pa.int64()
    if kind == "decimal":
        return _of_numeric(plain_type(source))
    if kind == "array":
        return pa.list_(_of_source(plain_type(source).item_type) or pa.string())
    return plain.get(kind, pa.string())


def _of_numeric(source: Any) -> Any:
    precision, scale = source.precision, source.scale or 0
    if precision is None:
        return _decimal(MOST_DIGITS, FREE_SCALE)
    # PostgreSQL has scales below zero, and larger than the precision.
    digits, decimals = max(precision, scale, precision - scale), max(scale, 0)
    return _decimal(digits, decimals) if digits <= MOST_DIGITS_WIDE else _decimal(MOST_DIGITS_WIDE, MOST_DIGITS)


def inferred(name: str, values: Sequence[Any]) -> Any:
    """Give the type of a column by its values in the first batch; text if all are None.

    Raises:
        ValueError: If they are of several types, or of one that has no form in a file.
    """
    pa = pyarrow()
    bases = {base_of(kind) for kind in set(map(type, values)) - {type(None)}}
    simple = {bool: pa.bool_(), int: pa.int64(), float: pa.float64(), bytes: pa.binary(), date: pa.date32()}
    simple |= {time: pa.time64("us"), timedelta: pa.duration("us")}
    if bases == {int, float}:
        return pa.float64()
    if bases in ({Decimal}, {Decimal, int}):
        return _of_decimals(value for value in values if value is not None)
    if bases == {datetime}:
        zoned = {value.tzinfo is not None for value in values if value is not None}
        if len(zoned) == 1:
            return pa.timestamp("us", tz="UTC" if zoned.pop() else None)
        raise ValueError(f"column {name!r} holds times with and without a zone; give all of them one")
    if bases <= {str, UUID} or bases <= {dict, list}:
        return pa.string()
    if len(bases) == 1 and (base := bases.pop()) in simple:
        return simple[base]
    kinds = ", ".join(sorted({kind.__name__ for kind in map(type, values)} - {"NoneType"}))
    raise ValueError(
        f"column {name!r} holds values of the types {kinds}; give them one type, or name it in types={{{name!r}: ...}}"
    )


def _of_decimals(values: Iterable[Any]) -> Any:
    decimals = [Decimal(value).as_tuple() for value in values]
    scale = max((-one.exponent for one in decimals if isinstance(one.exponent, int)), default=0)
    whole = max((len(one.digits) + one.exponent for one in decimals if isinstance(one.exponent, int)), default=0)
    scale = max(scale, min(FREE_SCALE, MOST_DIGITS - max(whole, 0)), 0)
    digits = max(whole, 0) + scale
    return (
        _decimal(max(MOST_DIGITS, digits), scale) if digits <= MOST_DIGITS_WIDE else _decimal(MOST_DIGITS, FREE_SCALE)
    )
