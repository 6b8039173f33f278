"""Questions to PostgreSQL's catalog that cost a new process little.

A server reads its catalogs anew for every connection, so that what a question names there takes more time than the
answer: SQLAlchemy's own whether there is a table takes 8 ms in each process that starts, and psycopg's for a type 6.
"""

from typing import Any

from sqlalchemy import Connection, Dialect

__all__ = ["ask_briefly_for_types", "has_table"]

# As a statement finds it; in a schema by name, since that may be one in which this role may not look anything up.
_NAMED = "SELECT 1 WHERE pg_catalog.to_regclass(pg_catalog.quote_ident(%s)) IS NOT NULL"
_IN_SCHEMA = """
SELECT 1 FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relname = %s AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname = %s
"""


def has_table(connection: Connection, name: str, schema: str | None) -> bool:
    """Whether there is a table of that name; none of a schema is one that needs no schema before its name."""
    asked = (_IN_SCHEMA, (name, schema)) if schema else (_NAMED, (name,))
    return connection.exec_driver_sql(*asked).first() is not None


def ask_briefly_for_types(dialect: Dialect) -> None:
    """Have SQLAlchemy's dialect of psycopg ask whether there is a type before it asks for all that is known of it.

    At its first connection it asks for `hstore`, which hardly any database has. (Where SQLAlchemy goes another way,
    this is without effect.)
    """
    fetch: Any = getattr(dialect, "_type_info_fetch", None)

    def fetch_if_there(connection: Connection, name: str) -> Any:
        there = connection.exec_driver_sql("SELECT pg_catalog.to_regtype(%s)", (name,)).scalar() is not None
        return fetch(connection, name) if there else None

    if fetch is not None:
        dialect._type_info_fetch = fetch_if_there  # type: ignore[attr-defined]  # noqa: SLF001 - no public way
