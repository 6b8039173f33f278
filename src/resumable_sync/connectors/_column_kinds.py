"""What the columns of a source hold, by their SQLAlchemy types."""

from typing import Any

from sqlalchemy import types as sa
from sqlalchemy.dialects import mysql, postgresql
from sqlalchemy.engine import Dialect

from resumable_sync._database import plain_type
from resumable_sync._ranges import ColumnKind
from resumable_sync.connectors._statements import is_mysql

__all__ = ["column_kind"]

Type = sa.TypeEngine[Any]

_SINGLE_DIGITS = 6
"""Digits of a FLOAT that MySQL sends."""

_SINGLE_BITS = 24
_MICROSECONDS = 6
"""Digits of a fraction of a second where none are declared."""

_NAMES: list[tuple[type[Type] | tuple[type[Type], ...], str]] = [
    (sa.Boolean, "boolean"),
    ((sa.Integer, mysql.YEAR), "integer"),
    (sa.Float, "float"),
    (sa.Numeric, "decimal"),
    (sa.JSON, "jsontext"),
    (sa.Uuid, "uuid"),
    (sa.ARRAY, "array"),
    ((sa.LargeBinary, sa.BINARY, sa.VARBINARY, mysql.BIT), "bytes"),
    (sa.DateTime, "datetime"),
    (sa.Date, "date"),
    (sa.Time, "time"),
    ((sa.Interval, postgresql.INTERVAL), "interval"),
    (sa.CHAR, "char"),
    ((sa.String, postgresql.HSTORE), "text"),
    (sa.NullType, "unknown"),
]


def column_kind(declared: Type, dialect: Dialect) -> ColumnKind:
    """Give what a column of a type holds."""
    kind = plain_type(declared)
    name = next((name for bases, name in _NAMES if isinstance(kind, bases)), "other")
    if is_mysql(dialect):
        return _mysql(kind, name, truncates=bool(getattr(dialect, "is_mariadb", False)))
    if dialect.name == "postgresql":
        return _postgresql(kind, name)
    # SQLite keeps what it is given: neither length nor digits mean anything, and REAL has 64 bits.
    return ColumnKind("text" if name == "char" else name)


def _mysql(kind: Any, name: str, *, truncates: bool) -> ColumnKind:
    if isinstance(kind, mysql.FLOAT):
        return ColumnKind("single", _SINGLE_DIGITS)
    if name in ("datetime", "time") and hasattr(kind, "fsp"):
        return ColumnKind(name, kind.fsp or 0, truncates)
    if name == "decimal":
        return ColumnKind(name, kind.scale)
    return ColumnKind(name, 0 if name == "integer" else None)


def _postgresql(kind: Any, name: str) -> ColumnKind:
    if name in ("datetime", "time"):
        zoned = {"datetime": "instant", "time": "timetz"}[name] if kind.timezone else name
        precision = getattr(kind, "precision", None)
        return ColumnKind(zoned, _MICROSECONDS if precision is None else precision)
    if name == "float" and (isinstance(kind, sa.REAL) or (kind.precision or _SINGLE_BITS + 1) <= _SINGLE_BITS):
        return ColumnKind("single")
    if name == "decimal":
        return ColumnKind(name, kind.scale)
    # Its drivers give JSON decoded.
    return ColumnKind("json" if name == "jsontext" else name)
