"""Keys of another database as this one can compare them: each value in the form that its column is stored in."""

import datetime as dt
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Any
from uuid import UUID

from sqlalchemy import types as sa
from sqlalchemy.engine import Dialect

from resumable_sync._database import plain_type
from resumable_sync._ranges import ColumnKind
from resumable_sync.connectors._statements import is_mysql

__all__ = ["NoSuchKeyError", "key_binder"]

Binder = Callable[[Any], Any]

_BITS = {"smallint": 16, "integer": 32}
_UUID_BYTES = 16
_HEX_DIGITS = 32
_BOOLEANS = {"t": True, "true": True, "1": True, "f": False, "false": False, "0": False}


class NoSuchKeyError(Exception):
    """A value that no row of the column can have."""


def key_binder(dialect: Dialect, declared: sa.TypeEngine[Any], kind: ColumnKind, cast: str | None) -> Binder:
    """Give what makes a parameter of a value.

    Args:
        dialect: The database.
        declared: Type of the key's column.
        kind: What it holds.
        cast: Name of the type that PostgreSQL casts the parameter to.

    Returns:
        A function that raises `NoSuchKeyError` for a value that cannot be one of the column.
    """
    if dialect.name == "postgresql":
        make = _postgresql(kind.name, cast or "")
    elif is_mysql(dialect):
        make = _mysql(kind.name, plain_type(declared))
    else:
        make = _sqlite(kind.name, plain_type(declared))

    def bind(value: Any) -> Any:
        if value is None:
            raise NoSuchKeyError
        if isinstance(value, bytearray | memoryview):
            value = bytes(value)
        try:
            return make(value)
        except (ValueError, TypeError, InvalidOperation, OverflowError):
            raise NoSuchKeyError from None

    return bind


def _postgresql(kind: str, cast: str) -> Binder:
    makers: dict[str, Binder] = {
        "integer": lambda value: _whole(value, _BITS.get(cast, 64)),
        "decimal": lambda value: str(_number(value)),
        "float": lambda value: repr(float(value)),
        "single": lambda value: repr(float(value)),
        "boolean": lambda value: str(_BOOLEANS[str(value).lower()]).lower() if _is_boolean(value) else _none(),
        "uuid": lambda value: str(_uuid(value)),
        "bytes": lambda value: value if _is_hex(value) else f"\\x{_bytes(value).hex()}",
        "datetime": lambda value: _moment(value).isoformat(" "),
        "instant": _instant,
        "date": lambda value: _date(value).isoformat(),
    }
    return makers.get(kind, _postgresql_text)


def _postgresql_text(value: Any) -> str:
    text = _text(value)
    return _none() if "\0" in text else text


def _mysql(kind: str, declared: Any) -> Binder:
    numbers = dict.fromkeys(("integer", "decimal", "float", "single", "boolean"), _number)
    makers: dict[str, Binder] = {
        **numbers,
        "bytes": _bytes,
        "datetime": _moment,
        "date": _date,
        # It is stored without the blanks that PostgreSQL gives, and not every collation ignores them.
        "char": lambda value: _text(value, compact=_is_compact(declared)).rstrip(" "),
    }
    return makers.get(kind, lambda value: _text(value, compact=_is_compact(declared)))


def _sqlite(kind: str, declared: Any) -> Binder:
    if kind in ("integer", "float", "boolean", "decimal"):
        return _sqlite_number
    if kind == "datetime":
        return _sqlite_moment
    if kind == "bytes":
        return lambda value: value.bytes if isinstance(value, UUID) else _sqlite_value(value)
    return lambda value: value.hex if isinstance(value, UUID) and _is_compact(declared) else _sqlite_value(value)


def _sqlite_number(value: Any) -> Any:
    if not isinstance(value, Decimal):
        return _sqlite_value(value)
    return _whole(value, 64) if value == value.to_integral_value() else float(value)


def _sqlite_moment(value: Any) -> Any:
    if isinstance(value, dt.date):
        return _moment(value).isoformat(" ", "microseconds")
    return _sqlite_value(value)


def _sqlite_value(value: Any) -> Any:
    if isinstance(value, int):
        return _whole(value, 64)
    if isinstance(value, float | str | bytes):
        return value
    if isinstance(value, dt.datetime):
        return _sqlite_moment(value)
    return value.isoformat("microseconds") if isinstance(value, dt.time) else str(value)


def _none() -> Any:
    raise NoSuchKeyError


def _number(value: Any) -> Any:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int | float | Decimal):
        return value
    return Decimal(value) if isinstance(value, str) else _none()


def _whole(value: Any, bits: int) -> int:
    number = _number(value)
    whole = int(number)
    return whole if whole == number and -(2 ** (bits - 1)) <= whole < 2 ** (bits - 1) else _none()


def _is_boolean(value: Any) -> bool:
    return str(value).lower() in _BOOLEANS


def _is_hex(value: Any) -> bool:
    # The server's own text, as it stands in a cursor.
    return isinstance(value, str) and value.startswith("\\x")


def _uuid(value: Any) -> UUID:
    if isinstance(value, bytes) and len(value) == _UUID_BYTES:
        return UUID(bytes=value)
    return value if isinstance(value, UUID) else UUID(value)


def _bytes(value: Any) -> bytes:
    if isinstance(value, UUID):
        return value.bytes
    return value.encode() if isinstance(value, str) else bytes(memoryview(value))


def _text(value: Any, *, compact: bool = False) -> str:
    if isinstance(value, bytes):
        return str(UUID(bytes=value)) if len(value) == _UUID_BYTES else _none()
    if isinstance(value, UUID):
        return value.hex if compact else str(value)
    if isinstance(value, dt.datetime):
        return value.isoformat(" ")
    return str(int(value)) if isinstance(value, bool) else str(value)


def _is_compact(declared: Any) -> bool:
    return getattr(declared, "length", None) == _HEX_DIGITS


def _parsed(value: Any) -> dt.datetime:
    if isinstance(value, str):
        return dt.datetime.fromisoformat(value)
    if isinstance(value, dt.datetime):
        return value
    return dt.datetime(value.year, value.month, value.day) if isinstance(value, dt.date) else _none()  # noqa: DTZ001


def _moment(value: Any) -> dt.datetime:
    found = _parsed(value)
    return found if found.tzinfo is None else found.astimezone(dt.UTC).replace(tzinfo=None)


def _instant(value: Any) -> str:
    return _parsed(value).isoformat(" ")


def _date(value: Any) -> dt.date:
    return _moment(value).date()
