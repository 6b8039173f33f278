"""What kinds of values columns hold, and how a missing target's columns are declared on each database."""

import datetime as dt
import re
from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Dialect, types
from sqlalchemy.dialects import mysql, postgresql
from sqlalchemy.types import TypeEngine

from resumable_sync._database import is_mysql, plain_type
from resumable_sync._protocols import Column

__all__ = [
    "ROUND_SCALE",
    "MisfitError",
    "affinity",
    "column_kind",
    "declaration",
    "decodes_json",
    "source_kind",
    "time_of_day",
]

_DAY = dt.timedelta(days=1)

ROUND_SCALE = 30
"""Most decimals of a DECIMAL on MySQL and MariaDB."""

MAX_KEY_CHARACTERS = 700
"""What InnoDB's 3,072 bytes of a key leave for its text, all columns together, beside some numbers and times."""

MAX_EXACT_DIGITS = 15
"""Decimal digits that a double keeps; SQLite's NUMERIC is one."""

_DECLARED_KINDS = [
    (r".*\[\]", "array"),
    (r"jsonb?", "json"),
    (r"uuid", "uuid"),
    (r"bool(ean)?", "boolean"),
    (r"(small|big|tiny|medium)?int(eger|\d)?( unsigned)?( zerofill)?|(small|big)?serial", "integer"),
    (r"numeric|decimal|dec|fixed", "decimal"),
    (r"real|float\d?|double( precision)?", "float"),
    (r"timestamp with time zone|timestamptz", "instant"),
    (r"timestamp|datetime|timestamp without time zone", "datetime"),
    (r"date", "date"),
    (r"time with time zone|timetz", "timetz"),
    (r"time|time without time zone", "time"),
    (r"interval", "interval"),
    (r"bytea|(tiny|medium|long)?blob|(var)?binary|bit", "bytes"),
    (r".*char.*|(tiny|medium|long)?text|.*clob|citext|name|enum|set", "text"),
]
_DECLARED = [(re.compile(pattern), kind) for pattern, kind in _DECLARED_KINDS]

_SOURCE_KINDS: list[tuple[type[TypeEngine[Any]] | tuple[type[TypeEngine[Any]], ...], str]] = [
    (types.Boolean, "boolean"),
    ((types.Integer, mysql.YEAR), "integer"),
    (types.Float, "float"),
    (types.Numeric, "decimal"),
    (types.JSON, "json"),
    (types.Uuid, "uuid"),
    (types.ARRAY, "array"),
    ((types.LargeBinary, types.BINARY, types.VARBINARY, mysql.BIT), "bytes"),
    (types.DateTime, "datetime"),
    (types.Date, "date"),
    (types.Time, "time"),
    ((types.Interval, postgresql.INTERVAL), "interval"),
    # An enumeration, and what an extension brings, may not exist in the target's database.
    ((types.String, postgresql.HSTORE), "text"),
    (types.NullType, "unknown"),
]

_POSTGRESQL = {
    # SQLite calls its 64 bits INTEGER too, and keeps more digits and characters than it declares: the widest of each.
    "integer": "BIGINT",
    "decimal": "NUMERIC",
    "float": "DOUBLE PRECISION",
    "text": "TEXT",
    "bytes": "BYTEA",
    "uuid": "UUID",
    "json": "JSON",
    "boolean": "BOOLEAN",
    "datetime": "TIMESTAMP",
    "instant": "TIMESTAMP WITH TIME ZONE",
    "date": "DATE",
    "time": "TIME",
    "timetz": "TIME WITH TIME ZONE",
    "interval": "INTERVAL",
    "unknown": "TEXT",
}
_MYSQL = {
    "integer": "BIGINT",
    "float": "DOUBLE",
    "text": "LONGTEXT",
    "bytes": "LONGBLOB",
    "uuid": "CHAR(36) CHARACTER SET ascii COLLATE ascii_bin",
    "json": "JSON",
    "boolean": "BOOLEAN",
    # Whole seconds are the default.
    "datetime": "DATETIME(6)",
    "instant": "DATETIME(6)",
    "date": "DATE",
    "time": "TIME(6)",
    "timetz": "LONGTEXT",
    "interval": "BIGINT",
    "array": "JSON",
    "unknown": "LONGTEXT",
}
_SQLITE = {
    "integer": "INTEGER",
    "float": "DOUBLE",
    "text": "TEXT",
    "bytes": "BLOB",
    "uuid": "CHAR(36)",
    # Declared as JSON it would have the affinity that turns a large number's text into a float.
    "json": "TEXT",
    "boolean": "BOOLEAN",
    "datetime": "DATETIME",
    "instant": "DATETIME",
    "date": "DATE",
    "time": "TIME",
    "timetz": "TEXT",
    "interval": "INTEGER",
    "array": "TEXT",
    # No type, no affinity: what is stored stays as it is.
    "unknown": "",
}


