"""The target of `SQLSink`: what its table looks like, and making it where it is missing."""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import DBAPIError, NoSuchTableError

from resumable_sync._database import is_mysql
from resumable_sync._errors import ConfigurationError
from resumable_sync._protocols import Column
from resumable_sync.sinks._kinds import column_kind, declaration, source_kind

__all__ = ["Target", "TargetColumn", "create", "lock_schema", "quote", "reflect", "verbatim"]

_NO_SUCH_TABLE = 1146


@attrs.frozen(kw_only=True)
class TargetColumn:
    """A column of the target.

    Attributes:
        name: Its name.
        declared: Its type in the database's words.
        kind: What it holds: `"integer"`, `"text"`, `"json"`, ...; `"other"` where that does not matter.
        nullable: Whether it may hold NULL.
        generated: Whether the database gives its value (auto-increment on MySQL and MariaDB, ALWAYS AS IDENTITY).
        collation: Its collation on PostgreSQL, quoted, unless it is the default of its type.
        required: Whether a row needs a value for it: it is NOT NULL, and the database has none to give.
    """

    name: str
    declared: str
    kind: str
    nullable: bool
    generated: bool = False
    collation: str | None = None
    required: bool = attrs.field(default=False, eq=False)  # two tables do not differ by where a value comes from


@attrs.frozen(kw_only=True)
class Target:
    """The target's table.

    Attributes:
        name: Its name, for people.
        quoted: Its name, for statements.
        qualified: The same, on SQLite with the schema in any case.
        columns: Its columns by name.
        primary_key: Names of the columns of its primary key.
        unique: Column names of each unique index, the primary key among them; an index over a part of the rows, or over
            parts or expressions of columns, is left out.
        odd_unique: Names of unique indexes over parts or expressions of columns.
        copyable: Whether PostgreSQL can COPY into it.
        utc: Whether the database takes times for UTC where it must know (TIMESTAMP on MySQL and MariaDB).
        counted: Whether it is certain that SQLite adds every row that it is given, and counts it: no trigger and no
            `ON CONFLICT` of the table's own passes one over.
        place: Its name and schema, unquoted.
    """

    name: str
    quoted: str
    qualified: str
    columns: Mapping[str, TargetColumn]
    primary_key: tuple[str, ...]
    unique: tuple[tuple[str, ...], ...]
    odd_unique: tuple[str, ...] = ()
    copyable: bool = True
    utc: bool = True
    counted: bool = False
    place: tuple[str, str | None] = attrs.field(default=("", None), eq=False)


def quote(connection: Connection, name: str, schema: str | None = None) -> str:
    """Quote a name, whatever it holds."""
    preparer = connection.dialect.identifier_preparer
    # The preparers of some drivers double % as well; that is done in one place, by `verbatim`.
    mark = preparer.final_quote
    return ".".join(f"{mark}{part.replace(mark, mark * 2)}{mark}" for part in (schema, name) if part)


def verbatim(connection: Connection, statement: str) -> str:
    """Give a statement without parameters in the form in which the driver takes it for itself."""
    formats = connection.dialect.paramstyle in ("format", "pyformat")
    return statement.replace("%", "%%") if formats else statement


def reflect(connection: Connection, name: str, schema: str | None) -> Target | None:
    """Look at a table, a view too; None if there is none."""
    quoted = quote(connection, name, schema)
    found = _reflectors(connection)(connection, name, schema, quoted)
    if found is None:
        return None
    shown = f"{schema}.{name}" if schema else name
    qualified = quote(connection, name, schema or "main") if connection.dialect.name == "sqlite" else quoted
    return Target(name=shown, quoted=quoted, qualified=qualified, place=(name, schema), **found)


def _reflectors(connection: Connection) -> Any:
    if is_mysql(connection.dialect):
        return _reflect_mysql
    known = {"postgresql": _reflect_postgresql, "sqlite": _reflect_sqlite, "adbc": _reflect_adbc}
    return known[connection.dialect.name]


def _by_name(columns: Sequence[TargetColumn]) -> dict[str, TargetColumn]:
    return {column.name: column for column in columns}


