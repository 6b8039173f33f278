"""Connector and sink that know a form of records in common: what goes that way, what does not, and what says so."""

import logging
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from typing_extensions import override

from resumable_sync import BatchCommitted, Event, plan_full_sync, run_full_sync
from resumable_sync._formats import COPY_TEXT
from resumable_sync.connectors.sql import SQLConnector
from resumable_sync.sinks.sql import SQLSink
from resumable_sync.stores.sql import SQLJobStore

NewDatabase = Callable[[str], str]
pytestmark = pytest.mark.server
SOURCE = "CREATE TABLE orders (id int PRIMARY KEY, note varchar(40), total numeric(12, 2), at timestamptz, doc json)"
ROWS = (
    "INSERT INTO orders SELECT i, CASE WHEN i % 7 > 0 THEN E'tab\t' || i END, i / 4.0, "
    """now() + i * INTERVAL '1 s', '{"n":  1}' FROM generate_series(1, 95) AS i"""
)
EVERYTHING = "SELECT CAST(ROW(o.*) AS text) FROM orders AS o ORDER BY id"


def execute(url: str, *statements: str) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement.replace("%", "%%"))
    engine.dispose()


def rows(url: str, query: str = EVERYTHING) -> list[Any]:
    engine = create_engine(url)
    with engine.connect() as connection:
        found = list(connection.execute(text(query)).scalars())
    engine.dispose()
    return found


@pytest.fixture
def source(new_database: NewDatabase) -> str:
    url = new_database("postgresql")
    execute(url, SOURCE, ROWS)
    return url


@pytest.fixture
def target(new_database: NewDatabase) -> str:
    return new_database("postgresql")


def sync(source: str, target: str, sink: Any, **options: Any) -> Any:
    connector = SQLConnector(source, "orders")
    with SQLJobStore(target) as store:
        planned = plan_full_sync("orders", connector, sink, store=store, **options)
        result = run_full_sync("orders", connector, sink, store=store, batch_size=10, **options)
    connector.close()
    close = getattr(sink, "close", None)
    if close is not None:
        close()
    return planned, result


@pytest.mark.parametrize("own", [False, True], ids=["store's", "own url"])
@pytest.mark.parametrize("mode", ["append", "upsert", "replace"])
def test_rows_travel_as_copy_text_into_every_mode(source: str, target: str, mode: Any, own: bool) -> None:
    planned, result = sync(source, target, SQLSink("orders", mode, url=target if own else None))
    assert (planned.format, result.format) == (COPY_TEXT, COPY_TEXT)
    assert (result.status, result.records, result.batches) == ("completed", 95, 10)
    assert rows(target) == rows(source)


def test_an_upsert_replaces_what_is_there(source: str, target: str) -> None:
    execute(target, SOURCE, "INSERT INTO orders VALUES (7, 'old'), (99, 'mine')")
    assert sync(source, target, SQLSink("orders", "upsert"))[1].format == COPY_TEXT
    assert rows(target)[:95] == rows(source)
    assert rows(target, "SELECT note FROM orders WHERE id = 99") == ["mine"]


@pytest.mark.parametrize(
    ("declared", "copied"),
    [
        ("id bigint, note text, total numeric, at timestamptz, doc jsonb", True),
        ("id numeric(9, 2), note varchar(60), total numeric(9, 1), at timestamptz(0), doc json", True),
        ("doc json, at timestamptz, total numeric, note text, id int, more text DEFAULT 'x'", True),
        # COPY would drop the offset, which the value's way makes UTC.
        ("id int, note text, total numeric, at timestamp, doc json", False),
        ("id int, note text, total double precision, at timestamptz, doc json", False),
        ("id int, note text, total numeric, at timestamptz, doc text", False),
        ("id int, note char(60), total numeric, at timestamptz, doc json", False),
    ],
)
def test_it_depends_on_the_types_of_the_target(source: str, target: str, declared: str, copied: bool) -> None:
    """Either way the same is written."""
    execute(target, f"CREATE TABLE orders ({declared})")
    _, result = sync(source, target, SQLSink("orders", "append"))
    assert result.format == (COPY_TEXT if copied else "records")
    names = "id, note, total, at, CAST(doc AS jsonb)" if "json" in declared else "id, note, total, at"
    query = f"SELECT CAST(ROW({names}) AS text) FROM orders ORDER BY id"
    by_copy = rows(target, query)
    assert len(by_copy) == 95
    execute(target, "TRUNCATE orders")
    _, result = sync(source, target, SQLSink("orders", "append"), fast_path=False)
    assert result.format == "records"
    assert rows(target, query) == by_copy


