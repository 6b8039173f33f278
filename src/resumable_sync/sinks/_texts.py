"""Values as text in files: JSON and CSV know fewer types than databases."""

import base64
import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from types import SimpleNamespace
from typing import Any
from uuid import UUID

from resumable_sync._errors import ConfigurationError

__all__ = ["csv_text", "json_lines", "json_text"]

_MICROSECONDS = 1_000_000


def _seconds(value: timedelta) -> str:
    microseconds = value // timedelta(microseconds=1)
    sign = "-" if microseconds < 0 else ""
    whole, part = divmod(abs(microseconds), _MICROSECONDS)
    return f"{sign}{whole}.{part:06d}" if part else f"{sign}{whole}"


def _isoformat(value: Any) -> str:
    return str(value.isoformat())


def _base64(value: Any) -> str:
    return base64.b64encode(bytes(value)).decode("ascii")


_TEXTS: list[tuple[Any, Callable[[Any], str]]] = [
    ((datetime, date, time), _isoformat),
    ((Decimal, UUID), str),
    (timedelta, _seconds),
    ((bytes, bytearray, memoryview), _base64),
]
_AS_IT_IS = {str, int, float, type(None)}


def _text(value: Any) -> str:
    for types, convert in _TEXTS:
        if isinstance(value, types):
            return convert(value)
    raise ValueError(f"a value is of the type {type(value).__name__}, for which a file has no form; convert it before")


def _json_default(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else _text(value)


_BREAKS = {text.encode(): f"\\u{ord(text):04x}".encode() for text in ("\x85", "\u2028", "\u2029")}
"""Text within a line of JSON at which readers that go by Unicode, as `str.splitlines` does, end it."""


def json_lines(records: Iterable[Any]) -> bytes:
    """Give records as JSON Lines in UTF-8.

    Raises:
        ValueError: If a value has no form in JSON; its text does not hold the value.
    """
    lines = _json(list(records))
    for found, escape in _BREAKS.items():
        lines = lines.replace(found, escape)
    return lines


def _json(kept: Sequence[Any]) -> bytes:
    try:
        return _json_lines(kept, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        pass
    # Half a surrogate pair has a form only as an escape.
    return _json_lines(kept, ensure_ascii=True).encode()


def _json_lines(records: Sequence[Any], *, ensure_ascii: bool) -> str:
    encoder = json.JSONEncoder(ensure_ascii=ensure_ascii, allow_nan=False, separators=(",", ":"), default=_json_default)
    try:
        return "".join([encoder.encode(record) + "\n" for record in records])
    except RecursionError:
        problem = "a record is nested too deeply for JSON"
    except ValueError as error:
        # JSON's own message may hold the number.
        finite = "Out of range float" in str(error)
        problem = "a value is NaN or infinite, for which JSON has no form" if finite else str(error)
    except TypeError:
        problem = "a record has keys that are no texts"
    raise ValueError(f"{problem}; convert it before")


def json_text(value: Any) -> str:
    """Give a value as JSON, as it stands in a file's column.

    Raises:
        ValueError: If it has no form in JSON; its text does not hold the value.
    """
    return _json([value]).decode().rstrip("\n")


def csv_text(rows: Iterable[Sequence[Any]], delimiter: str) -> bytes:
    """Give rows as CSV in UTF-8.

    Raises:
        ValueError: If a value has no form there; its text does not hold the value.
    """
    as_it_is = _AS_IT_IS
    cells = [[value if type(value) in as_it_is else _cell(value) for value in row] for row in rows]
    buffer = io.StringIO()
    csv.writer(buffer, delimiter=delimiter, lineterminator="\n").writerows(cells)
    text = buffer.getvalue()
    try:
        return (_with_returns(cells, delimiter) if "\r" in text else text).encode()
    except UnicodeEncodeError:
        problem = "a text holds half a surrogate pair, which UTF-8 cannot have; convert it before"
    raise ValueError(problem)


def _with_returns(cells: Sequence[Sequence[Any]], delimiter: str) -> str:
    """Give rows with carriage returns in them as CSV."""
    written: list[str] = []
    # Before Python 3.13 the writer quotes a carriage return only if it may end a row. It hands over row by row.
    writer = csv.writer(SimpleNamespace(write=written.append), delimiter=delimiter, lineterminator="\r\n")
    writer.writerows(cells)
    return "".join(row.removesuffix("\r\n") + "\n" for row in written)


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (str, int, float)):
        # A subclass: an Enum of texts writes its value, not its name.
        return next(kind for kind in (str, int, float) if isinstance(value, kind)).__str__(value)
    if isinstance(value, (Mapping, list, tuple)):
        return json_text(value)
    return _text(value)


def check_delimiter(delimiter: object) -> None:
    """Check the delimiter of a CSV file.

    Raises:
        ConfigurationError: If it can be none.
    """
    if not isinstance(delimiter, str) or len(delimiter) != 1 or delimiter in '"\r\n':
        msg = f"delimiter={delimiter!r} is not possible; give one character that is neither a quote nor a line break"
        raise ConfigurationError(msg)
