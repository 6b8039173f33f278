"""Rows of PostgreSQL as ADBC's Arrow tables: the same pages as of Python values, and the same errors."""

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import create_engine
from sqlalchemy.exc import DataError, OperationalError

from resumable_sync import Retry, plan_full_sync, run_full_sync
from resumable_sync._formats import POSTGRESQL_ARROW, ArrowRows
from resumable_sync._retry import is_transient
from resumable_sync.connectors.sql import SQLConnector
from resumable_sync.sinks.parquet import ParquetSink
from resumable_sync.stores.memory import MemoryJobStore
from waiting import until

KEYS = {
    "bigint": "i - 5",
    "text": r"E'k\t\\' || chr(64 + i) || E'\n''%s'",
    "uuid": "md5(CAST(i AS text))::uuid",
    "date": "DATE '0001-01-01' + i * 300000",
    "text, i smallint": "i % 2, i",
}
ROWS = 12


def execute(url: str, *statements: str) -> list[Any]:
    engine = create_engine(url)
    found: list[Any] = []
    with engine.begin() as connection:
        for statement in statements:
            result = connection.exec_driver_sql(statement.replace("%", "%%"))
            found = [tuple(row) for row in result] if result.returns_rows else []
    engine.dispose()
    return found


@pytest.fixture
def connectors() -> Iterator[list[SQLConnector]]:
    made: list[SQLConnector] = []
    yield made
    for connector in made:
        connector.close()


def arrow_of(connector: SQLConnector) -> SQLConnector:
    first, _ = connector.formats()
    assert first.name == POSTGRESQL_ARROW
    return connector.in_format(first)


def places(connector: Any, size: int, cursor: Any = None) -> list[tuple[int, Any, Any]]:
    return [(len(page), page.cursor, page.columns) for page in connector.read(cursor, size)]


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_pages_and_cursors_are_those_of_python_values(
    postgres_url: str, key: str, connectors: list[SQLConnector]
) -> None:
    second = key.partition(", ")[2].partition(" ")[0]
    execute(
        postgres_url,
        f"CREATE TABLE t (label text, k {key}, PRIMARY KEY (k{f', {second}' if second else ''}))",
        f"INSERT INTO t SELECT 'row ' || i, {KEYS[key]} FROM generate_series(1, {ROWS}) AS i",
    )
    plain = SQLConnector(postgres_url, "t")
    connectors.append(plain)
    arrow = arrow_of(plain)
    labels = [row[0] for page in plain.read(None, 100) for row in page.records]
    for size in (5, 100):
        assert places(arrow, size) == places(plain, size)
    for page in plain.read(None, 5):
        # Either goes on where the other stopped.
        assert places(arrow, 3, page.cursor) == places(plain, 3, page.cursor)
    pages: list[Any] = list(arrow.read(None, 5))
    assert all(type(page.records) is ArrowRows for page in pages)
    assert [row["label"] for page in pages for row in page.records] == labels
    assert [plain.moved(page.cursor) for page in pages] == [None] * 3
    assert (pages[0].records[4]["label"], len(pages[0].records[1:3])) == (labels[4], 2)


def test_where_it_is_not_offered(postgres_url: str, connectors: list[SQLConnector]) -> None:
    execute(postgres_url, "CREATE TABLE t (k numeric PRIMARY KEY)", "CREATE TABLE u (k int PRIMARY KEY)")
    engine = create_engine(postgres_url)
    connectors += [SQLConnector(postgres_url, "t"), SQLConnector(engine, "u")]
    # Its keys' text is not what the server writes; what the caller's engine does to its connections is unknown.
    assert [[one.name for one in connector.formats()] for connector in connectors] == [["postgresql-copy-text"]] * 2
    engine.dispose()


def test_an_error_of_the_server_is_what_it_always_is(postgres_url: str, connectors: list[SQLConnector]) -> None:
    execute(postgres_url, "CREATE TABLE t (k text PRIMARY KEY)", "INSERT INTO t VALUES ('a secret'), ('b secret')")
    query = "SELECT k, 1 / (length(k) - 8) AS x FROM t"
    connectors.append(SQLConnector(postgres_url, query, key="k"))
    with pytest.raises(DataError, match="division by zero") as caught:
        list(arrow_of(connectors[0]).read(None, 1))
    assert "secret" not in repr(caught.value)
    assert not is_transient(caught.value)


def test_a_connection_that_broke_is_made_anew(postgres_url: str, connectors: list[SQLConnector], tmp_path: Any) -> None:
    execute(
        postgres_url,
        "CREATE TABLE t (k int PRIMARY KEY)",
        f"INSERT INTO t SELECT i FROM generate_series(1, {ROWS}) AS i",
    )
    connectors.append(SQLConnector(postgres_url, "t"))
    others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = "
    pages = arrow_of(connectors[0]).read(None, 5)
    next(pages)
    assert len(execute(postgres_url, others + "current_database()")) == 2
    with pytest.raises(OperationalError) as caught:
        next(pages)
    assert is_transient(caught.value)
    cut: list[int] = []

    def cut_once(event: Any) -> None:
        if not cut and type(event).__name__ == "BatchCommitted":
            cut.append(len(execute(postgres_url, others + "current_database()")))

    store, sink = MemoryJobStore(), ParquetSink(tmp_path / "t")
    assert plan_full_sync("copy", connectors[0], sink, store=store).format == POSTGRESQL_ARROW
    result = run_full_sync(
        "copy",
        connectors[0],
        sink,
        store=store,
        batch_size=5,
        prefetch=0,
        count=False,
        retry=Retry(wait_initial=0.01),
        observers=[cut_once],
    )
    assert (result.format, result.records, cut) == (POSTGRESQL_ARROW, ROWS, [2])
    connectors[0].close()
    alive = "SELECT count(*) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database()"
    until(lambda: execute(postgres_url, alive) == [(0,)], 60)
