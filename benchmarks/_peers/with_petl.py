"""petl: `fromdb` from a server-side cursor, `appenddb`."""

import sqlite3
import sys
from contextlib import closing

import petl
from benchmarks._loops import COLUMNS
from benchmarks._peers._common import load, main

QUERY = "SELECT * FROM orders"


def postgres(source: str, target: str) -> None:
    """Copy."""
    import psycopg

    with closing(psycopg.connect(source)) as read, closing(psycopg.connect(target)) as write:
        write.cursor().execute(f"CREATE TABLE orders {COLUMNS}")
        write.commit()
        petl.appenddb(petl.fromdb(lambda: read.cursor(name="orders"), QUERY), write, "orders")


def sqlite(source: str, target: str) -> None:
    """Copy."""
    with closing(sqlite3.connect(source)) as read, closing(sqlite3.connect(target)) as write:
        write.execute(f"CREATE TABLE orders {COLUMNS}")
        petl.appenddb(petl.fromdb(read, QUERY), write, "orders")


if __name__ == "__main__":
    if sys.argv[1] == "postgres":
        load("psycopg")
    main(postgres=postgres, sqlite=sqlite)
