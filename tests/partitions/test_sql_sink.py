"""`SQLSink` in parts, in every mode, in the store's database and in one of its own."""

import pickle
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pytest

from partitions.sources import delivered, engine_of, expected, fill, make_target, tables
from resumable_sync import (
    ConfigurationError,
    Event,
    StoreError,
    SyncStarted,
    begin_partitioned_sync,
    complete_partitioned_sync,
    part_of,
    run_full_sync,
    run_partitioned_sync,
)
from resumable_sync.connectors.sql import SQLConnector
from resumable_sync.sinks.sql import SQLSink
from resumable_sync.stores.sql import SQLJobStore

ROWS = 120


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(3) as made:
        yield made


@pytest.fixture
def url(database_url: str) -> str:
    fill(database_url, ROWS)
    return database_url


@pytest.fixture
def store(url: str) -> Iterator[SQLJobStore]:
    with SQLJobStore(url) as made:
        yield made


def sync(url: str, store: SQLJobStore, executor: ThreadPoolExecutor, sink: SQLSink, **options: Any) -> Any:
    with closing(SQLConnector(url, "source")) as connector:
        given = {"parts": 4, "batch_size": 10, **options}
        return run_partitioned_sync("j", connector, sink, store=store, executor=executor, **given)


@pytest.mark.parametrize(
    ("mode", "own"),
    [("append", False), ("append", True), ("upsert", False), ("replace", True)],
    ids=["append", "append with url", "upsert", "replace with url"],
)
def test_every_mode_delivers_once(
    url: str, store: SQLJobStore, executor: ThreadPoolExecutor, mode: Any, own: bool
) -> None:
    if mode != "upsert":
        make_target(url)
    with closing(SQLSink("target", mode=mode, url=url if own else None)) as sink:
        result = sync(url, store, executor, sink)
        assert (result.status, result.records, result.guarantee) == ("completed", ROWS, "exactly_once")
        assert delivered(url) == expected(ROWS)
        if mode == "append":
            return
        again = sync(url, store, executor, sink)
        assert (again.action, again.status, again.job.run) == ("new", "completed", 2)
    assert delivered(url) == expected(ROWS)
    assert {name for name in tables(url) if name.startswith("resumable_sync_") and len(name) > 30} == set()


@pytest.mark.parametrize("own", [False, True], ids=["in the store", "with url"])
def test_a_replace_is_seen_when_all_parts_are_there(
    url: str, store: SQLJobStore, executor: ThreadPoolExecutor, own: bool
) -> None:
    make_target(url)
    with engine_of(url) as engine, engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO target VALUES (0, 'old')")
    sink = SQLSink("target", mode="replace", url=url if own else None)
    with closing(sink), closing(SQLConnector(url, "source")) as connector:
        parts = begin_partitioned_sync("j", connector, sink, store=store, parts=4)
        for part in parts[1:]:
            # As on another host: nothing is known but the settings.
            travelled = pickle.loads(pickle.dumps(sink))
            with closing(travelled):
                assert part.run(connector, travelled, store=store, batch_size=20).status == "completed"
        assert complete_partitioned_sync("j", connector, sink, store=store).status == "running"
        assert delivered(url) == [(0, "old")]
        again = begin_partitioned_sync("j", connector, sink, store=store, parts=4)
        assert [part.index for part in again] == [0]
        # In two attempts, of which the second is begun by a later attempt of the whole.
        assert again[0].run(connector, sink, store=store, batch_size=10, max_records=10).status == "interrupted"
        assert sync(url, store, executor, sink).records == ROWS // 4 - 10
    assert delivered(url) == expected(ROWS)


def test_another_mode_does_not_go_on_with_a_replace(url: str, store: SQLJobStore, executor: ThreadPoolExecutor) -> None:
    make_target(url)
    with closing(SQLConnector(url, "source")) as connector:
        parts = begin_partitioned_sync("j", connector, SQLSink("target", mode="replace"), store=store, parts=4)
        parts[0].run(connector, SQLSink("target", mode="replace"), store=store)
        with pytest.raises(ConfigurationError, match="staging table"):
            sync(url, store, executor, SQLSink("target", mode="append"))
        begin_partitioned_sync("j", connector, SQLSink("target", mode="replace"), store=store, parts=4)
        with pytest.raises(ConfigurationError, match="staging table"):
            parts[1].run(connector, SQLSink("target", mode="append"), store=store)
    assert delivered(url) == []
    assert sync(url, store, executor, SQLSink("target", mode="replace")).status == "completed"
    assert delivered(url) == expected(ROWS)


