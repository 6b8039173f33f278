"""Dialects of SQLAlchemy over ADBC: PostgreSQL's and SQLite's own, and one that knows what ADBC itself can tell."""

from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql.base import PGDialect
from sqlalchemy.dialects.sqlite.base import SQLiteDialect
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.exc import NoSuchTableError
from sqlalchemy.sql.compiler import SQLCompiler
from typing_extensions import override

from resumable_sync._arrow.columns import columns_of
from resumable_sync._arrow.dbapi import ADBC, adbc_dbapi, is_lost

__all__ = ["AdbcPostgreSQL", "AdbcSQLite", "OtherAdbc"]


class _OverADBC(DefaultDialect):
    """What the dialects have in common."""

    driver = ADBC
    default_paramstyle = "qmark"
    supports_statement_cache = True
    supports_sane_multi_rowcount = False
    preexecute_autoincrement_sequences = False
    postfetch_lastrowid = False

    @classmethod
    @override
    def import_dbapi(cls) -> Any:
        return adbc_dbapi(cls.default_paramstyle)

    @override
    def do_ping(self, dbapi_connection: Any) -> bool:
        with dbapi_connection.cursor() as cursor:
            cursor.run("SELECT 1")
            cursor.fetchall()
        return True

    @override
    def is_disconnect(self, e: Any, connection: Any, cursor: Any) -> bool:
        return is_lost(e)

    @override
    def get_isolation_level_values(self, dbapi_conn: Any) -> Any:
        return ["AUTOCOMMIT", "READ COMMITTED", "SERIALIZABLE"]

    @override
    def get_isolation_level(self, dbapi_connection: Any) -> Any:
        return "AUTOCOMMIT" if dbapi_connection.autocommit else "READ COMMITTED"

    @override
    def set_isolation_level(self, dbapi_connection: Any, level: Any) -> None:
        dbapi_connection.autocommit = level == "AUTOCOMMIT"

    def _set_backslash_escapes(self, connection: Any) -> None:
        """Asks PostgreSQL for a setting on which no text of ours depends."""


class AdbcPostgreSQL(_OverADBC, PGDialect):
    """PostgreSQL over ADBC; values are written into the statements."""

    default_paramstyle = "pyformat"
    supports_statement_cache = True


class AdbcSQLite(_OverADBC, SQLiteDialect):
    """SQLite over ADBC."""

    supports_statement_cache = True

    @override
    def _get_server_version_info(self, connection: Connection) -> Any:
        # At least that is in every wheel of the driver.
        return self.dbapi.sqlite_version_info if self.dbapi else None


class _OtherCompiler(SQLCompiler):
    @override
    def for_update_clause(self, select: Any, **_: Any) -> str:
        # Not every one has it; who writes what another one has written meanwhile is refused by the transaction.
        return ""


class OtherAdbc(_OverADBC):
    """A database of which nothing is known but what ADBC tells."""

    name = "adbc"
    statement_compiler = _OtherCompiler
    supports_statement_cache = True

    @override
    def initialize(self, connection: Connection) -> None:
        self.default_schema_name = None
        self.default_isolation_level = "READ COMMITTED"

    def _objects(self, connection: Connection, depth: str, **filters: Any) -> Any:
        adbc: Any = connection.connection.driver_connection
        return adbc.objects(depth, filters)

    def _tables(self, connection: Connection, schema: str | None, name: str | None = None) -> Iterator[Any]:
        filters = {"table_name_filter": name, "db_schema_filter": schema}
        for catalog in self._objects(connection, "tables" if name is None else "all", **filters):
            for found in catalog["catalog_db_schemas"] or ():
                for table in found["db_schema_tables"] or ():
                    if name is None or table["table_name"].lower() == name.lower():
                        yield table

    @override
    def has_table(self, connection: Connection, table_name: str, schema: str | None = None, **_: Any) -> bool:
        return any(True for _ in self._tables(connection, schema, table_name))

    @override
    def get_table_names(self, connection: Connection, schema: str | None = None, **_: Any) -> list[str]:
        return [table["table_name"] for table in self._tables(connection, schema)]

    @override
    def get_schema_names(self, connection: Connection, **_: Any) -> list[str]:
        catalogs = self._objects(connection, "db_schemas")
        return [found["db_schema_name"] for catalog in catalogs for found in catalog["catalog_db_schemas"] or ()]

    @override
    def get_columns(self, connection: Connection, table_name: str, schema: str | None = None, **_: Any) -> Any:
        adbc: Any = connection.connection.driver_connection
        found = adbc.table_schema(table_name, schema)
        if found is None:
            raise NoSuchTableError(table_name)
        return [{"name": one.name, "type": one.type, "nullable": True, "default": None} for one in columns_of(found)]

    @override
    def get_pk_constraint(self, connection: Connection, table_name: str, schema: str | None = None, **_: Any) -> Any:
        tables = list(self._tables(connection, schema, table_name))
        keys = [one for table in tables for one in table["table_constraints"] or () if one["constraint_type"] == _KEY]
        # Of two tables of the name in several schemas nobody says which is meant.
        columns = keys[0]["constraint_column_names"] if len(tables) == len(keys) == 1 else []
        return {"constrained_columns": columns, "name": None}

    @override
    def get_unique_constraints(self, *_: Any, **__: Any) -> Any:
        return []

    @override
    def get_indexes(self, *_: Any, **__: Any) -> Any:
        return []


_KEY = "PRIMARY KEY"
