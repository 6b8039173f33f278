"""What a database's catalog says about a table: its columns, and what proves that no two rows agree in some of them."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import sqlalchemy as sa
from sqlalchemy import Connection, Dialect
from sqlalchemy.exc import NoSuchTableError
from sqlalchemy.sql import ColumnElement

__all__ = ["Found", "FoundColumn", "look_up", "unique_sets"]


@attrs.frozen
class FoundColumn:
    """A column: its name, its type, and whether it may hold NULL."""

    name: str
    type: sa.types.TypeEngine[Any]
    nullable: bool


@attrs.frozen
class Found:
    """A table.

    Attributes:
        columns: Its columns, in order.
        primary_key: The columns of the primary key; empty if there is none.
        constraints: The columns of each constraint that they are unique, the primary key among them, if all rows are
            under it.
        indexes: The columns of each unique index over all rows and whole columns; without some that constraints have.
    """

    columns: Sequence[FoundColumn]
    primary_key: tuple[str, ...]
    constraints: Sequence[tuple[str, ...]]
    indexes: Sequence[tuple[str, ...]]


def look_up(connection: Connection, name: str, schema: str | None) -> Found | None:
    """Look at a table or view; None if there is none."""
    if connection.dialect.name == "postgresql" and (connection.dialect.server_version_info or ()) >= _POSTGRESQL_SINCE:
        return _postgresql(connection, name, schema)
    inspector = sa.inspect(connection)
    if schema is not None and schema not in inspector.get_schema_names():
        return None
    columns = _inspected(inspector, name, schema)
    if not columns:
        return None
    primary_key = tuple(inspector.get_pk_constraint(name, schema)["constrained_columns"])
    others = [tuple(found["column_names"]) for found in inspector.get_unique_constraints(name, schema)]
    constraints = [primary_key, *others] if primary_key else others
    indexes = [tuple(map(str, found["column_names"])) for found in inspector.get_indexes(name, schema) if _whole(found)]
    return Found(columns, primary_key, constraints, indexes)


def _inspected(inspector: sa.Inspector, name: str, schema: str | None) -> list[FoundColumn]:
    try:
        found = inspector.get_columns(name, schema)
    except NoSuchTableError:
        return []
    return [FoundColumn(str(column["name"]), column["type"], column["nullable"]) for column in found]


def _whole(index: Any) -> bool:
    options = index.get("dialect_options", {})
    partial = any(option.endswith("_where") for option in options)
    prefixed = any(option.endswith("_length") for option in options)
    return index["unique"] and None not in index["column_names"] and not partial and not prefixed


# SQLAlchemy's own look takes seven statements, and 40 ms of CPU to write them, as long as all else until the first
# batch. A server reads its catalogs anew for every connection, so this names as few of them as will do. A collation of
# 0 is none, 100 the database's own. Of an index a part that is an expression has the number 0; and an index on a
# partitioned table is not valid while a partition has none that belongs to it, whose rows may then be anything. So may
# the rows of tables that inherit from one, which are read with its own: they are under none of its indexes, and a
# column of theirs may hold NULL where its own may not. That a table once had such is known without a further catalog.
_POSTGRESQL = """
SELECT CAST((
    SELECT pg_catalog.json_agg(pg_catalog.json_build_array(a.attnum, a.attname, NOT a.attnotnull,
            CASE WHEN a.attcollation IN (0, 100) THEN pg_catalog.format_type(a.atttypid, a.atttypmod) END)
        ORDER BY a.attnum)
    FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
) AS text), CAST((
    SELECT pg_catalog.json_agg(pg_catalog.json_build_array(i.indnkeyatts, CAST(i.indkey AS pg_catalog.int2[]), (
            SELECT n.contype FROM pg_catalog.pg_constraint n
            WHERE n.conindid = i.indexrelid AND n.conrelid = c.oid AND n.contype IN ('p', 'u')
        ), i.indisvalid) ORDER BY i.indexrelid)
    FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND i.indisunique AND i.indpred IS NULL
) AS text), c.relkind <> 'p' AND c.relhassubclass
FROM pg_catalog.pg_class c WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND
"""
_NAMED = "c.oid = pg_catalog.to_regclass(pg_catalog.quote_ident(%s)) AND c.relnamespace <> 'pg_catalog'::regnamespace"
_IN_SCHEMA = "c.relname = %s AND c.relnamespace = (SELECT s.oid FROM pg_catalog.pg_namespace s WHERE s.nspname = %s)"
_POSTGRESQL_SINCE = (11,)
_TYPE = re.compile(r"([a-z ]+?)(?:\((\d+)(?:,(-?\d+))?\))?( with(?:out)? time zone)?")
_WITHOUT_ARGUMENTS = {
    *("smallint", "integer", "bigint", "real", "double precision", "boolean", "date", "text", "uuid", "bytea"),
    *("json", "jsonb", "interval"),
}
_WITH_ARGUMENTS = {"numeric", "character", "character varying"}
_TIMES = {"timestamp", "time"}


def _postgresql(connection: Connection, name: str, schema: str | None) -> Found | None:
    asked = (_POSTGRESQL + _IN_SCHEMA, (name, schema)) if schema else (_POSTGRESQL + _NAMED, (name,))
    *parts, inherited = connection.exec_driver_sql(*asked).one_or_none() or (None, None, False)
    there, unique = (json.loads(part or "[]") for part in parts)
    if not there:
        return None
    columns, typed = [], True
    for _, column, nullable, declared in there:
        known = None if declared is None else _plain_type(connection.dialect, declared)
        typed = typed and known is not None
        columns.append(FoundColumn(column, known or sa.types.NULLTYPE, nullable))
    if not typed:  # enumerations, domains, arrays, and whatever else there may be
        columns = _inspected(sa.inspect(connection), name, schema)
    if inherited:
        columns = [attrs.evolve(column, nullable=True) for column in columns]
    names = {number: column for number, column, *_ in there}
    primary_key: tuple[str, ...] = ()
    constraints: list[tuple[str, ...]] = []
    indexes: list[tuple[str, ...]] = []
    for length, numbers, constraint, valid in unique:
        if not all(number in names for number in numbers[:length]):
            continue
        key = tuple(names[number] for number in numbers[:length])
        if constraint == "p":
            primary_key = key
        if valid and not inherited:
            (indexes if constraint is None else constraints).append(key)
    return Found(columns, primary_key, constraints, indexes)


def _plain_type(dialect: Dialect, declared: str) -> sa.types.TypeEngine[Any] | None:
    """Give the type that SQLAlchemy finds for one in PostgreSQL's words; None where that takes more than those."""
    found = _TYPE.fullmatch(declared)
    if found is None:
        return None
    name, numbers, zone = found[1], [int(number) for number in found.group(2, 3) if number], found[4]
    kind: Any = getattr(dialect, "ischema_names", {}).get(f"{name}{zone or ''}")
    plain = name in (_WITH_ARGUMENTS if numbers else _WITH_ARGUMENTS | _WITHOUT_ARGUMENTS)
    made: sa.types.TypeEngine[Any] | None = None
    if kind is not None and zone is not None and name in _TIMES:
        made = kind(timezone=zone == " with time zone", precision=numbers[0] if numbers else None)
    elif kind is not None and zone is None and plain:
        made = kind(53) if name == "double precision" else kind(*numbers)
    return made


def unique_sets(found: Found, columns: Mapping[str, ColumnElement[Any]]) -> list[frozenset[str]]:
    """Give the sets of columns in which no two rows agree, as the columns themselves compare."""
    # An index, unlike a constraint, may compare text otherwise than the column does.
    text = {name for name, column in columns.items() if isinstance(column.type, sa.String | sa.types.NullType)}
    kept = [*found.constraints, *(names for names in found.indexes if not text & set(names))]
    return [frozenset(names) for names in kept if names]
