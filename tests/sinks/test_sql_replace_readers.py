"""Readers of a table on PostgreSQL while it is replaced."""

import threading
from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, Engine, create_engine, text

from resumable_sync import TransientError
from resumable_sync.sinks import _swap_postgresql
from sinks.postgresql import ORDERS, rows, run, stage, swap
from waiting import until


@pytest.fixture
def orders(postgres_url: str) -> Iterator[Engine]:
    made = create_engine(postgres_url)
    run(made, *ORDERS)
    yield made
    made.dispose()


def _wait_until_blocked(engine: Engine, *, by: str = "orders") -> None:
    query = f"SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = '{by}'::regclass"
    until(lambda: rows(engine, query) != [(0,)], otherwise="nobody waits for the table")


def test_a_reader_in_a_transaction_is_waited_for(orders: Engine) -> None:
    run(orders, "ALTER TABLE orders ADD CONSTRAINT bought FOREIGN KEY (customer) REFERENCES customers")
    stage(orders)
    query = text("SELECT id FROM orders")
    with orders.connect() as reader:
        assert reader.execute(query).scalars().all() == [1]
        swapping = threading.Thread(target=swap, args=(orders,))
        swapping.start()
        _wait_until_blocked(orders)
        assert reader.execute(query).scalars().all() == [1]
        reader.commit()
        swapping.join(60)
        assert not swapping.is_alive()
        assert reader.execute(query).scalars().all() == [2]


def test_a_reader_of_the_table_it_refers_to_is_not_ended_by_a_deadlock(
    orders: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_swap_postgresql, "LOCK_TIMEOUT", 100)
    run(orders, "ALTER TABLE orders ADD CONSTRAINT bought FOREIGN KEY (customer) REFERENCES customers")
    stage(orders)
    with orders.connect() as reader:
        reader.execute(text("SELECT id FROM customers"))
        swapping = threading.Thread(target=swap, args=(orders,))
        swapping.start()
        _wait_until_blocked(orders, by="customers")
        assert reader.execute(text("SELECT id FROM orders")).scalars().all() == [1]
        reader.commit()
        swapping.join(60)
        assert not swapping.is_alive()
        assert reader.execute(text("SELECT id FROM orders")).scalars().all() == [2]


def test_a_reader_that_does_not_end_is_given_up_on(orders: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_swap_postgresql, "LOCK_TIMEOUT", 0.1)
    monkeypatch.setattr(_swap_postgresql, "LOCK_TRY", 0.05)
    stage(orders)
    with orders.connect() as reader:
        reader.execute(text("SELECT id FROM orders"))
        with pytest.raises(TransientError, match=r"public\.orders, or one .* was in use"):
            swap(orders)
    assert rows(orders, "SELECT id FROM orders") == [(1,)]
    swap(orders)
    assert rows(orders, "SELECT id FROM orders") == [(2,)]


def test_prepared_statements_of_readers_go_on(orders: Engine) -> None:
    stage(orders)
    with orders.connect() as reader:
        reader.execute(text("PREPARE look (int) AS SELECT * FROM orders WHERE id >= $1"))
        query = text("EXECUTE look(0)")
        assert [row.id for row in reader.execute(query)] == [1]
        reader.commit()
        swap(orders)
        assert [row.id for row in reader.execute(query)] == [2]


def test_readers_see_the_old_table_or_the_new_one(orders: Engine) -> None:
    seen: list[list[int]] = []
    over = threading.Event()

    def read(connection: Connection) -> list[int]:
        return sorted(connection.execute(text("SELECT id FROM orders")).scalars())

    def watch() -> None:
        with orders.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            while not over.is_set():
                seen.append(read(connection))

    with orders.connect() as connection:
        first = read(connection)
    watching = threading.Thread(target=watch)
    watching.start()
    versions = [first]
    try:
        for number in range(5):
            versions.append(list(range(number, number + 5)))
            values = ", ".join(f"({one}, 'x')" for one in versions[-1])
            stage(orders, f"INSERT INTO staging VALUES {values}")
            swap(orders)
    finally:
        over.set()
        watching.join(60)
    assert not watching.is_alive()
    assert [one for one in seen if one not in versions] == []
