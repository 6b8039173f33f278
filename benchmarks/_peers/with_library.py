"""The library, as its README uses it: a checkpoint with every batch, exactly once."""

import sys
from contextlib import closing
from typing import Any

from benchmarks._loops import COLUMNS
from benchmarks._peers._common import load, main
from sqlalchemy import create_engine

from resumable_sync import run_full_sync
from resumable_sync.connectors.sql import SQLConnector
from resumable_sync.sinks.sql import SQLSink
from resumable_sync.stores.sql import SQLJobStore


def sync(source: str, sink: Any, store: str, **options: Any) -> None:
    """Sync."""
    with SQLJobStore(store) as jobs, closing(SQLConnector(source, "orders")) as connector:
        run_full_sync("orders", connector, sink, store=jobs, **options)


def tables(source: str, target: str, **options: Any) -> None:
    """Copy into a table that is there, without a key, as that of most peers."""
    engine = create_engine(target)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"CREATE TABLE IF NOT EXISTS orders {COLUMNS}")
    engine.dispose()
    sync(source, SQLSink("orders", mode="append"), target, **options)


def postgres(source: str, target: str, **options: Any) -> None:
    """Copy."""
    tables(*(url.replace("://", "+psycopg://", 1) for url in (source, target)), **options)


def sqlite(source: str, target: str, **options: Any) -> None:
    """Copy."""
    tables(f"sqlite:///{source}", f"sqlite:///{target}", **options)


def parquet(source: str, target: str, **options: Any) -> None:
    """Write."""
    from resumable_sync.sinks.parquet import ParquetSink

    sink = ParquetSink(target + "/orders")
    sync(source.replace("://", "+psycopg://", 1), sink, f"sqlite:///{target}/store.db", **options)


if __name__ == "__main__":
    if sys.argv[1] != "sqlite":
        load("psycopg")
    if sys.argv[1] == "parquet":
        load("resumable_sync.sinks.parquet", "adbc_driver_postgresql.dbapi")
    main(postgres=postgres, sqlite=sqlite, parquet=parquet)
