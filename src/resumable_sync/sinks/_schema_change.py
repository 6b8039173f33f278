"""The columns of source and target: compared before the first batch, and those that the target lacks added."""

import logging
from collections.abc import Sequence

from sqlalchemy import Connection, Dialect, text
from sqlalchemy.dialects import mysql
from sqlalchemy.exc import DBAPIError

from resumable_sync._database import is_mysql, scrub
from resumable_sync._errors import ConfigurationError, describe_error
from resumable_sync._protocols import Column
from resumable_sync.sinks._copy import copies
from resumable_sync.sinks._kinds import declaration, source_kind
from resumable_sync.sinks._tables import NOT_ALLOWED, error_codes
from resumable_sync.sinks._target import Target, TargetColumn, lock_schema, quote, reflect, verbatim

__all__ = ["IMPOSSIBLE", "IMPOSSIBLE_BY_COPY", "add_columns", "check_columns"]

logger = logging.getLogger("resumable_sync")

_NUMBERS = frozenset({"integer", "decimal", "float"})
_MOMENTS = frozenset({"date", "datetime", "instant"})
_TIMES = _MOMENTS | {"time", "timetz", "interval"}
_DOCUMENTS = frozenset({"uuid", "json"})
# What a kind of the source does not fit, whatever the value but digits in a text or UUID. SQLite takes everything.
IMPOSSIBLE: dict[str, dict[str, frozenset[str]]] = {
    "postgresql": {
        "text": _NUMBERS,
        "bytes": _NUMBERS | _TIMES | _DOCUMENTS | {"boolean", "text"},
        "array": _NUMBERS | _MOMENTS | {"boolean", "uuid"},
        "uuid": _NUMBERS | _MOMENTS | {"boolean", "json"},
        "boolean": _TIMES | {"uuid"},
        "integer": frozenset({"uuid"}),
        **dict.fromkeys(_MOMENTS, _NUMBERS | _DOCUMENTS | {"boolean"}),
        **dict.fromkeys(_TIMES - _MOMENTS, _DOCUMENTS | {"boolean"}),
        "float": _MOMENTS | {"boolean", "uuid"},
        "bits": _NUMBERS | _TIMES | _DOCUMENTS | {"boolean", "text"},
    },
    "mysql": {
        "text": _NUMBERS,
        "array": _NUMBERS | _MOMENTS | {"uuid"},
        "uuid": _NUMBERS | _MOMENTS | {"json"},
        "integer": frozenset({"uuid"}),
        **dict.fromkeys(_MOMENTS, _NUMBERS | _DOCUMENTS),
        **dict.fromkeys(_TIMES - _MOMENTS, _DOCUMENTS),
        "float": frozenset({"uuid"}),
        # Bytes are taken for digits: 53 would be stored as 5, and what is no digit refused.
        "bits": _NUMBERS | _TIMES | _DOCUMENTS | {"boolean"},
    },
}
# COPY reads a float's text, "2.0", which is no text of an integer; INSERT would round it.
IMPOSSIBLE_BY_COPY = {"float": frozenset({"integer"})}
# A view, a rule or a trigger may give a column the value that it lacks; so may the other side of a foreign table.
_FILLED_POSTGRESQL = text("""
    SELECT c.relkind NOT IN ('r', 'p') OR c.relhasrules
        OR EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal AND t.tgtype & 2 > 0)
    FROM pg_class c WHERE c.oid = to_regclass(CAST(:quoted AS text))
""")
_FILLED_MYSQL = text("""
    SELECT EXISTS (
        SELECT 1 FROM information_schema.triggers
        WHERE event_object_schema = COALESCE(:schema, DATABASE()) AND event_object_table = :name
    )
""")
_VIEW_POSTGRESQL = text("SELECT relkind IN ('v', 'm') FROM pg_class WHERE oid = to_regclass(CAST(:quoted AS text))")
_VIEW_MYSQL = text("""
    SELECT EXISTS (
        SELECT 1 FROM information_schema.views
        WHERE table_schema = COALESCE(:schema, DATABASE()) AND table_name = :name
    )
""")
_DUPLICATE_COLUMN = 1060


def check_columns(
    connection: Connection, place: tuple[str, str | None], target: Target, source: Sequence[Column], *, evolve: bool
) -> None:
    """Refuse columns of the source that do not fit the target, all of them in one error.

    Args:
        connection: To the target's database.
        place: Name and schema of the target.
        target: What it looks like.
        source: The source's columns.
        evolve: Whether those that it lacks are added later.

    Raises:
        ConfigurationError: If it lacks columns, has one that needs a value from the source, or one of another kind.
    """
    missing = [column.name for column in source if column.name not in target.columns]
    fixed = bool(missing) and _is_view(connection, place, target)
    if evolve and not fixed:
        missing = []
    names = {column.name for column in source}
    needed = [column for column in target.columns.values() if column.required and column.name not in names]
    if needed and _fills(connection, place, target):
        needed = []
    copied = copies(connection) and target.copyable
    odd = [
        f"{column.name!r} is {target.columns[column.name].declared} there and {_kind(column)} in the source"
        for column in source
        if column.name in target.columns
        and _impossible(column, target.columns[column.name], connection.dialect, copied=copied)
    ]
    problems = [f"it has no column {_named(missing)}"] if missing else []
    if fixed:
        problems.append("it is a view, which gets new columns only by being defined anew")
    if needed:
        shown = _named([column.name for column in needed])
        problems.append(f"the source has no column {shown}, NOT NULL and without a default there")
    problems += odd
    if problems:
        raise ConfigurationError(_refusal(target, names, problems, addable=bool(missing) and not fixed))


