"""Making values fit the target: what its driver cannot bind, or would change without a word, is converted or refused.

Every conversion depends on the type of the value and on the column, never on other values, so that the same record
always gives the same row. What cannot be kept raises `ValueError` with the column's name and without the value.
"""

import datetime as dt
import ipaddress
import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from operator import ne
from typing import Any, TypeAlias

from sqlalchemy import Dialect

from resumable_sync.sinks._kinds import ROUND_SCALE, affinity, time_of_day
from resumable_sync.sinks._target import TargetColumn

__all__ = ["Rule", "convert", "exact_number"]

Converter: TypeAlias = Callable[[Any], Any]

_MICROSECOND = dt.timedelta(microseconds=1)
_MAX_INT = 2**63
_HEX_DIGITS = 32

# The order matters: a bool is an int, a datetime a date.
_FAMILIES: list[tuple[type | tuple[type, ...], str]] = [
    (bool, "bool"),
    (int, "int"),
    (float, "float"),
    (str, "str"),
    ((bytes, bytearray, memoryview), "bytes"),
    (Decimal, "decimal"),
    (dt.datetime, "datetime"),
    (dt.date, "date"),
    (dt.time, "time"),
    (dt.timedelta, "timedelta"),
    (uuid.UUID, "uuid"),
    (dict, "document"),
    ((list, tuple), "document"),
    (
        (
            ipaddress.IPv4Address,
            ipaddress.IPv6Address,
            ipaddress.IPv4Interface,
            ipaddress.IPv6Interface,
            ipaddress.IPv4Network,
            ipaddress.IPv6Network,
        ),
        "address",
    ),
]
_PASS = frozenset({type(None)})
# Values of exactly these types need no look at the column, unless it says so.
_PLAIN = frozenset({type(None), bool, int, float, str, bytes})


class Rule:
    """What is done with the values of one column.

    Args:
        column: The target's column.
        dialect: The target's database.
        encodes_text: Whether str is a JSON string, and not the text of a JSON document (for columns of JSON).
        utc: Whether the database takes times for UTC.
    """

    def __init__(self, column: TargetColumn, dialect: Dialect, *, encodes_text: bool, utc: bool) -> None:
        self.column = column
        self._encodes_text = encodes_text
        self._utc = utc
        self._affinity = affinity(column.declared)
        self._make = {"sqlite": self._sqlite, "postgresql": self._postgresql}.get(dialect.name, self._mysql)
        self._json = column.kind == "json"
        self._converters: dict[type, Converter | None] = {}
        self.refuses_nan = dialect.name == "sqlite"
        plain = _PLAIN - {bool, bytes} if dialect.name == "postgresql" else _PLAIN
        self.plain = _PASS if encodes_text or self._json or column.kind == "boolean" else plain

    def converter(self, kind: type) -> Converter | None:
        """Give what converts values of a type for this column; None if they go as they are."""
        if kind not in self._converters:
            self._converters[kind] = None if kind is type(None) else self._convert(kind)
        return self._converters[kind]

    def _convert(self, kind: type) -> Converter | None:
        # pandas' NaT calls itself a datetime.
        matches = (name for bases, name in _FAMILIES if issubclass(kind, bases) and kind.__name__ != "NaTType")
        family = next(matches, "unknown")
        if self._encodes_text or self._json:
            document = self._document(family)
            if document is not None:
                return document
        return self._make(kind, family)

    def _document(self, family: str) -> Converter | None:
        if family == "decimal":
            return str
        if family == "str":
            return _json_text if self._encodes_text else None
        return _json_text if family in ("document", "bool", "int", "float") else None

    def _refuse(self, what: str) -> Converter:
        def refuse(_value: Any) -> Any:
            raise ValueError(what)

        return refuse

    def _sqlite(self, kind: type, family: str) -> Converter | None:
        of_day = self.column.kind == "time"
        converters: dict[str, Converter] = {
            "float": float,
            "decimal": str if self._affinity in ("TEXT", "BLOB") else exact_number,
            "datetime": lambda value: _utc(value).isoformat(" ", "microseconds"),
            "date": dt.date.isoformat,
            "time": self._time(lambda value: value.isoformat("microseconds")),
            "timedelta": (lambda value: time_of_day(value).isoformat("microseconds"))
            if of_day
            else self._microseconds(fits=self._affinity != "TEXT"),
        }
        return None if kind is float else converters.get(family) or self._embedded(kind, family)

    def _mysql(self, kind: type, family: str) -> Converter | None:
        if family == "decimal":
            return _fits_decimal
        if family == "datetime":
            return _utc if self._utc or not self.column.declared.startswith("timestamp") else _naive
        if family == "time":
            return self._time(None)
        if family == "timedelta":
            return _mysql_time if self.column.kind == "time" else self._microseconds(fits=self.column.kind == "integer")
        return None if family in ("float", "date") else self._embedded(kind, family)

    def _embedded(self, kind: type, family: str) -> Converter | None:
        """What SQLite and MySQL have in common."""
        if family == "unknown":
            return self._refuse(f"holds a {kind.__module__}.{kind.__qualname__}; convert it to a plain Python type")
        if family == "uuid":
            return self._uuid()
        exact: dict[str, Converter] = {
            "int": int,
            "str": str.__str__,
            "bytes": bytes,
            "address": str,
            "document": _json_text,
        }
        return None if kind in _PLAIN else exact.get(family)

    def _postgresql(self, kind: type, family: str) -> Converter | None:
        target = self.column.kind
        converters: dict[str, Converter | None] = {
            "document": self._postgresql_document(kind),
            "datetime": _utc if target == "datetime" else None,
            "time": self._time(None) if target == "time" else None,
            # As text its digits come without hyphens from psycopg.
            "uuid": self._uuid() if target == "text" else None,
            "int": _as_bool if target == "boolean" else None,
            "bool": int if target in ("integer", "decimal", "float") else None,
        }
        if family == "bytes" and target == "text":
            # COPY would store the text of its hexadecimal digits.
            return self._refuse("is text and was given bytes; decode them")
        if family == "timedelta":
            by_kind: dict[str, Converter] = {"time": time_of_day, "integer": _microseconds}
            return by_kind.get(target)
        return converters.get(family)

    def _postgresql_document(self, kind: type) -> Converter | None:
        if self.column.kind == "text":
            return _json_text
        return list if issubclass(kind, tuple) and self.column.kind == "array" else None

    def _time(self, write: Converter | None) -> Converter:
        if self.column.kind == "text":
            return dt.time.isoformat

        def convert_time(value: dt.time) -> Any:
            if value.tzinfo is not None:
                msg = "was given a time of day with a time zone, which it cannot keep; make the column text"
                raise ValueError(msg)
            return value if write is None else write(value)

        return convert_time

    def _microseconds(self, *, fits: bool) -> Converter:
        return _microseconds if fits else self._refuse("was given a timedelta; make it an integer (microseconds)")

    def _uuid(self) -> Converter:
        if self.column.kind == "bytes":
            return lambda value: value.bytes
        compact = f"({_HEX_DIGITS})" in self.column.declared
        return (lambda value: value.hex) if compact else str