def column_kind(declared: str) -> str:
    """Give the kind of values of a column by its type in the database's words, e.g. `varchar(20)`; else `"other"`."""
    name = re.sub(r"\s*\([^)]*\)", "", declared.lower()).strip()
    return next((kind for pattern, kind in _DECLARED if pattern.fullmatch(name)), "other")


def affinity(declared: str) -> str:
    """Give what a column of SQLite makes of numbers and text, by its declared type.

    References:
        https://www.sqlite.org/datatype3.html, section 3.1
    """
    name = declared.upper()
    if "INT" in name:
        return "INTEGER"
    if any(part in name for part in ("CHAR", "CLOB", "TEXT")):
        return "TEXT"
    if not name or "BLOB" in name:
        return "BLOB"
    return "REAL" if any(part in name for part in ("REAL", "FLOA", "DOUB")) else "NUMERIC"


def decodes_json(source: TypeEngine[Any]) -> bool:
    """Whether the records hold JSON of this type decoded, strings included, as PostgreSQL's drivers give it."""
    return isinstance(plain_type(source), postgresql.JSON)


def declaration(column: Column, dialect: Dialect, key: Collection[str], columns: Sequence[Column]) -> str:
    """Give a column's type for CREATE TABLE.

    Args:
        column: The source's column.
        dialect: The target's database.
        key: The columns of the primary key.
        columns: All columns; a key of several must fit into an index together.
    """
    source = plain_type(column.type)
    kind = source_kind(source)
    if dialect.name == "postgresql":
        return _postgresql(source, kind, dialect)
    if is_mysql(dialect):
        wide = [each for each in columns if each.name in key and _is_wide(source_kind(each.type))]
        return _mysql(source, kind, dialect, MAX_KEY_CHARACTERS // len(wide) if column in wide else None)
    if kind == "decimal":
        precision, scale = _digits(source)
        exact = precision is not None and precision <= MAX_EXACT_DIGITS
        return f"NUMERIC({precision}, {scale})" if exact else ""
    return _SQLITE.get(kind, "TEXT")


def source_kind(source: TypeEngine[Any]) -> str:
    """Give the kind of values of a source's column; `"unknown"` where the source does not know, else `"other"`."""
    source = plain_type(source)
    kind = next((kind for bases, kind in _SOURCE_KINDS if isinstance(source, bases)), "other")
    zoned = getattr(source, "timezone", False)
    return {"datetime": "instant", "time": "timetz"}.get(kind, kind) if zoned else kind


def _is_wide(kind: str) -> bool:
    return kind in ("text", "bytes", "unknown", "other")


def _digits(source: Any) -> tuple[int | None, int]:
    return source.precision, source.scale or 0


def _postgresql(source: Any, kind: str, dialect: Dialect) -> str:
    if kind == "array":
        item = plain_type(source.item_type)
        return f"{_postgresql(item, source_kind(item), dialect)}[]"
    if kind == "json" and isinstance(source, postgresql.JSONB):
        return "JSONB"
    if kind == "integer" and getattr(source, "unsigned", False):
        return "NUMERIC(20)"
    if kind == "other":
        own = type(source).__module__.startswith("sqlalchemy.dialects.postgresql")
        return str(source.compile(dialect)) if own else "TEXT"
    return _POSTGRESQL[kind]


def _mysql(source: Any, kind: str, dialect: Dialect, key_length: int | None) -> str:
    if key_length is not None:
        # Other collations take 'a' for 'A' or for 'a ', and an upsert would make one row of two.
        collation = "utf8mb4_nopad_bin" if getattr(dialect, "is_mariadb", False) else "utf8mb4_0900_bin"
        text = f"VARCHAR({key_length}) CHARACTER SET utf8mb4 COLLATE {collation}"
        return f"VARBINARY({key_length * 4})" if kind == "bytes" else text
    if kind == "decimal":
        precision, scale = _digits(source)
        return f"DECIMAL({precision}, {scale})" if precision is not None else f"DECIMAL(65, {ROUND_SCALE})"
    if kind == "integer" and getattr(source, "unsigned", False):
        return "BIGINT UNSIGNED"
    return _MYSQL.get(kind, "LONGTEXT")


class MisfitError(ValueError):
    """A value does not fit its column; says so without it."""


def time_of_day(value: dt.timedelta) -> dt.time:
    """Give what a driver gave as the time since midnight.

    Raises:
        MisfitError: If it is no time of day.
    """
    if not dt.timedelta(0) <= value < _DAY:
        msg = "is a time of day and was given a timedelta outside of 0 to 24 hours"
        raise MisfitError(msg)
    return (dt.datetime(1, 1, 1, tzinfo=dt.UTC) + value).time()