def _refusal(target: Target, names: set[str], problems: Sequence[str], *, addable: bool) -> str:
    given = ", ".join(repr(name) for name in sorted(names))
    there = ", ".join(map(repr, target.columns))
    ways = "change the table, or read a query that selects, names or casts the columns so that they fit"
    if addable:
        ways += "; a new run with on_schema_change='evolve' adds the columns that the table lacks"
        ways += " (reset_job(job_id) begins one where a run goes on)"
    return (
        f"the source does not fit table {target.name!r}: {'; '.join(problems)}. The source has {given}, the table "
        f"{there}; {ways}"
    )


def _named(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names))


def _kind(source: Column) -> str:
    # What the driver gives of them are bytes; only SQLAlchemy would make numbers of those.
    return "bits" if isinstance(source.type, mysql.BIT) else source_kind(source.type)


def _impossible(source: Column, target: TargetColumn, dialect: Dialect, *, copied: bool) -> bool:
    if not source.exact:
        return False
    kind = _kind(source)
    if copied and target.kind in IMPOSSIBLE_BY_COPY.get(kind, ()):
        return True
    return target.kind in IMPOSSIBLE.get("mysql" if is_mysql(dialect) else dialect.name, {}).get(kind, ())


def _fills(connection: Connection, place: tuple[str, str | None], target: Target) -> bool:
    """Whether something else than the statement may give values to columns."""
    name, schema = place
    if connection.dialect.name == "postgresql":
        return bool(connection.execute(_FILLED_POSTGRESQL, {"quoted": target.quoted}).scalar())
    if is_mysql(connection.dialect):
        filled = bool(connection.execute(_FILLED_MYSQL, {"schema": schema, "name": name}).scalar())
    else:
        filled = _is_entry(connection, place, "trigger")
    return filled or _is_view(connection, place, target)


def _is_view(connection: Connection, place: tuple[str, str | None], target: Target) -> bool:
    name, schema = place
    if connection.dialect.name == "postgresql":
        return bool(connection.execute(_VIEW_POSTGRESQL, {"quoted": target.quoted}).scalar())
    if is_mysql(connection.dialect):
        return bool(connection.execute(_VIEW_MYSQL, {"schema": schema, "name": name}).scalar())
    return _is_entry(connection, place, "view")


def _is_entry(connection: Connection, place: tuple[str, str | None], kind: str) -> bool:
    """Whether SQLite has something of a kind for a table, or of its name."""
    name, schema = place
    master = quote(connection, "sqlite_master", schema)
    found = connection.exec_driver_sql(
        f"SELECT 1 FROM {master} WHERE tbl_name = ? COLLATE NOCASE AND type = ?",  # noqa: S608
        (name, kind),
    )
    return found.first() is not None


def add_columns(
    connection: Connection, place: tuple[str, str | None], target: Target, source: Sequence[Column]
) -> Target:
    """Add the columns that a target lacks, as columns that may be NULL; nothing that is there is altered.

    Each is declared as a target that is made has it. Doing so again, or in two processes at once, adds nothing more.

    Args:
        connection: In a transaction, of which this becomes a part but on MySQL and MariaDB.
        place: Name and schema of the target.
        target: What it looks like.
        source: The source's columns.

    Returns:
        What it looks like now.

    Raises:
        ConfigurationError: If this role must not alter the table.
    """
    if all(column.name in target.columns for column in source):
        return target
    if is_mysql(connection.dialect):
        # DDL commits, and the caller's transaction holds what keeps a zombie out.
        with connection.engine.connect() as own:
            return _add(own, place, source)
    lock_schema(connection)
    return _add(connection, place, source)


def _add(connection: Connection, place: tuple[str, str | None], source: Sequence[Column]) -> Target:
    name, schema = place
    target = reflect(connection, name, schema)
    lacking = [] if target is None else [column for column in source if column.name not in target.columns]
    for column in lacking:
        _alter(connection, place, column, source)
    target = reflect(connection, name, schema)
    if target is None:
        msg = f"there is no table {f'{schema}.{name}' if schema else name!r} any more; somebody dropped it"
        raise ConfigurationError(f"{msg}: run again")
    if lacking:
        logger.info("table %r: added the columns %s", target.name, _named([column.name for column in lacking]))
    return target


def _alter(connection: Connection, place: tuple[str, str | None], column: Column, source: Sequence[Column]) -> None:
    name, schema = place
    dialect = connection.dialect
    unless = "IF NOT EXISTS " if dialect.name == "postgresql" else ""
    declared = declaration(column, dialect, (), source)
    nullable = " NULL" if is_mysql(dialect) else ""
    statement = (
        f"ALTER TABLE {quote(connection, name, schema)} ADD COLUMN {unless}"
        f"{quote(connection, column.name)} {declared}{nullable}"
    ).rstrip()
    try:
        connection.exec_driver_sql(verbatim(connection, statement))
    except DBAPIError as error:
        codes = error_codes(error)
        if _DUPLICATE_COLUMN in codes:
            return  # another process was faster
        if not codes & NOT_ALLOWED:
            raise
        msg = f"table {name!r} lacks the column {column.name!r}, and this role must not add it"
        raise ConfigurationError(f"{msg} ({describe_error(error)}); run:\n{statement}") from scrub(error)
