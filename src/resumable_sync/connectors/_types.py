"""How the values of a key travel from the database into a cursor and back, exactly, on each kind of database.

A key that came back changed would skip or repeat records without a sound. So each type is known to come back as it was,
or it is refused before anything is read:

- PostgreSQL: integers as they are; everything else as the server's own text (`CAST($1 AS <type of the column>)`), which
  keeps NaN, float4, time zones and any number of digits.
- MySQL, MariaDB: what the driver gives. Refused: FLOAT (sent rounded), ENUM and SET (ordered by number, compared by
  text), TIME, YEAR, BIT, JSON, geometry.
- SQLite: what the driver gives: int, float, str, bytes.
"""

from collections.abc import Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import attrs
from sqlalchemy import Connection

from resumable_sync._arrow.dbapi import ADBC
from resumable_sync._errors import ConfigurationError
from resumable_sync.connectors._statements import Fetched, Statement, is_mysql

__all__ = ["KeyCodec", "describe_key", "mysql_fields"]

_POSTGRES_INTEGERS = {"int2", "int4", "int8"}
_POSTGRES_TEMPORAL = {"date", "timestamp", "timestamptz"}
_POSTGRES_FLOATS = {"float4", "float8"}
_POSTGRES_KEYS = {
    *_POSTGRES_INTEGERS,
    *_POSTGRES_TEMPORAL,
    *_POSTGRES_FLOATS,
    *("bool", "numeric", "uuid", "bytea", "time", "inet", "cidr", "macaddr", "oid"),
}
# Those of most keys, by their numbers, which never change: nothing needs to be asked.
_POSTGRES_KNOWN = {
    20: ("int8", "N", "b", "bigint"),
    21: ("int2", "N", "b", "smallint"),
    23: ("int4", "N", "b", "integer"),
}
_POSTGRES_TYPES = """
SELECT oid, typname, typcategory, typtype, format_type(oid, -1) FROM pg_catalog.pg_type WHERE oid = ANY(%s)
"""
# Of a domain its base.
_POSTGRES_BASES = """
SELECT d.oid, b.typname, b.typcategory, b.typtype, format_type(b.oid, -1) FROM pg_catalog.pg_type d
JOIN pg_catalog.pg_type b ON b.oid = COALESCE(NULLIF(d.typbasetype, 0), d.oid) WHERE d.oid = ANY(%s)
"""
_POSTGRES_NOT_BY_ADBC = {"inet", "cidr", "macaddr", "oid"}
# MySQL's type codes on the wire, with the reason against each that cannot be a key.
_MYSQL_REFUSED = {
    4: "FLOAT, which the server sends rounded; make it DOUBLE or DECIMAL, or name a key that is not FLOAT",
    11: "TIME, which the driver does not give exactly",
    13: "YEAR, whose comparison depends on the number of digits",
    16: "BIT",
    245: "JSON, which has no stable order",
    255: "a geometry, which has no order",
}
_MYSQL_TIMESTAMP = 7
_MYSQL_TEXTS = {15, 249, 250, 251, 252, 253, 254}
_MYSQL_ENUM_OR_SET = 256 | 2048


