"""`SQLSink` under `run_full_sync`: exactly once, in the store's database and across two."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.pool import NullPool

from proxies import TCPProxy, is_commit
from resumable_sync import (
    ConfigurationError,
    Guarantee,
    JobStatus,
    MemoryJobStore,
    Retry,
    StoreError,
    run_full_sync,
)
from resumable_sync.connectors.sql import SQLConnector
from resumable_sync.sinks.sql import SQLSink
from resumable_sync.stores.sql import SQLJobStore
from resumable_sync.testing import Fault, FaultySink, FaultyStore, Raise, lose_answer

ROWS = [(number, f"name {number}", number / 4) for number in range(1, 96)]
QUICK = Retry(max_tries=10, wait_initial=0.01, wait_max=0.05)


class Died(BaseException):
    """Ends an attempt in the middle of a call."""


@pytest.fixture
def source(tmp_path: Any) -> str:
    url = f"sqlite:///{tmp_path}/source.db"
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE orders (id INTEGER PRIMARY KEY, name VARCHAR(20), total FLOAT)"))
        connection.exec_driver_sql("INSERT INTO orders VALUES (?, ?, ?)", ROWS)
    return url


@pytest.fixture(params=["sqlite > postgresql", "postgresql > sqlite", "sqlite > mariadb", "sqlite > sqlite"])
def apart(request: Any, new_database: Callable[[str], str]) -> Iterator[tuple[SQLJobStore, str]]:
    """A store, and a target in another database."""
    kinds = request.param.split(" > ")
    with SQLJobStore(new_database(kinds[0])) as store:
        yield store, new_database(kinds[1])


def delivered(url: str) -> list[Any]:
    engine = create_engine(url, poolclass=NullPool)
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text("SELECT id, name, total FROM orders ORDER BY id"))]


def begin_at_once(engine: Engine) -> Engine:
    """Have an engine's transactions begin as SQLAlchemy's documentation shows it for SQLite."""

    @event.listens_for(engine, "connect")
    def connect(driver_connection: Any, _record: Any) -> None:
        driver_connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN")

    return engine


def test_engines_whose_listeners_begin_transactions_are_used_as_they_are(source: str, tmp_path: Path) -> None:
    store, target = (begin_at_once(create_engine(f"sqlite:///{tmp_path}/{name}.db")) for name in ("store", "target"))
    for sink, home in ((SQLSink("orders", "append", url=target), target), (SQLSink("orders", "append"), store)):
        with SQLJobStore(store) as jobs:
            result = run_full_sync(str(home.url), SQLConnector(source, "orders"), sink, store=jobs, batch_size=20)
        assert (result.status, result.guarantee) == ("completed", "exactly_once")
        assert delivered(str(home.url)) == ROWS
    store.dispose()
    target.dispose()


def test_a_missing_target_is_made_and_filled_in_the_store_s_database(source: str, database_url: str) -> None:
    with SQLJobStore(database_url) as store:
        result = run_full_sync(
            "j", SQLConnector(source, "orders"), SQLSink("orders", "append"), store=store, batch_size=10
        )
        assert result.guarantee is Guarantee.EXACTLY_ONCE
        assert result.job.processed_records == 95
        assert delivered(database_url) == ROWS
        again = run_full_sync(
            "j", SQLConnector(source, "orders"), SQLSink("orders", "upsert"), store=store, batch_size=7
        )
        assert again.job.run == 2
        assert delivered(database_url) == ROWS


def test_a_store_without_transactions_is_refused_before_anything_is_read(source: str) -> None:
    with pytest.raises(ConfigurationError, match="url="):
        run_full_sync("j", SQLConnector(source, "orders"), SQLSink("orders", "append"), store=MemoryJobStore())


@pytest.mark.parametrize("mode", ["append", "upsert"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_across_two_databases_every_death_in_the_sink_or_the_store_ends_exact(
    source: str, apart: tuple[SQLJobStore, str], mode: Any, when: Any
) -> None:
    store, url = apart
    sink = SQLSink("orders", mode, url=url)
    died = 0
    for call in ("write", "write", "save", "complete"):
        fault = Fault(call, 1 if call == "complete" else 3, Raise(Died), when)
        in_store = [fault] if call == "save" else []
        in_sink = [fault] if call != "save" else []
        try:
            result = run_full_sync(
                "j",
                SQLConnector(source, "orders"),
                FaultySink(sink, in_sink),
                store=FaultyStore(store, in_store),
                batch_size=10,
                if_completed="skip",
            )
        except Died:
            died += 1
        else:
            assert result.guarantee is Guarantee.EXACTLY_ONCE
    result = run_full_sync("j", SQLConnector(source, "orders"), sink, store=store, batch_size=10, if_completed="skip")
    assert died >= 3
    assert result.status is JobStatus.COMPLETED
    assert result.job.processed_records == 95
    assert delivered(url) == ROWS
    sink.close()


def test_across_two_databases_the_target_is_ahead_after_a_death_before_save(
    source: str, apart: tuple[SQLJobStore, str]
) -> None:
    store, url = apart
    sink = SQLSink("orders", "append", url=url)
    connector = SQLConnector(source, "orders")
    with pytest.raises(Died):
        faulty = FaultySink(sink, [Fault("write", 1, Raise(Died), "after")])
        run_full_sync("j", connector, faulty, store=store, batch_size=10)
    stored = store.load("j")
    assert stored is not None
    assert stored.processed_records == 0
    # Another batch size, and the store does not know of the first batch.
    result = run_full_sync("j", connector, sink, store=store, batch_size=7)
    assert (result.job.processed_records, result.records) == (95, 85)
    assert delivered(url) == ROWS
    sink.close()


def test_a_lost_answer_of_write_does_not_write_twice(source: str, apart: tuple[SQLJobStore, str]) -> None:
    store, url = apart
    sink = SQLSink("orders", "append", url=url)
    faulty = FaultySink(sink, [lose_answer("write", nth) for nth in (1, 4)])
    result = run_full_sync("j", SQLConnector(source, "orders"), faulty, store=store, batch_size=10, retry=QUICK)
    assert result.job.processed_records == 95
    assert delivered(url) == ROWS
    sink.close()


def test_a_target_that_was_replaced_is_refused(source: str, apart: tuple[SQLJobStore, str]) -> None:
    store, url = apart
    sink = SQLSink("orders", "append", url=url)
    connector = SQLConnector(source, "orders")
    run_full_sync("j", connector, sink, store=store, batch_size=10, max_records=30)
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM orders"))
        connection.execute(text("DELETE FROM resumable_sync_checkpoints"))
    with pytest.raises(StoreError, match=r"reset_job"):
        run_full_sync("j", connector, sink, store=store, batch_size=10)
    assert delivered(url) == []
    store.delete("j")
    run_full_sync("j", connector, sink, store=store, batch_size=10)
    assert delivered(url) == ROWS
    sink.close()


@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
def test_a_target_whose_commits_are_cut_again_and_again_ends_exact(
    source: str, new_database: Callable[[str], str], tcp_proxy: Callable[[str], TCPProxy], kind: str
) -> None:
    url = new_database(kind)
    proxy = tcp_proxy(url)
    chance, cuts = random.Random(7), 0

    def cut(link: Any, data: bytes) -> None:
        nonlocal cuts
        if is_commit(data) and chance.random() < 0.3:
            cuts += 1
            link.cut()

    proxy.to_server = cut
    sink = SQLSink("orders", "append", url=proxy.url)
    with SQLJobStore(new_database("sqlite")) as store:
        result = run_full_sync("j", SQLConnector(source, "orders"), sink, store=store, batch_size=10, retry=QUICK)
    assert cuts > 2
    assert result.job.processed_records == 95
    assert delivered(url) == ROWS
    sink.close()


def test_refused_records_become_dead_letters(source: str, database_url: str) -> None:
    engine: Engine = create_engine(database_url, poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(
            text(
                "CREATE TABLE orders (id INT PRIMARY KEY, name VARCHAR(20), total DOUBLE PRECISION CHECK (total <> 5))"
            )
        )
    for mode in ("append", "upsert"):
        with SQLJobStore(engine) as store:
            sink: Any = SQLSink("orders", mode)
            connector = SQLConnector(source, "orders")
            result = run_full_sync(
                mode, connector, sink, store=store, batch_size=20, on_refused="dead_letter", if_completed="skip"
            )
            assert result.status is JobStatus.INCOMPLETE
            assert result.job.dead_letters == 1
            assert delivered(database_url) == [row for row in ROWS if row[2] != 5]
