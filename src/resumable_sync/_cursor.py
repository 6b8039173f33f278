"""The cursor codec: Python values to tagged ASCII JSON and back, without loss.

The text is `[1,VALUE]`: the version of the format, then the value. None, bool, int, finite float, plain text and lists
stand for themselves; everything else is an object with one key that names its type:

    {"$tuple":[1,2]}  {"$dict":[["k",1]]}  {"$int":"0x..."}  {"$float":"nan"}  {"$str":"<hex>"}  {"$bytes":"<base64>"}
    {"$decimal":"1.50"}  {"$datetime":["2026-01-31T12:00:00",0,"Europe/Paris"]}  {"$date":"2026-01-31"}
    {"$time":["12:00:00",0,null]}  {"$timedelta":[1,2,3]}  {"$uuid":"..."}

A decoded text encodes to itself again, or it is refused: nothing but what this module wrote is accepted.
"""

import base64
import json
import math
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from itertools import repeat
from json.encoder import encode_basestring_ascii
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from resumable_sync._errors import CursorError, StateCorruptError

__all__ = ["MAX_CURSOR_BYTES", "decode_cursor", "decode_value", "encode_cursor", "encode_value"]

FORMAT_VERSION = 1
MAX_CURSOR_BYTES = 64 * 1024
MAX_DEPTH = 64
# JSON readers other than Python's keep 53 bits of an integer; Python's own refuses more than 4,300 digits.
_PLAIN_INT = 2**53
_JSON = json.JSONEncoder(ensure_ascii=True, separators=(",", ":"))


class _UnsupportedError(Exception):
    """Says of a value why it cannot be encoded, and what to do."""


def encode_cursor(cursor: Any) -> str:
    """Encode a cursor.

    Args:
        cursor: A value of the types None, bool, int, float, str, bytes, Decimal, datetime, date, time, timedelta, UUID,
            or a list, tuple or string-keyed dict of them; exactly these types, no subclasses.

    Returns:
        ASCII text of at most 64 KiB, such as `[1,[42]]`.

    Raises:
        CursorError: If the value is of another type, too deep, or too large.
    """
    text = encode_value(cursor)
    if len(text) > MAX_CURSOR_BYTES:
        msg = (
            f"the cursor takes {len(text):,} bytes encoded, more than the {MAX_CURSOR_BYTES:,} allowed; "
            "keep only what is needed to go on reading"
        )
        raise CursorError(msg)
    return text


def encode_value(value: Any, *, what: str = "cursor") -> str:
    """Encode a value as `encode_cursor` does, of any length (records of dead letters).

    Args:
        value: The value.
        what: What it is, for the message.

    Raises:
        CursorError: If the value is of another type or too deep.
    """
    try:
        return f"[{FORMAT_VERSION},{_encode(value, MAX_DEPTH)}]"
    except _UnsupportedError as unsupported:
        msg = f"the {what} {unsupported}"
        raise CursorError(msg) from None


def decode_cursor(text: Any, *, job_id: str | None = None, field: str = "cursor") -> Any:
    """Decode what `encode_cursor` wrote.

    Args:
        text: The text, such as `[1,[42]]`.
        job_id: Whose cursor it is, for the message of an error; None: unknown.
        field: The column that holds it, likewise.

    Returns:
        The cursor, equal to the one that was encoded and of the same types, such as `[42]`.

    Raises:
        StateCorruptError: If the text is anything that `encode_cursor` does not write.
    """
    if isinstance(text, str) and len(text) > MAX_CURSOR_BYTES:
        raise StateCorruptError(job_id, field, f"is longer than {MAX_CURSOR_BYTES:,} bytes")
    return decode_value(text, job_id=job_id, field=field)


def decode_value(text: Any, *, job_id: str | None = None, field: str = "record") -> Any:
    """Decode what `encode_value` wrote.

    Raises:
        StateCorruptError: If the text is anything that `encode_value` does not write.
    """
    if not isinstance(text, str):
        raise StateCorruptError(job_id, field, "is not text")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise StateCorruptError(job_id, field, "is not the JSON that the library writes") from None
    if type(document) is not list or len(document) != 2 or type(document[0]) is not int:  # noqa: PLR2004 - the pair
        raise StateCorruptError(job_id, field, "is not a pair of format version and value")
    if document[0] != FORMAT_VERSION:
        detail = f"has format version {document[0]}, this library reads {FORMAT_VERSION}"
        raise StateCorruptError(job_id, field, detail)
    try:
        value = _decode(document[1], MAX_DEPTH)
        unchanged = encode_value(value) == text
    except Exception as error:  # noqa: BLE001 - whatever the types raise for content that nobody wrote
        raise StateCorruptError(job_id, field, f"holds a value that cannot be read ({type(error).__name__})") from None
    if not unchanged:
        raise StateCorruptError(job_id, field, "is not the form that the library writes")
    return value