@attrs.frozen(kw_only=True)
class KeyCodec:
    """The way of one key into a cursor and back.

    Attributes:
        names: The columns of the key.
        types: For each column the Python types that its values have in a cursor.
        casts: For each column the database type that its values are cast to when they go back, or None.
        raw: For each column whether its values are taken as the server's own text (PostgreSQL).
        temporal: For each column whether it may hold times that Python cannot (PostgreSQL).
    """

    names: Sequence[str]
    types: Sequence[tuple[type, ...]]
    casts: Sequence[str | None]
    raw: Sequence[bool]
    temporal: Sequence[bool]

    def last(self, fetched: Fetched, places: Sequence[int]) -> list[Any]:
        """Give the key of the last row as it stands in a cursor; `places` are its columns in the row.

        Raises:
            ConfigurationError: If the driver gave a type that cannot go back exactly.
        """
        return self.at(fetched, len(fetched.rows) - 1, places)

    def at(self, fetched: Fetched, number: int, places: Sequence[int]) -> list[Any]:
        """Give the key of the row of that number, from 0, as it stands in a cursor; of rows that came in one piece.

        Raises:
            ConfigurationError: If the driver gave a type that cannot go back exactly.
        """
        row = fetched.rows[number]
        values = [
            _server_text(fetched.driver_cursor, number - len(fetched.rows), place) if raw else row[place]
            for place, raw in zip(places, self.raw, strict=True)
        ]
        for name, value, types in zip(self.names, values, self.types, strict=True):
            if type(value) not in types:
                raise ConfigurationError(
                    f"the key column {name!r} came from the driver as {type(value).__name__}, which cannot be sent "
                    "back exactly; use an engine without converters of its own, or another key"
                )
        return values

    def parse(self, texts: Sequence[str]) -> list[Any]:
        """Give the key whose values the server wrote as these texts (PostgreSQL)."""
        return [text if raw else int(text) for text, raw in zip(texts, self.raw, strict=True)]

    def accepts(self, values: Any) -> bool:
        """Whether this can be a key that `last` gave."""
        return (
            type(values) is list
            and len(values) == len(self.types)
            and all(type(value) in types for value, types in zip(values, self.types, strict=True))
        )


def _server_text(driver_cursor: Any, from_end: int, place: int) -> str:
    if hasattr(driver_cursor, "key_text"):
        return str(driver_cursor.key_text(from_end, place))  # of ADBC
    result = driver_cursor.pgresult
    text: str = result.get_value(result.ntuples + from_end, place).decode(driver_cursor.connection.info.encoding)
    return text


def describe_key(connection: Connection, statement: Statement, names: Sequence[str]) -> KeyCodec:
    """Find out how the values of a key travel.

    Args:
        connection: To the source.
        statement: Selects the columns of the key, and no row.
        names: The columns of the key.

    Raises:
        ConfigurationError: If a column is of a type that cannot be a key.
    """
    if connection.dialect.name == "postgresql" and connection.dialect.driver == ADBC:
        return _describe_adbc_postgres(connection, statement, names)
    if connection.dialect.name == "postgresql":
        return _describe_postgres(connection, statement, names)
    if is_mysql(connection.dialect):
        return _describe_mysql(connection, statement, names)
    if connection.dialect.name == "sqlite":
        return _plain(names, (int, float, str, bytes))
    return _plain(names, (int, float, str, bytes, Decimal, datetime, date))


def _plain(names: Sequence[str], types: tuple[type, ...]) -> KeyCodec:
    no: list[Any] = [False] * len(names)
    return KeyCodec(names=names, types=[types] * len(names), casts=[None] * len(names), raw=no, temporal=no)


def _describe_postgres(connection: Connection, statement: Statement, names: Sequence[str]) -> KeyCodec:
    driver_cursor = statement.run(connection).driver_cursor
    oids = [column.type_code for column in driver_cursor.description]
    found = {oid: _POSTGRES_KNOWN[oid] for oid in oids if oid in _POSTGRES_KNOWN}
    if unknown := [oid for oid in oids if oid not in found]:
        rows = connection.exec_driver_sql(_POSTGRES_TYPES, (unknown,)).all()
        found |= {oid: (str(name), category, kind, cast) for oid, name, category, kind, cast in rows}
    described = [found[oid] for oid in oids]
    for column, (name, category, kind, _) in zip(names, described, strict=True):
        if name not in _POSTGRES_KEYS and category != "S" and kind != "e":
            raise _refused(column, f"{name}, whose order or form is not exact")
        if name in _POSTGRES_FLOATS and int(connection.exec_driver_sql("SHOW extra_float_digits").scalar_one()) < 1:
            raise _refused(column, f"{name}, sent rounded because extra_float_digits is below 1; set it to 1")
        if category == "S" and driver_cursor.connection.info.parameter_status("client_encoding") == "SQL_ASCII":
            raise _refused(column, "text of unknown encoding (SQL_ASCII); set client_encoding to the one it has")
    return _postgres_codec(names, described)


