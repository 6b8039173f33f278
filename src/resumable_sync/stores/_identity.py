"""Whether two connections lead to the same database."""

from pathlib import Path
from typing import Any

from sqlalchemy import Connection, text

from resumable_sync._database import is_mysql

__all__ = ["same_database"]

_POSTGRESQL = "SELECT current_database(), pg_postmaster_start_time()"
_MYSQL = "SELECT DATABASE(), @@hostname, @@port, @@datadir"


def same_database(one: Connection, other: Connection) -> bool:
    """Whether two connections lead to the same database, by what the servers say: URLs can differ and mean the same."""
    if one.dialect.name == "sqlite" or other.dialect.name == "sqlite":
        return one.dialect.name == other.dialect.name and _same_file(_main_file(one), _main_file(other))
    if is_mysql(one.dialect) != is_mysql(other.dialect):
        return False
    return _ask(one) == _ask(other)


def _ask(connection: Connection) -> tuple[Any, ...]:
    return tuple(connection.execute(text(_MYSQL if is_mysql(connection.dialect) else _POSTGRESQL)).one())


def _main_file(connection: Connection) -> Path | None:
    driver_connection: Any = connection.connection.driver_connection
    # On the driver's own cursor: it leaves the caller's transaction as it is, open or not begun.
    files = [file for _, name, file in driver_connection.execute("PRAGMA database_list") if name == "main"]
    return Path(files[0]) if files and files[0] else None


def _same_file(one: Path | None, other: Path | None) -> bool:
    if one is None or other is None:
        return False
    try:
        return one.samefile(other)
    except OSError:
        return one == other
