"""One form for equal values of two databases: what a sink wrote is equal to what it was written from. Pure.

Which form is decided by the two columns, never by other values. A value that has not the form of its column stays as it
is, and so equals only itself.
"""

import datetime as dt
import json
import re
import struct
from collections.abc import Callable, Mapping, Sequence
from decimal import ROUND_HALF_UP, Context, Decimal, InvalidOperation
from operator import itemgetter
from typing import Any, TypeAlias
from uuid import UUID

import attrs

from resumable_sync._python_values import FINER
from resumable_sync._ranges import ColumnKind

__all__ = ["Form", "canonical", "forms"]

Row: TypeAlias = tuple[Any, ...]

_NAN = "NaN"  # which does not equal itself, but is the same value on both sides
_EXACT = Context(prec=2_000)
_SECOND = 1_000_000
_MICROSECOND = dt.timedelta(microseconds=1)
_MICROSECOND_DIGITS = 6
_FINER = re.compile(FINER)
_UUID_BYTES = 16
_NUMBERS = {"boolean", "integer", "decimal", "float", "single"}
_MOMENTS = {"datetime", "instant", "date"}
_TIMES = {"time", "timetz", "interval"}
_DOCUMENTS = {"json", "jsontext", "array"}
_BOOLEANS = {"t": 1, "true": 1, "f": 0, "false": 0}


@attrs.frozen
class Form:
    """How the values of one column are brought into the common form.

    Attributes:
        make: Gives the form of a value, which is not None.
        plain: Types whose values have the form already.
        strict: Whether values that Python takes for equal may have different forms (in JSON true is not 1).
    """

    make: Callable[[Any], Any]
    plain: frozenset[type] = frozenset({type(None)})
    strict: bool = False


def forms(source: ColumnKind, target: ColumnKind) -> tuple[Form, Form]:
    """Give the forms for the values of a column of the source and of that of the target.

    - Numbers are equal by value: True is 1, -0.0 is 0, 1.50 is 1.5, NaN is NaN; rounded to what the target keeps.
    - Times with a zone are equal by instant, and to the same time in UTC without one; those without count as UTC.
      Where the target keeps all digits of a time, those that Python has not are compared too.
    - A UUID equals its text and its bytes, a timedelta its microseconds, a time of day the time since midnight.
    - JSON is equal by structure; its null equals NULL, since drivers give the same for both.
    - Text is equal by code points, up to trailing blanks where one of the columns is padded with them. It is not NULL
      when it is empty.
    """
    names = {source.name, target.name}
    if names & _DOCUMENTS:
        return _document(source), _document(target)
    if "uuid" in names:
        form = Form(_uuid, frozenset({type(None), UUID}))
    elif names & _MOMENTS:
        form = Form(_moment(source, target))
    elif names & _TIMES:
        form = Form(_time(target))
    elif names & _NUMBERS:
        form = _number(target, boolean="boolean" in names)
    elif "bytes" in names:
        form = Form(_bytes, frozenset({type(None), bytes}))
    elif names == {"unknown"}:
        form = Form(_value, frozenset({type(None), int, str, bytes}))
    elif "char" in names:
        form = Form(lambda value: _text(value).rstrip(" ") if isinstance(value, str) else _text(value))
    else:
        form = Form(_text, frozenset({type(None), str}))
    return form, form


def canonical(rows: Sequence[Row], columns: Sequence[Form]) -> list[Row]:
    """Bring rows into the common form, column by column."""
    if not rows:
        return []
    values: list[Sequence[Any]] = list(zip(*rows, strict=True))
    for place, form in enumerate(columns):
        if not set(map(type, values[place])) <= form.plain:
            make = form.make
            values[place] = [None if value is None else make(value) for value in values[place]]
    return list(zip(*values, strict=True))


def _number(target: ColumnKind, *, boolean: bool) -> Form:
    if target.name == "float":
        return Form(lambda value: _float(value, None))
    if target.name == "single":
        return Form(lambda value: _float(_single(value), target.digits))
    plain = frozenset({type(None), int})
    return Form(lambda value: _decimal(value, target.digits, _BOOLEANS if boolean else {}), plain)


def _float(value: Any, digits: int | None) -> Any:
    if type(value) is not float:
        try:
            value = float(value)
        except (ValueError, TypeError, OverflowError):
            return value
    if value != value:  # noqa: PLR0124 - NaN alone differs from itself
        return _NAN
    return value if digits is None else float(f"{value:.{digits}g}")


def _single(value: Any) -> Any:
    try:
        return struct.unpack("f", struct.pack("f", float(value)))[0]
    except (ValueError, TypeError, OverflowError):
        return value


def _decimal(value: Any, digits: int | None, words: Mapping[str, int]) -> Any:
    if isinstance(value, int) and digits is None:
        return int(value)
    if isinstance(value, str) and value in words:
        return words[value]
    try:
        number = Decimal(repr(value) if isinstance(value, float) else value)
        if number.is_nan():
            return _NAN
        if digits is None or not number.is_finite():
            return number
        return number.quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP, _EXACT)
    except (InvalidOperation, ValueError, TypeError):
        return value


