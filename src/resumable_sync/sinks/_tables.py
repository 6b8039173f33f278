"""The sinks' own tables in the target's database: making them, and their types."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, String, Table
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.mysql import VARBINARY
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import CreateTable
from sqlalchemy.types import TypeDecorator
from typing_extensions import override

from resumable_sync._database import has_table, is_mysql, scrub
from resumable_sync._errors import ConfigurationError, describe_error
from resumable_sync.sinks._target import lock_schema

__all__ = ["NOT_ALLOWED", "OPTIONS", "Name", "create_own", "error_codes", "permitted"]

OPTIONS: dict[str, Any] = {
    # Another default engine would have no transactions.
    f"{dialect}_{name}": value
    for dialect in ("mysql", "mariadb")
    for name, value in {"engine": "InnoDB", "charset": "ascii", "collate": "ascii_bin"}.items()
}
"""How the tables are made on MySQL and MariaDB."""

# PostgreSQL: insufficient privilege, read only; MySQL: no right to the table, to the database.
_NO_RIGHT = {"42501", 1142, 1044}
NOT_ALLOWED = _NO_RIGHT | {"25006"}


class Name(TypeDecorator[str]):
    """Text that is compared exactly, by code point."""

    impl = String(255)
    cache_ok = True

    @override
    def load_dialect_impl(self, dialect: Any) -> Any:
        if is_mysql(dialect):
            # Every collation of text there ignores trailing blanks, or case, or accents.
            return dialect.type_descriptor(VARBINARY(1020))
        if dialect.name == "postgresql":
            return dialect.type_descriptor(postgresql.VARCHAR(255, collation="C"))
        return dialect.type_descriptor(String(255))

    @override
    def process_bind_param(self, value: str | None, dialect: Any) -> Any:
        return value.encode() if value is not None and is_mysql(dialect) else value

    @override
    def process_result_value(self, value: Any, dialect: Any) -> Any:
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def create_own(connection: Connection, table: Table) -> None:
    """Make a table unless it exists.

    Raises:
        ConfigurationError: If it is missing and must not be made.
        DBAPIError: If making it fails otherwise.
    """
    if has_table(connection, table.name, table.schema):
        return
    statement = CreateTable(table, if_not_exists=True)
    try:
        lock_schema(connection)
        connection.execute(statement)
    except DBAPIError as error:
        if not error_codes(error) & NOT_ALLOWED:
            raise
        text = str(statement.compile(dialect=connection.dialect)).strip()
        msg = f"the target's database lacks the sink's table, and this role must not make it; create it:\n{text}"
        raise ConfigurationError(msg) from scrub(error)


@contextmanager
def permitted(connection: Connection, table: Table) -> Iterator[None]:
    """Say what is missing where the role may not use a table of the library's that somebody else has made.

    Raises:
        ConfigurationError: If that is so.
        DBAPIError: If it is another error.
    """
    try:
        yield
    except DBAPIError as error:
        if not error_codes(error) & _NO_RIGHT:
            raise
        shown = connection.dialect.identifier_preparer.format_table(table)
        msg = (
            f"this role may not use the sink's own table {table.fullname!r} ({describe_error(error)}); have its owner "
            f"run:\nGRANT SELECT, INSERT, UPDATE, DELETE ON {shown} TO this role"
        )
        raise ConfigurationError(msg) from scrub(error)


def error_codes(error: DBAPIError) -> set[Any]:
    """Give the SQLSTATE and the number of a database's error, as far as the driver tells them; newer ones tell both."""
    origin: Any = error.orig
    return {getattr(origin, "sqlstate", None), *getattr(origin, "args", ())[:1]} - {None}