def _json_text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def exact_number(value: Decimal) -> int | float:
    """Give the number of SQLite that is a decimal.

    Raises:
        ValueError: If there is none.
    """
    if value.is_finite():
        if value == value.to_integral_value() and -_MAX_INT <= value < _MAX_INT:
            return int(value)
        number = float(value)
        if Decimal(repr(number)) == value:
            return number
    msg = "was given a Decimal of more digits than a number of SQLite keeps; declare the column TEXT"
    raise ValueError(msg)


def _fits_decimal(value: Decimal) -> Decimal:
    exponent = value.as_tuple().exponent
    if not isinstance(exponent, int):
        msg = "was given a Decimal that is no number, which DECIMAL cannot keep"
        raise ValueError(msg)  # noqa: TRY004 - the type is right
    if exponent < -ROUND_SCALE and value != round(value, ROUND_SCALE):
        msg = (
            f"was given a Decimal of more than {ROUND_SCALE} decimals, which DECIMAL cannot keep; make the column text"
        )
        raise ValueError(msg)
    return value


def _utc(value: dt.datetime) -> dt.datetime:
    return value if value.tzinfo is None else value.astimezone(dt.UTC).replace(tzinfo=None)


def _naive(value: dt.datetime) -> dt.datetime:
    if value.tzinfo is not None:
        msg = (
            "is a TIMESTAMP, which is written in the time zone of the session, and that is not UTC; make it a "
            "DATETIME, or have the session use UTC"
        )
        raise ValueError(msg)
    return value


def _mysql_time(value: dt.timedelta) -> str:
    # PyMySQL writes negative ones wrongly.
    seconds, fraction = divmod(abs(value) // _MICROSECOND, 1_000_000)
    minutes, second = divmod(seconds, 60)
    return f"{'-' if value < dt.timedelta(0) else ''}{minutes // 60:02}:{minutes % 60:02}:{second:02}.{fraction:06}"


def _microseconds(value: dt.timedelta) -> int:
    return value // _MICROSECOND


def _as_bool(value: int) -> Any:
    return bool(value) if value in (0, 1) else value


def _same(value: Any) -> Any:
    return value


def convert(rows: list[tuple[Any, ...]], rules: Sequence[Rule]) -> list[tuple[Any, ...]]:
    """Make rows fit the target.

    Args:
        rows: Tuples of one value for each rule.
        rules: The rules, in the order of the values.

    Returns:
        The rows; the very list if nothing had to be converted.

    Raises:
        ValueError: If a value cannot be kept by its column.
    """
    values: list[Sequence[Any]] = list(zip(*rows, strict=True))
    changed = False
    for place, rule in enumerate(rules):
        kinds = set(map(type, values[place]))
        floats = rule.refuses_nan and any(issubclass(kind, float) for kind in kinds)
        # NaN alone differs from itself.
        if floats and any(map(ne, values[place], values[place])):
            msg = f"column {rule.column.name!r} was given NaN, which SQLite stores as NULL; replace it"
            raise ValueError(msg)
        if kinds <= rule.plain:
            continue
        converters = {kind: converter for kind in kinds if (converter := rule.converter(kind)) is not None}
        if converters:
            values[place] = _converted(values[place], converters, rule)
            changed = True
    return list(zip(*values, strict=True)) if changed else rows


def _converted(values: Sequence[Any], converters: Mapping[type, Converter], rule: Rule) -> list[Any]:
    try:
        if len(converters) == 1:
            ((kind, converter),) = converters.items()
            return [converter(value) if type(value) is kind else value for value in values]
        return [converters.get(type(value), _same)(value) for value in values]
    except (ValueError, TypeError, OverflowError) as error:
        # json and datetime say what is wrong without the value, but for NaN, and there newer Pythons add it.
        what = str(error).partition(": ")[0]
        msg = (
            f"column {rule.column.name!r} {what}"
            if type(error) is ValueError
            else f"column {rule.column.name!r}: {what}"
        )
        raise ValueError(msg) from None
