"""The SQLAlchemy types of a query's columns, as far as the driver tells them."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, Dialect, select
from sqlalchemy import types as sa
from sqlalchemy.dialects import mysql

from resumable_sync._protocols import Column
from resumable_sync.connectors._source import Source
from resumable_sync.connectors._statements import Fetched, compile_statement, is_mysql
from resumable_sync.connectors._types import mysql_fields

__all__ = ["column_types", "postgres_type_names", "result_types"]

_SAMPLE = 1_000

Type = sa.TypeEngine[Any]

_POSTGRES_FORMATS = "SELECT t.oid, format_type(t.oid, NULL) FROM pg_catalog.pg_type t WHERE t.oid = ANY(%s)"
_POSTGRES_OWN = 10_000
"""Below are the numbers of the types that every server has, the same on each."""
_BINARY = 63
_UNSIGNED = 32
_MYSQL_BIGINT, _MYSQL_DECIMAL = 8, 246
_MYSQL_TYPES: Mapping[int, type[Type]] = {
    1: sa.SmallInteger,
    2: sa.SmallInteger,
    3: sa.Integer,
    4: sa.Float,
    5: sa.Double,
    8: sa.BigInteger,
    9: sa.Integer,
    10: sa.Date,
    11: sa.Time,
    13: sa.Integer,
    245: sa.JSON,
}
_MYSQL_TIMES = {7, 12}
_PYTHON_TYPES: Mapping[type, type[Type]] = {
    bool: sa.Boolean,
    int: sa.BigInteger,
    float: sa.Double,
    str: sa.Text,
    bytes: sa.LargeBinary,
    Decimal: sa.Numeric,
    datetime: sa.DateTime,
    date: sa.Date,
}


def column_types(
    dialect: Dialect, connecting: AbstractContextManager[Connection], source: Source, key: Sequence[str]
) -> list[Column]:
    """Describe the columns of a source.

    Args:
        dialect: The database.
        connecting: Gives a connection to it; is not entered for a table, whose columns are known already.
        source: What is read.
        key: Names of the columns that count as its primary key.
    """
    types: dict[str, Type] = {name: column.type for name, column in source.columns.items()}
    odd: set[str] = set()
    if any(isinstance(kind, sa.NullType) for kind in types.values()) and not source.is_table:
        sample = select(*source.columns.values()).limit(_SAMPLE if dialect.name == "sqlite" else 0)
        with connecting as connection:
            fetched = compile_statement(sample, dialect).run(connection)
            types = dict(zip(types, result_types(connection, fetched), strict=True))
        odd = {name for name, kind in types.items() if isinstance(kind, sa.NullType)}
        types |= dict.fromkeys(odd, sa.Text())
    typed = dialect.name != "sqlite"
    return [
        Column(
            name=name,
            type=kind,
            nullable=source.nullable.get(name, True),
            primary_key=name in key,
            # Any column of SQLite holds any kind of value; but one declared as text makes text of numbers.
            exact=(typed and name not in odd) or (source.is_table and isinstance(kind, sa.String)),
        )
        for name, kind in types.items()
    ]


def result_types(connection: Connection, fetched: Fetched) -> list[Type]:
    """Give the types of the columns of a result, best effort.

    PostgreSQL and MySQL tell them; NullType is one of PostgreSQL that SQLAlchemy does not know, such as an enumeration.
    SQLite knows types of values only, so there its first rows decide, and a column that holds none or several kinds is
    text.
    """
    description = fetched.driver_cursor.description
    if connection.dialect.name == "postgresql":
        return _postgres_types(connection, description)
    if is_mysql(connection.dialect):
        fields = mysql_fields(fetched.driver_cursor)
        return [_mysql_type(column, *field) for column, field in zip(description, fields, strict=True)]
    return [_sampled(fetched.rows, place) for place in range(len(description))]


def postgres_type_names(connection: Connection, oids: Sequence[int]) -> dict[int, str]:
    """Give PostgreSQL's words for types, such as `"timestamp with time zone"`, by their OIDs."""
    driver_connection: Any = connection.connection.driver_connection
    adapters = getattr(driver_connection, "adapters", None)  # of psycopg, which knows the server's own types
    known = {} if adapters is None else {oid: adapters.types.get(oid) for oid in oids if oid < _POSTGRES_OWN}
    names = {oid: str(found.regtype) for oid, found in known.items() if found is not None and found.oid == oid}
    if unknown := [oid for oid in oids if oid not in names]:
        rows = connection.exec_driver_sql(_POSTGRES_FORMATS, (unknown,)).all()
        names |= {oid: str(name) for oid, name in rows}
    return names


def _postgres_types(connection: Connection, description: Sequence[Any]) -> list[Type]:
    names = postgres_type_names(connection, [column.type_code for column in description])
    return [_postgres_type(connection, column, names.get(column.type_code, "")) for column in description]


def _postgres_type(connection: Connection, column: Any, name: str) -> Type:
    dialect: Any = connection.dialect
    if name.endswith("[]"):
        return sa.ARRAY(_postgres_type(connection, column, name.removesuffix("[]")))
    if name == "numeric":
        return sa.Numeric(column.precision, column.scale)
    known = dialect.ischema_names.get(name, sa.NullType)
    kind: Type = known(timezone=name.endswith("with time zone")) if name.startswith("time") else known()
    return kind


def _mysql_type(column: Sequence[Any], flags: int, charset: int) -> Type:
    code, scale = column[1], column[5]
    if code == _MYSQL_DECIMAL:
        # The length counts a sign and a point.
        return sa.Numeric(column[3] - (scale > 0) - (not flags & _UNSIGNED), scale)
    if code == _MYSQL_BIGINT and flags & _UNSIGNED:
        return sa.Numeric(20, 0)
    if code in _MYSQL_TIMES:
        # MySQL's own type has whole seconds unless told otherwise.
        return sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
    known = _MYSQL_TYPES.get(code)
    if known is not None:
        return known()
    return sa.LargeBinary() if charset == _BINARY else sa.Text()


def _sampled(rows: Sequence[Sequence[Any]], place: int) -> Type:
    kinds = {type(row[place]) for row in rows if row[place] is not None}
    if kinds == {int, float}:
        kinds = {float}
    return _PYTHON_TYPES.get(kinds.pop(), sa.Text)() if len(kinds) == 1 else sa.Text()