def _reflect_sqlite(connection: Connection, name: str, schema: str | None, _quoted: str) -> dict[str, Any] | None:
    prefix = f"{quote(connection, schema)}." if schema else ""

    def pragma(which: str, argument: str) -> Sequence[Any]:
        return connection.exec_driver_sql(f"PRAGMA {prefix}{which}({quote(connection, argument)})").all()

    rows = pragma("table_xinfo", name)
    if not rows:
        return None
    keys = sorted((row.pk, row.name) for row in rows if row.pk)
    primary = tuple(column for _, column in keys)
    unique = [primary] if primary else []
    for index in pragma("index_list", name):
        if index.unique and not index.partial:
            parts = [part.name for part in pragma("index_info", index.name)]
            if None not in parts:
                unique.append(tuple(parts))
    columns = [
        TargetColumn(
            name=row.name,
            declared=row.type,
            kind=column_kind(row.type),
            # An INTEGER PRIMARY KEY takes NULL for the next free number, NOT NULL or not.
            nullable=not row.notnull or row.type.upper() == "INTEGER",
            required=bool(row.notnull)
            and row.dflt_value is None
            and not row.hidden
            and not (row.pk and row.type.upper() == "INTEGER"),
        )
        for row in rows
    ]
    made: Sequence[Any] = connection.exec_driver_sql(
        f"SELECT type, sql FROM {prefix or 'main.'}sqlite_master "  # noqa: S608 - quoted
        "WHERE tbl_name = ? COLLATE NOCASE AND type <> 'index'",
        (name,),
    ).all()
    return {
        "columns": _by_name(columns),
        "primary_key": primary,
        "unique": tuple(unique),
        "counted": [part.type for part in made] == ["table"] and "CONFLICT" not in made[0].sql.upper(),
    }


# A server reads its catalogs anew for every connection: these name as few of them as will do.
_POSTGRESQL_COLUMNS = """
    SELECT a.attnum, a.attname, format_type(COALESCE(NULLIF(t.typbasetype, 0), a.atttypid), a.atttypmod) AS base,
        format_type(a.atttypid, a.atttypmod) AS declared, a.attnotnull, a.attidentity,
        a.atthasdef OR t.typdefault IS NOT NULL AS has_default, c.relkind, c.relrowsecurity,
        CASE WHEN a.attcollation NOT IN (0, t.typcollation)
            THEN (pg_identify_object('pg_collation'::regclass, a.attcollation, 0)).identity END AS collation
    FROM pg_class c
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        JOIN pg_type t ON t.oid = a.atttypid
    WHERE c.oid = to_regclass(CAST(%s AS text)) ORDER BY a.attnum
"""
_POSTGRESQL_UNIQUE = """
    SELECT i.indisprimary, CAST(i.indkey AS text) AS parts, i.indnkeyatts
    FROM pg_index i
    WHERE i.indrelid = to_regclass(CAST(%s AS text)) AND i.indisunique AND i.indisvalid AND i.indimmediate
        AND i.indpred IS NULL
    ORDER BY i.indexrelid
"""


def _reflect_postgresql(connection: Connection, _name: str, _schema: str | None, quoted: str) -> dict[str, Any] | None:
    rows = connection.exec_driver_sql(_POSTGRESQL_COLUMNS, (quoted,)).all()
    if not rows:
        return None
    columns = [
        TargetColumn(
            name=row.attname,
            declared=row.declared,
            kind=column_kind(row.base),
            nullable=not row.attnotnull,
            generated=row.attidentity in ("a", b"a"),
            collation=row.collation,
            required=row.attnotnull and not row.has_default and row.attidentity in ("", b""),
        )
        for row in rows
    ]
    names = {row.attnum: row.attname for row in rows}
    unique: list[tuple[str, ...]] = []
    primary: tuple[str, ...] = ()
    for row in connection.exec_driver_sql(_POSTGRESQL_UNIQUE, (quoted,)).all():
        numbers = [int(number) for number in row.parts.split()[: row.indnkeyatts]]
        if all(number in names for number in numbers):  # 0 is an expression
            unique.append(tuple(names[number] for number in numbers))
            primary = unique[-1] if row.indisprimary else primary
    plain = rows[0].relkind in ("r", b"r", "p", b"p", "f", b"f") and not rows[0].relrowsecurity
    return {
        "columns": _by_name(columns),
        "primary_key": primary,
        "unique": tuple(unique),
        "copyable": plain,
    }


