"""Loops written by hand, with the drivers alone, and one COPY into another without a checkpoint."""

import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Literal

from benchmarks._loops import CHECKPOINT, COLUMNS, postgres_by_hand, postgres_stream, sqlite_by_hand
from benchmarks._peers._common import load, main

STATEMENTS = (f"CREATE TABLE orders {COLUMNS}", CHECKPOINT, "INSERT INTO checkpoint VALUES ('orders', 1, 0, 0)")


def postgres(source: str, target: str, way: Literal["loop", "stream"] = "loop", batch: int = 0) -> None:
    """Copy."""
    import psycopg

    with psycopg.connect(target) as connection:
        for statement in STATEMENTS:
            connection.execute(statement)
    if way == "loop":
        postgres_by_hand(source, target, batch)
    else:
        postgres_stream(source, target)


def sqlite(source: str, target: str, batch: int) -> None:
    """Copy."""
    with closing(sqlite3.connect(target)) as connection, connection:
        for statement in STATEMENTS:
            connection.execute(statement)
    sqlite_by_hand(Path(source), Path(target), batch)


def parquet(source: str, target: str, batch: int) -> None:
    """Write."""
    from benchmarks._loops_parquet import parquet_by_hand

    parquet_by_hand(source, Path(target, "orders"), batch, a_file_each=False)


if __name__ == "__main__":
    if sys.argv[1] != "sqlite":
        load("psycopg")
    if sys.argv[1] == "parquet":
        load("benchmarks._loops_parquet")
    main(postgres=postgres, sqlite=sqlite, parquet=parquet)
