"""Replacing a table on SQLite."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError
from typing_extensions import override

from resumable_sync._database import scrub
from resumable_sync._errors import ConfigurationError
from resumable_sync.sinks._swap import Swapper, altered
from resumable_sync.sinks._target import quote, reflect

__all__ = ["SQLiteSwapper"]

_NAME = r"""(?:"(?:[^"]|"")*"|'(?:[^']|'')*'|`(?:[^`]|``)*`|\[[^\]]*\]|[^\s"'`\[(,;./-]+)"""
_BLANK = r"(?:\s|--[^\n]*(?:\n|$)|/\*.*?\*/)"
# SQLite keeps a statement from the name on, behind words of its own in capitals, and without the schema.
_TABLE = re.compile(rf"CREATE TABLE {_NAME}", re.DOTALL)
_INDEX = re.compile(rf"(CREATE (?:UNIQUE )?INDEX ){_NAME}({_BLANK}*ON{_BLANK}*){_NAME}", re.DOTALL | re.IGNORECASE)
_BEGINNING = re.compile(r"CREATE (?:UNIQUE )?(?:INDEX|TRIGGER) ")


class SQLiteSwapper(Swapper):
    """Drops the old table and renames the new one, in one transaction.

    Indexes that are not unique are built when the rows are there, which is quicker, and because names of indexes are
    unique in the whole database.
    """

    @override
    def locate(self, connection: Connection, name: str, schema: str | None) -> str | None:
        if schema is not None:
            return schema
        for row in connection.exec_driver_sql("PRAGMA database_list").all():
            if row.name != "temp" and _entry(connection, name, row.name) is not None:
                return str(row.name)
        return "main"

    @override
    def check(self, connection: Connection, name: str, schema: str | None) -> None:
        entry = _entry(connection, name, schema)
        if entry is None:
            return
        if entry.type == "view" or not entry.sql.startswith("CREATE TABLE"):
            what = "a view" if entry.type == "view" else "a virtual table"
            msg = f"{name!r} is {what}, and mode='replace' replaces tables; name the table behind it, or another one"
            raise ConfigurationError(msg)
        # Without them the references stand by name alone, and stay. With them, dropping the old table would delete or
        # forbid the rows that refer to it.
        if connection.exec_driver_sql("PRAGMA foreign_keys").scalar():
            children = _children(connection, entry.name, schema)
            if children:
                msg = (
                    f"table {name!r} cannot be replaced while foreign keys are enforced (PRAGMA foreign_keys) and "
                    f"{', '.join(map(repr, children))} refer to it; drop those foreign keys, use a connection that "
                    "does not enforce them, or use mode='upsert'"
                )
                raise ConfigurationError(msg)

    @override
    def create_like(self, connection: Connection, name: str, schema: str | None, staging: str) -> None:
        entry = _entry(connection, name, schema)
        assert entry is not None  # noqa: S101 - the caller has looked
        new = quote(connection, staging, schema)
        statements = [_TABLE.sub(lambda _: f"CREATE TABLE {new}", entry.sql, count=1)]
        for number, index in enumerate(_unique_indexes(connection, entry.name, schema)):
            index_name = quote(connection, f"{staging}_{number}", schema)
            table = quote(connection, staging)
            found = _INDEX.match(index.sql)
            assert found is not None  # noqa: S101 - the form in which SQLite keeps it
            statements.append(f"{found[1]}{index_name}{found[2]}{table}{index.sql[found.end() :]}")
        try:
            for statement in statements:
                connection.exec_driver_sql(statement)
        except DBAPIError as error:
            msg = (
                f"no second table can be made like {name!r}: {scrub(error).args[0]}; if its checks or indexes name the "
                "table itself, leave the name out there"
            )
            raise ConfigurationError(msg) from error

    @override
    def follow(self, connection: Connection, name: str, schema: str | None, staging: str) -> None:
        """Do nothing: checks stand in the statement that made the staging table."""

    @override
    def swap(self, connection: Connection, name: str, schema: str | None, staging: str) -> None:
        self.check(connection, name, schema)
        old = _entry(connection, name, schema)
        with _renames_nothing_else(connection):
            if old is None:
                _rename(connection, staging, schema, name)
                return
            _check_columns(connection, old.name, schema, staging)
            kept = _kept(connection, old.name, schema)
            last = _sequence(connection, old.name, schema)
            interim = _unique_indexes(connection, staging, schema)
            connection.exec_driver_sql(f"DROP TABLE {quote(connection, old.name, schema)}")
            _rename(connection, staging, schema, old.name)
            for index in interim:
                connection.exec_driver_sql(f"DROP INDEX {quote(connection, index.name, schema)}")
            for statement in kept:
                connection.exec_driver_sql(statement)
        if last is not None:
            _go_on_from(connection, old.name, schema, last)