def test_a_key_that_may_be_null_is_looked_at(source: str, target: str) -> None:
    execute(target, SOURCE.replace("int PRIMARY KEY", "int UNIQUE"))
    assert sync(source, target, SQLSink("orders", "upsert", key="id"))[1].format == "records"


def test_dead_letters_need_the_records(source: str, target: str) -> None:
    execute(target, SOURCE.replace("40", "5"))
    planned, result = sync(source, target, SQLSink("orders", "append"), on_refused="dead_letter")
    assert (planned.format, result.format) == ("records", "records")
    assert (result.status, result.job.dead_letters) == ("incomplete", 74)


def test_whoever_wants_to_see_the_records_sees_them(source: str, target: str) -> None:
    class Shouting(SQLSink):
        @override
        def write(self, batch: Any, connection: Any) -> None:
            assert type(batch.records[0]) is tuple
            super().write(batch, connection)

    class Handing:
        def __init__(self) -> None:
            self.inner = SQLSink("orders", "upsert")

        def __getattr__(self, name: str) -> Any:
            return getattr(self.inner, name)

        def write(self, batch: Any, connection: Any) -> None:
            assert type(batch.records[0]) is tuple
            self.inner.write(batch, connection)

    for sink in (Shouting("orders", "append"), Handing(), lambda batch: batch.records[0][0]):
        assert sync(source, target, sink)[1].format == "records"


def test_another_kind_of_database_gets_values(source: str, sqlite_url: str) -> None:
    planned, result = sync(source, sqlite_url, SQLSink("orders", "append"))
    assert (planned.format, result.format) == (COPY_TEXT, "records")  # the target decides
    assert rows(sqlite_url, "SELECT count(*) FROM orders") == [95]


def test_an_attempt_goes_on_in_another_form(source: str, target: str) -> None:
    """Cursors do not depend on the form."""
    for fast_path in (True, False, True):
        _, result = sync(source, target, SQLSink("orders", "append"), fast_path=fast_path, max_records=20)
        assert (result.format == COPY_TEXT) is fast_path
    _, result = sync(source, target, SQLSink("orders", "append"))
    assert (result.action, result.records) == ("resume", 35)
    # As Python values JSON is written anew, without its blanks.
    alike = EVERYTHING.replace("o.*", "id, note, total, at, CAST(doc AS jsonb)")
    assert rows(target, alike) == rows(source, alike)


def test_a_value_that_does_not_fit_fails_as_ever(source: str, target: str) -> None:
    execute(target, SOURCE.replace("40", "5"))
    with pytest.raises(Exception, match="value too long") as raised:
        sync(source, target, SQLSink("orders", "append"))
    assert "tab" not in str(raised.value)
    assert rows(target) == []


def test_the_log_and_events_say_how(source: str, target: str, caplog: pytest.LogCaptureFixture) -> None:
    events: list[Event] = []
    with caplog.at_level(logging.INFO, "resumable_sync"):
        sync(source, target, SQLSink("orders", "append"), observers=[events.append])
    assert "completed after 95 records" in caplog.text
    assert f", as {COPY_TEXT}" in caplog.text
    assert [event.records for event in events if isinstance(event, BatchCommitted)] == [10] * 9 + [5]
    assert [event.plan.format for event in events if hasattr(event, "plan")] == [COPY_TEXT]