def _reflect_adbc(connection: Connection, name: str, schema: str | None, _quoted: str) -> dict[str, Any] | None:
    try:
        found = inspect(connection).get_columns(name, schema)
    except NoSuchTableError:
        return None
    columns = [
        TargetColumn(name=one["name"], declared=str(one["type"]), kind=source_kind(one["type"]), nullable=True)
        for one in found
    ]
    return {"columns": _by_name(columns), "primary_key": (), "unique": ()}


def _reflect_mysql(connection: Connection, _name: str, _schema: str | None, quoted: str) -> dict[str, Any] | None:
    try:
        rows = connection.exec_driver_sql(verbatim(connection, f"SHOW COLUMNS FROM {quoted}")).all()
    except DBAPIError as error:
        if error.orig is not None and error.orig.args and error.orig.args[0] == _NO_SUCH_TABLE:
            return None
        raise
    columns = [
        TargetColumn(
            name=row.Field,
            declared=str(row.Type),
            kind=column_kind(str(row.Type)),
            nullable=row.Null == "YES",
            generated="auto_increment" in row.Extra.lower(),
            required=_needs_value(row),
        )
        for row in rows
    ]
    indexes: dict[str, list[str | None]] = defaultdict(list)
    for row in connection.exec_driver_sql(verbatim(connection, f"SHOW INDEX FROM {quoted}")):
        if not row.Non_unique:
            indexes[row.Key_name].append(None if row.Sub_part else row.Column_name)
    mode, zone, system_zone = connection.exec_driver_sql(
        "SELECT @@SESSION.sql_mode, @@SESSION.time_zone, @@system_time_zone"
    ).one()
    _check_strict(str(mode))
    return {
        "columns": _by_name(columns),
        "primary_key": tuple(name for name in indexes.get("PRIMARY", ()) if name),
        "unique": tuple(tuple(name for name in names if name) for names in indexes.values() if None not in names),
        "odd_unique": tuple(name for name, names in indexes.items() if None in names),
        "utc": (system_zone if zone == "SYSTEM" else zone) in ("+00:00", "UTC"),
    }


def _needs_value(row: Any) -> bool:
    given = any(word in row.Extra.lower() for word in ("auto_increment", "generated"))
    # An enumeration has its first value for a default.
    return row.Null == "NO" and row.Default is None and not given and not str(row.Type).startswith("enum")


def _check_strict(mode: str) -> None:
    if "STRICT_" not in mode and "TRADITIONAL" not in mode:
        msg = (
            "the session of the target's database is not in strict mode, where values that do not fit are cut without "
            "an error; add sql_mode=STRICT_TRANS_TABLES to the URL's query"
        )
        raise ConfigurationError(msg)


def create(
    connection: Connection, name: str, schema: str | None, columns: Sequence[Column], key: Sequence[str]
) -> None:
    """Make the target, unless somebody else does so at this moment.

    Args:
        connection: In a transaction, which the statement commits on MySQL and MariaDB.
        name: Name of the table.
        schema: Its schema, or None for the default one.
        columns: The source's columns.
        key: Names of the columns of the primary key; none makes a table without.
    """
    dialect = connection.dialect
    lines = [
        " ".join(
            part
            for part in (
                quote(connection, column.name),
                declaration(column, dialect, key, columns),
                "NOT NULL" if _not_null(column, key) else "",
            )
            if part
        )
        for column in columns
    ]
    if key:
        lines.append(f"PRIMARY KEY ({', '.join(quote(connection, column) for column in key)})")
    options = " ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4" if is_mysql(dialect) else ""
    statement = f"CREATE TABLE IF NOT EXISTS {quote(connection, name, schema)} ({', '.join(lines)}){options}"
    lock_schema(connection)
    connection.exec_driver_sql(verbatim(connection, statement))


def _not_null(column: Column, key: Sequence[str]) -> bool:
    # The JSON value null reaches us as None from most drivers, also where the column is NOT NULL.
    return column.name in key or not (column.nullable or source_kind(column.type) == "json")


def lock_schema(connection: Connection) -> None:
    """Have processes that create the same table wait for each other, to the end of the transaction."""
    if connection.dialect.name == "postgresql":
        # CREATE TABLE IF NOT EXISTS races between processes there: both find none, and one fails.
        number = int.from_bytes(hashlib.blake2b(b"resumable_sync sinks", digest_size=8).digest(), signed=True)
        connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": number})