def _encode(value: Any, depth: int) -> str:
    # Text at once: to build what `json` would make it of takes twice as long.
    kind = type(value)
    if value is None:
        return "null"
    if kind is bool:
        return "true" if value else "false"
    if depth == 0:
        msg = f"is nested more than {MAX_DEPTH} deep; make it flat"
        raise _UnsupportedError(msg)
    if kind is list:
        return "[" + ",".join(map(_encode, value, repeat(depth - 1))) + "]"
    if kind is int and -_PLAIN_INT <= value <= _PLAIN_INT:
        return repr(value)
    encoder = _ENCODERS.get(kind)
    if encoder is None:
        msg = (
            f"cannot hold a {kind.__module__}.{kind.__qualname__}; convert it to one of None, bool, int, "
            "float, str, bytes, Decimal, datetime, date, time, timedelta, UUID, list, tuple or dict with string keys "
            "(exactly these types)"
        )
        raise _UnsupportedError(msg)
    return encoder(value, depth)


def _tagged(tag: str, content: Any) -> str:
    return _JSON.encode({tag: content})


def _encode_great_int(value: int, _depth: int) -> str:
    return _tagged("$int", hex(value))


def _encode_float(value: float, _depth: int) -> str:
    if math.isfinite(value):
        return repr(value)
    sign = "-" if math.copysign(1.0, value) < 0 else ""
    return _tagged("$float", sign + ("nan" if math.isnan(value) else "inf"))


def _encode_str(value: str, _depth: int) -> str:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        # JSON would join two lone surrogates to one character.
        return _tagged("$str", value.encode("utf-32-be", "surrogatepass").hex())
    return encode_basestring_ascii(value)


def _encode_dict(value: dict[Any, Any], depth: int) -> str:
    if not all(type(key) is str for key in value):
        msg = "cannot hold a dict with a key that is not a str; use string keys"
        raise _UnsupportedError(msg)
    items = [f"[{_encode_str(key, depth)},{_encode(item, depth - 1)}]" for key, item in value.items()]
    return '{"$dict":[' + ",".join(items) + "]}"


def _zone_name(name: str) -> Any:
    # As `_encode_str`, for what is yet to be encoded.
    return json.loads(_encode_str(name, 1))


def _encode_zone(zone: tzinfo | None) -> Any:
    if zone is None:
        return None
    if type(zone) is timezone:
        offset = zone.utcoffset(None)
        name = zone.tzname(None)
        given = name if name != timezone(offset).tzname(None) else None
        return [offset.days, offset.seconds, offset.microseconds, None if given is None else _zone_name(given)]
    if type(zone) is ZoneInfo and zone.key is not None:
        return zone.key
    msg = (
        f"cannot hold a time zone of type {type(zone).__module__}.{type(zone).__qualname__}; "
        "use datetime.timezone or zoneinfo.ZoneInfo(key)"
    )
    raise _UnsupportedError(msg)


_ENCODERS: dict[type, Callable[[Any, int], str]] = {
    int: _encode_great_int,
    float: _encode_float,
    str: _encode_str,
    tuple: lambda value, depth: '{"$tuple":' + _encode(list(value), depth) + "}",
    dict: _encode_dict,
    bytes: lambda value, _: _tagged("$bytes", base64.b64encode(value).decode("ascii")),
    Decimal: lambda value, _: _tagged("$decimal", str(value)),
    datetime: lambda value, _: _tagged(
        "$datetime", [value.replace(tzinfo=None).isoformat(), value.fold, _encode_zone(value.tzinfo)]
    ),
    date: lambda value, _: _tagged("$date", value.isoformat()),
    time: lambda value, _: _tagged(
        "$time", [value.replace(tzinfo=None).isoformat(), value.fold, _encode_zone(value.tzinfo)]
    ),
    timedelta: lambda value, _: _tagged("$timedelta", [value.days, value.seconds, value.microseconds]),
    UUID: lambda value, _: _tagged("$uuid", str(value)),
}


def _decode(node: Any, depth: int) -> Any:
    if depth < 0:
        raise ValueError
    if type(node) is list:
        return [_decode(item, depth - 1) for item in node]
    if type(node) is not dict:
        return node
    ((tag, content),) = node.items()
    if tag == "$tuple":
        return tuple(_decode(item, depth - 1) for item in content)
    if tag == "$dict":
        return {_decode(key, 1): _decode(item, depth - 1) for key, item in content}
    return _DECODERS[tag](content)


def _decode_zone(node: Any) -> tzinfo | None:
    if node is None:
        return None
    if isinstance(node, str):
        return ZoneInfo(node)
    days, seconds, microseconds, name = node
    offset = timedelta(days, seconds, microseconds)
    if name is not None:
        return timezone(offset, _decode(name, 1))
    return timezone(offset) if offset else UTC


def _decode_datetime(content: Any) -> datetime:
    text, fold, zone = content
    return datetime.fromisoformat(text).replace(fold=fold, tzinfo=_decode_zone(zone))


def _decode_time(content: Any) -> time:
    text, fold, zone = content
    return time.fromisoformat(text).replace(fold=fold, tzinfo=_decode_zone(zone))


_DECODERS: dict[str, Callable[[Any], Any]] = {
    "$int": lambda content: int(content, 16),
    "$float": float,
    "$str": lambda content: bytes.fromhex(content).decode("utf-32-be", "surrogatepass"),
    "$bytes": lambda content: base64.b64decode(content, validate=True),
    "$decimal": Decimal,
    "$datetime": _decode_datetime,
    "$date": date.fromisoformat,
    "$time": _decode_time,
    "$timedelta": lambda content: timedelta(*content),
    "$uuid": UUID,
}