def _moment(source: ColumnKind, target: ColumnKind) -> Callable[[Any], Any]:
    days = (target if target.name in _MOMENTS else source).name == "date"

    def make(value: Any) -> Any:
        beyond = ""
        if isinstance(value, str):
            beyond = _beyond(value)
            try:
                value = dt.datetime.fromisoformat(value)
            except ValueError:
                return value
        if isinstance(value, dt.datetime):
            if value.tzinfo is not None:
                value = value.astimezone(dt.UTC).replace(tzinfo=None)
            return value.date() if days else _cut_moment(value, beyond, target)
        if isinstance(value, dt.date) and not days:
            return dt.datetime(value.year, value.month, value.day)  # noqa: DTZ001 - as all of them here
        return value

    return make


def _cut_moment(value: dt.datetime, beyond: str, target: ColumnKind) -> Any:
    cut = _cut(value.microsecond + _rounded(beyond, target), target)
    try:
        moment = value.replace(microsecond=0) + dt.timedelta(microseconds=cut)
    except OverflowError:
        return value
    return (moment, beyond) if beyond and target.digits is None else moment


def _beyond(text: str) -> str:
    """Give the digits of a time beyond the microsecond, which Python drops when it reads it."""
    found = _FINER.search(text)
    return "" if found is None else found[1]


def _rounded(beyond: str, target: ColumnKind) -> int:
    """Give the microsecond that a target which keeps just these makes of further digits."""
    return int(target.digits == _MICROSECOND_DIGITS and not target.truncates and beyond[:1] >= "5")


def _cut(microseconds: int, target: ColumnKind) -> int:
    timed = target.name in _MOMENTS | _TIMES
    if not timed or target.digits is None or target.digits >= _MICROSECOND_DIGITS:
        return microseconds
    step = int(10 ** (_MICROSECOND_DIGITS - target.digits))
    size = abs(microseconds) + (0 if target.truncates else step // 2)
    return (-1 if microseconds < 0 else 1) * (size // step * step)


def _time(target: ColumnKind) -> Callable[[Any], Any]:
    def make(value: Any) -> Any:
        beyond = ""
        if isinstance(value, str):
            beyond = _beyond(value)
            try:
                value = dt.time.fromisoformat(value)
            except ValueError:
                return value
        if isinstance(value, dt.time):
            if value.tzinfo is not None:
                return value.isoformat("microseconds") + beyond
            seconds = (value.hour * 60 + value.minute) * 60 + value.second
            cut = _cut(seconds * _SECOND + value.microsecond + _rounded(beyond, target), target)
            return (cut, beyond) if beyond and target.digits is None else cut
        if isinstance(value, dt.timedelta):
            return _cut(value // _MICROSECOND, target)
        return value

    return make


def _uuid(value: Any) -> Any:
    try:
        if isinstance(value, str):
            return UUID(value)
        if isinstance(value, bytes | bytearray | memoryview) and len(value) == _UUID_BYTES:
            return UUID(bytes=bytes(value))
    except ValueError:
        pass
    return value


def _bytes(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    return bytes(value) if isinstance(value, bytes | bytearray | memoryview) else value


def _text(value: Any) -> Any:
    if isinstance(value, str | bytes | bytearray | memoryview):
        return str(value) if isinstance(value, str) else bytes(value)
    if isinstance(value, dict | list | tuple):
        return json.dumps(value, ensure_ascii=False, default=str)
    if isinstance(value, float):
        return _NAN if value != value else repr(value)  # noqa: PLR0124 - NaN
    return str(int(value)) if isinstance(value, bool) else str(value)


def _value(value: Any) -> Any:
    """Give the form of a value in columns of no type: numbers stay apart from text."""
    if isinstance(value, float):
        return _NAN if value != value else value  # noqa: PLR0124 - NaN
    return int(value) if isinstance(value, int) else _text(value)


def _document(kind: ColumnKind) -> Form:
    decoded = kind.name in ("json", "array")

    def make(value: Any) -> Any:
        if not decoded and isinstance(value, str | bytes):
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                return "no document", value
        return _structure(value)

    return Form(make, strict=True)


def _structure(value: Any) -> Any:
    if isinstance(value, bool):
        return "bool", value
    if isinstance(value, dict):
        return "object", tuple(
            sorted(((str(name), _structure(item)) for name, item in value.items()), key=itemgetter(0))
        )
    if isinstance(value, list | tuple):
        return "list", tuple(map(_structure, value))
    if isinstance(value, int | float | Decimal):
        return _NAN if value != value else value  # noqa: PLR0124 - NaN
    if isinstance(value, dt.datetime) and value.tzinfo is not None:
        return value.astimezone(dt.UTC)
    return bytes(value) if isinstance(value, bytearray | memoryview) else value