def _check_columns(connection: Connection, name: str, schema: str | None, staging: str) -> None:
    target, loaded = (reflect(connection, table, schema) for table in (name, staging))
    assert target is not None  # noqa: S101 - both were just seen
    assert loaded is not None  # noqa: S101
    changed = [column for column in target.columns if loaded.columns.get(column) != target.columns[column]]
    if changed:
        raise ConfigurationError(altered(name, changed, staging))


def _master(connection: Connection, schema: str | None) -> str:
    return quote(connection, "sqlite_master", schema)


def _select(connection: Connection, statement: str, *parameters: Any) -> Sequence[Any]:
    # By the driver itself: for SQLAlchemy a colon in a quoted name would be a parameter.
    return connection.exec_driver_sql(statement, parameters).all()


def _entry(connection: Connection, name: str, schema: str | None) -> Any:
    """Give name, type and statement of a table or view; None if there is none."""
    found = _select(
        connection,
        f"SELECT name, type, sql FROM {_master(connection, schema)} "  # noqa: S608 - quoted
        "WHERE type IN ('table', 'view') AND name = ? COLLATE NOCASE",
        name,
    )
    return found[0] if found else None


def _children(connection: Connection, name: str, schema: str | None) -> list[str]:
    """Name the tables with a foreign key to a table, itself among them."""
    found = _select(
        connection,
        f"SELECT DISTINCT m.name FROM {_master(connection, schema)} AS m, "  # noqa: S608 - quoted
        "pragma_foreign_key_list(m.name, ?) AS f "
        "WHERE m.type = 'table' AND f.\"table\" = ? COLLATE NOCASE ORDER BY m.name",
        schema or "main",
        name,
    )
    return [row.name for row in found]


def _unique_indexes(connection: Connection, name: str, schema: str | None) -> Sequence[Any]:
    """Give name and statement of the unique indexes that are not part of the table's own statement."""
    return _select(
        connection,
        f"SELECT m.name, m.sql FROM {_master(connection, schema)} AS m, "  # noqa: S608 - quoted
        "pragma_index_list(m.tbl_name, ?) AS i "
        "WHERE m.type = 'index' AND m.tbl_name = ? AND m.sql IS NOT NULL AND i.name = m.name AND i.\"unique\" "
        "ORDER BY m.name",
        schema or "main",
        name,
    )


def _kept(connection: Connection, name: str, schema: str | None) -> list[str]:
    """Give the statements that make a table's indexes and triggers, which are dropped with it."""
    found = _select(
        connection,
        f"SELECT sql FROM {_master(connection, schema)} WHERE tbl_name = ? COLLATE NOCASE "  # noqa: S608 - quoted
        "AND type IN ('index', 'trigger') AND sql IS NOT NULL ORDER BY type, rowid",
        name,
    )
    place = f"{quote(connection, schema)}." if schema else ""
    return [_BEGINNING.sub(lambda match: f"{match[0]}{place}", row.sql, count=1) for row in found]


def _rename(connection: Connection, staging: str, schema: str | None, name: str) -> None:
    connection.exec_driver_sql(f"ALTER TABLE {quote(connection, staging, schema)} RENAME TO {quote(connection, name)}")


@contextmanager
def _renames_nothing_else(connection: Connection) -> Iterator[None]:
    """Have renaming a table leave alone what refers to it by name: views, triggers and foreign keys.

    Yields:
        Nothing.
    """
    # Otherwise it looks through all views and triggers, and fails at any that is invalid, also for other reasons.
    before = connection.exec_driver_sql("PRAGMA legacy_alter_table").scalar()
    connection.exec_driver_sql("PRAGMA legacy_alter_table=ON")
    try:
        yield
    finally:
        connection.exec_driver_sql(f"PRAGMA legacy_alter_table={int(bool(before))}")


def _sequence(connection: Connection, name: str, schema: str | None) -> int | None:
    """Give the last number that AUTOINCREMENT gave; None if the table has no such column, or gave none."""
    if _entry(connection, "sqlite_sequence", schema) is None:
        return None
    table = quote(connection, "sqlite_sequence", schema)
    found = _select(connection, f"SELECT seq FROM {table} WHERE name = ?", name)  # noqa: S608 - quoted
    return int(found[0].seq) if found and found[0].seq is not None else None


def _go_on_from(connection: Connection, name: str, schema: str | None, last: int) -> None:
    """Have AUTOINCREMENT go on after a number, or after a higher one that it stands at: none is given twice."""
    now = _sequence(connection, name, schema)
    table = quote(connection, "sqlite_sequence", schema)
    if now is None:
        statement = f"INSERT INTO {table} (seq, name) VALUES (?, ?)"  # noqa: S608 - quoted
    else:
        statement = f"UPDATE {table} SET seq = max(seq, ?) WHERE name = ?"  # noqa: S608 - quoted
    connection.exec_driver_sql(statement, (last, name))
