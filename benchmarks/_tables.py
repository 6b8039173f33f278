"""The table that the benchmarks copy, made in a database: orders of ten columns, about 170 bytes a row."""

import contextlib
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import _loops
from sqlalchemy import create_engine, make_url

__all__ = ["plain", "postgres_source", "source_on", "sqlite_source"]


def plain(url: str) -> str:
    """Give a URL as drivers take it. The password is not looked at, but dlt wants one."""
    return make_url(url).set(drivername="postgresql", password="trust").render_as_string(hide_password=False)


def postgres_source(server: Any, rows: int) -> str:
    """Make `orders` in a database of its own; give the URL."""
    return source_on(server, f"CREATE TABLE orders {_loops.SOURCE}", _loops.VALUES.format(time="TIMESTAMP"), rows)


def source_on(server: Any, table: str, values: str, rows: int) -> str:
    """Make the table in a database of its own; give the URL."""
    url: str = server.create_database()
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql(table)
        numbers = f"FROM generate_series(1, {rows}) AS i"
        connection.exec_driver_sql(f"INSERT INTO orders SELECT {values.replace('%', '%%')} {numbers}")
        connection.exec_driver_sql("ANALYZE orders")
    engine.dispose()
    return plain(url)


@contextlib.contextmanager
def sqlite_source(rows: int) -> Iterator[str]:
    """Give the path of a SQLite file with the table."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "source.db")
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute(f"CREATE TABLE orders {_loops.SOURCE}")
            numbers = f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})"
            connection.execute(f"INSERT INTO orders {numbers} SELECT {_loops.VALUES.format(time='TEXT')} FROM n")
            connection.commit()
        yield str(path)