def test_a_part_finds_no_staging_table_of_a_run_that_is_over(
    url: str, store: SQLJobStore, executor: ThreadPoolExecutor
) -> None:
    make_target(url)
    sink = SQLSink("target", mode="replace")
    with closing(SQLConnector(url, "source")) as connector:
        part = begin_partitioned_sync("j", connector, sink, store=store, parts=4)[3]
        sync(url, store, executor, sink)
        store.delete(part.job_id)
        with pytest.raises(StoreError, match="published or begun anew"):
            part.run(connector, sink, store=store)
    assert delivered(url) == expected(ROWS)


def test_an_empty_source_replaces_the_target_by_nothing(sqlite_url: str, executor: ThreadPoolExecutor) -> None:
    fill(sqlite_url, 10)
    make_target(sqlite_url)
    with engine_of(sqlite_url) as engine, engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO target VALUES (0, 'old')")
        connection.exec_driver_sql("DELETE FROM source")
    with SQLJobStore(sqlite_url) as store:
        assert sync(sqlite_url, store, executor, SQLSink("target", mode="replace")).status == "completed"
    assert delivered(sqlite_url) == []


def test_parts_read_the_columns_that_the_whole_began_with(
    url: str, store: SQLJobStore, executor: ThreadPoolExecutor
) -> None:
    make_target(url)
    sink = SQLSink("target", mode="append")
    with closing(SQLConnector(url, "source")) as connector:
        parts = begin_partitioned_sync("j", connector, sink, store=store, parts=4)
        parts[0].run(connector, sink, store=store)
    with engine_of(url) as engine, engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE source ADD COLUMN more integer")
    with closing(SQLConnector(url, "source")) as connector:
        assert parts[1].run(connector, sink, store=store).status == "completed"
    assert sync(url, store, executor, sink, if_changed="resume").status == "completed"
    assert delivered(url) == expected(ROWS)


def test_many_parts_in_threads_share_a_connector_made_from_an_engine(sqlite_url: str) -> None:
    fill(sqlite_url, ROWS)
    make_target(sqlite_url)
    with (
        engine_of(sqlite_url) as engine,
        SQLJobStore(engine) as store,
        closing(SQLConnector(engine, "source")) as connector,
        ThreadPoolExecutor(4) as executor,
    ):
        sink = SQLSink("target", mode="append", url=engine)
        result = run_partitioned_sync("j", connector, sink, store=store, executor=executor, parts=16, batch_size=5)
        assert result.status == "completed"
    assert delivered(sqlite_url) == expected(ROWS)


def test_the_result_says_in_what_form_records_went(url: str, store: SQLJobStore, executor: ThreadPoolExecutor) -> None:
    sink = SQLSink("target", mode="upsert", key="id")
    with closing(SQLConnector(url, "source")) as connector:
        in_one_piece = run_full_sync("one", connector, sink, store=store).format
    assert (in_one_piece == "records") is not url.startswith("postgresql")
    plans: list[str] = []

    def observe(event: Event) -> None:
        if isinstance(event, SyncStarted):
            plans.append(event.plan.format)

    assert sync(url, store, executor, sink, observers=[observe]).format == in_one_piece
    assert sync(url, store, executor, sink, observers=[observe], fast_path=False).format == "records"
    assert plans == [in_one_piece, "records"]
    assert delivered(url) == expected(ROWS)
    with closing(SQLConnector(url, "source")) as connector:
        begin_partitioned_sync("p", connector, sink, store=store, parts=2)
        ran = [part_of("p", index, store=store).run(connector, sink, store=store) for index in range(2)]
    assert [result.format for result in ran] == [in_one_piece] * 2
