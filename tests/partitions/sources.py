"""The tables that partitioned syncs are tested with, and what they must come to."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Engine, create_engine, inspect, make_url
from sqlalchemy.pool import NullPool


@contextlib.contextmanager
def engine_of(url: str) -> Iterator[Engine]:
    engine = create_engine(url, poolclass=NullPool)
    yield engine
    engine.dispose()


def fill(url: str, rows: int) -> None:
    """Make the table `source`: the keys are crowded at one place."""
    mark = "?" if make_url(url).get_backend_name() == "sqlite" else "%s"
    with engine_of(url) as engine, engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE source (id integer NOT NULL PRIMARY KEY, name varchar(40) NOT NULL)")
        connection.exec_driver_sql(f"INSERT INTO source VALUES ({mark}, {mark})", expected(rows))


def make_target(url: str) -> None:
    """Make the table `target`, which takes any row twice."""
    with engine_of(url) as engine, engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE target (id integer NOT NULL, name varchar(40) NOT NULL)")


def expected(rows: int) -> Sequence[tuple[int, str]]:
    keys = [number if number < rows * 9 // 10 else number * 1_000 for number in range(1, rows + 1)]
    return [(key, f"name {key}") for key in keys]


def delivered(url: str) -> list[tuple[Any, ...]]:
    """What the target holds, ordered; nothing if it is not there."""
    with engine_of(url) as engine:
        if not inspect(engine).has_table("target"):
            return []
        with engine.connect() as connection:
            return [tuple(row) for row in connection.exec_driver_sql("SELECT id, name FROM target ORDER BY id")]


def tables(url: str) -> set[str]:
    with engine_of(url) as engine:
        return set(inspect(engine).get_table_names())
