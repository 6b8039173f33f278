"""Ends of parts from a sample: large tables of PostgreSQL are not passed along, and parts are even all the same."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.pool import NullPool

from resumable_sync.connectors import _sampled_ends
from resumable_sync.connectors.sql import SQLConnector

pytestmark = [pytest.mark.server, pytest.mark.adapter]

ROWS = 40_000
PARTS = 8
CROWDED = "CASE WHEN mod(n, 10) = 0 THEN n * 100 ELSE 900000 + n END"
"""Nine in ten keys are in the hundredth part of the range."""


@pytest.fixture
def engine(new_database: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    monkeypatch.setattr(_sampled_ends, "_LEAST_FRACTION", 4)  # a million rows are too many here
    monkeypatch.setattr(_sampled_ends, "_PAGES_PER_PART", 8)
    made = create_engine(new_database("postgresql"), poolclass=NullPool)
    yield made
    made.dispose()


def execute(engine: Engine, *statements: str) -> None:
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def make(engine: Engine, columns: str, order: str = "n") -> None:
    execute(
        engine, f"CREATE TABLE items AS SELECT {columns} FROM generate_series(1, {ROWS}) AS rows (n) ORDER BY {order}"
    )


def split(engine: Engine, source: str, key: Any) -> tuple[Sequence[int], bool]:
    """Give how many rows each part has, and whether the index was passed along to find them."""
    walked: list[str] = []

    @event.listens_for(engine, "before_cursor_execute")
    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "OFFSET" in statement:
            walked.append(statement)

    with closing(SQLConnector(engine, source, key=key)) as connector:
        parts = connector.split(PARTS)
        event.remove(engine, "before_cursor_execute", note)
        assert parts[0].place[0] is None
        assert [part.place[1] for part in parts[:-1]] == [part.place[0] for part in parts[1:]]
        sizes = [part.count() for part in parts]
    assert sum(sizes) == ROWS
    return sizes, bool(walked)


@pytest.mark.parametrize(
    ("columns", "order", "key"),
    [
        (f"{CROWDED} AS id", "n", "id"),
        (f"{CROWDED} AS id", "md5(n::text)", "-id"),
        ("mod(n, 3) AS grp, md5(n::text) AS id, repeat('x', mod(n, 100) * 5) AS wide", "n", ["grp", "id"]),
        ("mod(n, 3) AS grp, md5(n::text)::uuid AS id", "n", [("grp", "desc"), "id"]),
        ("'2026-01-01'::timestamptz + n * interval '1 second' AS id", "mod(n, 7)", "id"),
    ],
    ids=["integer, crowded", "integer, in no order", "text, wide and narrow rows", "uuid, mixed", "time, seven orders"],
)
def test_parts_of_a_sampled_table_are_even(engine: Engine, columns: str, order: str, key: Any) -> None:
    make(engine, columns, order)
    names = [key] if isinstance(key, str) else [part if isinstance(part, str) else part[0] for part in key]
    listed = ", ".join(name.removeprefix("-") for name in names)
    execute(engine, f"ALTER TABLE items ADD PRIMARY KEY ({listed})")
    sizes, walked = split(engine, "items", key)
    assert not walked
    assert len(sizes) == PARTS
    assert max(sizes) <= 1.3 * ROWS / PARTS


def test_a_partitioned_table_is_sampled_in_each_partition(engine: Engine) -> None:
    execute(engine, "CREATE TABLE items (id bigint PRIMARY KEY, name text) PARTITION BY RANGE (id)")
    for after, upto in ((0, 1_000), (1_000, 25_000), (25_000, 100_000)):
        execute(engine, f"CREATE TABLE items_{upto} PARTITION OF items FOR VALUES FROM ({after}) TO ({upto})")
    execute(engine, f"INSERT INTO items SELECT n, 'name ' || n FROM generate_series(1, {ROWS}) AS rows (n)")
    sizes, walked = split(engine, "items", "id")
    assert not walked
    assert max(sizes) <= 1.3 * ROWS / PARTS


def test_rows_that_are_gone_are_not_sampled(engine: Engine) -> None:
    make(engine, "n AS id")
    execute(
        engine,
        "ALTER TABLE items ADD PRIMARY KEY (id)",
        f"INSERT INTO items SELECT n FROM generate_series(-{ROWS}, 0) AS rows (n)",
        "DELETE FROM items WHERE id <= 0",
    )
    sizes, walked = split(engine, "items", "id")
    assert not walked
    assert max(sizes) <= 1.3 * ROWS / PARTS


def inherited(engine: Engine) -> str:
    execute(engine, "CREATE TABLE parent (id integer NOT NULL)", "ALTER TABLE items INHERIT parent")
    return "parent"


def view(engine: Engine) -> str:
    execute(engine, "CREATE VIEW shown AS SELECT id FROM items")
    return "shown"


def query(_engine: Engine) -> str:
    return "SELECT id FROM items"


def no_transaction(engine: Engine) -> str:
    engine.update_execution_options(isolation_level="AUTOCOMMIT")
    return "items"


def no_right_to_addresses(engine: Engine) -> str:
    execute(engine, "CREATE ROLE resumable_sync_reader", "GRANT SELECT (id) ON items TO resumable_sync_reader")
    at_connect(engine, "SET ROLE resumable_sync_reader")
    return "items"


def at_connect(engine: Engine, statement: str) -> None:
    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: Any) -> None:
        connection.execute(statement)
        connection.commit()


@pytest.mark.parametrize("prepare", [inherited, view, query, no_transaction, no_right_to_addresses])
def test_what_cannot_be_sampled_is_passed_along(engine: Engine, prepare: Callable[[Engine], str]) -> None:
    make(engine, "n AS id")
    execute(engine, "ALTER TABLE items ADD PRIMARY KEY (id)")
    try:
        sizes, walked = split(engine, prepare(engine), "id")
    finally:
        if prepare is no_right_to_addresses:  # a role belongs to all databases
            at_connect(engine, "RESET ROLE")
            execute(engine, "DROP OWNED BY resumable_sync_reader", "DROP ROLE resumable_sync_reader")
    assert walked
    assert max(sizes) - min(sizes) <= 1


def test_a_table_that_would_be_read_whole_for_its_sample_is_passed_along(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_sampled_ends, "_BY_ADDRESS", "SET LOCAL enable_tidscan = off")
    make(engine, "n AS id")
    execute(engine, "ALTER TABLE items ADD PRIMARY KEY (id)")
    sizes, walked = split(engine, "items", "id")
    assert walked
    assert max(sizes) - min(sizes) <= 1


def test_a_small_table_is_passed_along(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    make(engine, "n AS id")
    execute(engine, "ALTER TABLE items ADD PRIMARY KEY (id)")
    sizes, walked = split(engine, "items", "id")
    assert walked
    assert max(sizes) - min(sizes) <= 1