def _describe_adbc_postgres(connection: Connection, statement: Statement, names: Sequence[str]) -> KeyCodec:
    # The driver does not tell the types of a database by their numbers.
    places = [f"c{place}" for place in range(len(names))]
    kinds = ", ".join(f"CAST(pg_typeof(k.{place}) AS oid)" for place in places)
    named = f"({statement.text}) AS k ({', '.join(places)})"
    asked = f"SELECT {kinds} FROM (VALUES (0)) AS one LEFT JOIN {named} ON true"  # noqa: S608 - our own statement
    oids = list(connection.exec_driver_sql(asked, statement.parameters()).one())
    rows = connection.exec_driver_sql(_POSTGRES_BASES, (oids,)).all()
    found = {oid: (str(name), category, kind, cast) for oid, name, category, kind, cast in rows}
    described = [found[oid] for oid in oids]
    for column, (name, category, kind, _) in zip(names, described, strict=True):
        if name in _POSTGRES_NOT_BY_ADBC or (name not in _POSTGRES_KEYS and category != "S" and kind != "e"):
            reason = f"{name}, whose order or form is not exact"
            raise _refused(column, reason)
    return _postgres_codec(names, described)


def _postgres_codec(names: Sequence[str], described: Sequence[tuple[str, Any, Any, str]]) -> KeyCodec:
    integer = [name in _POSTGRES_INTEGERS for name, *_ in described]
    return KeyCodec(
        names=names,
        types=[(int,) if whole else (str,) for whole in integer],
        casts=[cast for *_, cast in described],
        raw=[not whole for whole in integer],
        temporal=[name in _POSTGRES_TEMPORAL for name, *_ in described],
    )


def _describe_mysql(connection: Connection, statement: Statement, names: Sequence[str]) -> KeyCodec:
    driver_cursor = statement.run(connection).driver_cursor
    codes = [column[1] for column in driver_cursor.description]
    for name, code, (flags, _) in zip(names, codes, mysql_fields(driver_cursor), strict=True):
        if code in _MYSQL_REFUSED:
            raise _refused(name, _MYSQL_REFUSED[code])
        if flags & _MYSQL_ENUM_OR_SET:
            raise _refused(name, "ENUM or SET, ordered by number but compared by text")
        if code == _MYSQL_TIMESTAMP:
            _check_zone(connection, name)
        if code in _MYSQL_TEXTS:
            _check_charset(connection, name)
    return _plain(names, (int, float, str, bytes, Decimal, datetime, date))


def mysql_fields(driver_cursor: Any) -> list[tuple[int, int]]:
    """Give flags and character set of each column of a MySQL result.

    Raises:
        ConfigurationError: If the driver does not tell them.
    """
    fields: Any = getattr(getattr(driver_cursor, "_result", None), "fields", None)
    if fields is None or not hasattr(fields[0], "charsetnr"):
        msg = f"the MySQL driver {type(driver_cursor).__module__} does not tell the types of columns; use mysql+pymysql"
        raise ConfigurationError(msg)
    return [(field.flags, field.charsetnr) for field in fields]


def _check_zone(connection: Connection, name: str) -> None:
    # The cursor holds the text of the time, and an hour comes twice a year in other zones.
    zone = connection.exec_driver_sql("SELECT @@session.time_zone").scalar()
    if zone not in {"+00:00", "UTC"}:
        raise _refused(name, f"TIMESTAMP, and the engine's time_zone is {zone!r}; set it to '+00:00', or give a URL")


def _check_charset(connection: Connection, name: str) -> None:
    charset = connection.exec_driver_sql("SELECT @@session.character_set_results").scalar()
    if charset not in {"utf8mb4", None}:
        raise _refused(name, f"text, and the connection's charset {charset} cannot hold every character; use utf8mb4")


def _refused(name: str, reason: str) -> ConfigurationError:
    return ConfigurationError(
        f"the key column {name!r} is of type {reason}. Name other key columns, or read a query that casts it"
    )
