"""A COPY that waits for its rows is ended by who comes with a newer fencing token for the same job and target."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine, create_engine, make_url
from sqlalchemy.exc import OperationalError

from resumable_sync.sinks._zombies import Zombies
from resumable_sync.sinks.sql import SQLSink
from sinks.driving import JOB_ID, batch, job
from waiting import until

WIDE = "x" * 1000


@pytest.fixture
def engine(postgres_url: str) -> Iterator[Engine]:
    url = make_url(postgres_url).update_query_dict({"options": "-c lock_timeout=500ms"})
    made = create_engine(url)
    with made.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE orders (id bigint PRIMARY KEY, name text)")
    yield made
    made.dispose()


@contextmanager
def copying(engine: Engine, job_id: str, target: str, token: int) -> Iterator[psycopg.Connection[Any]]:
    """A COPY that has written the ids 0 to 499, and waits for more.

    Yields:
        Its connection.
    """
    url = engine.url.set(drivername="postgresql", query={})
    connection = psycopg.connect(url.render_as_string(hide_password=False))
    # Closing the connection ends the COPY; so does the server before that.
    with suppress(psycopg.OperationalError), connection, connection.cursor() as cursor:
        statement = f"{Zombies(target, None).mark(job_id, token)} COPY orders (id, name) FROM STDIN"
        with cursor.copy(statement) as copy:
            for number in range(500):
                copy.write_row((number, WIDE))
            until(lambda: waits_for(connection, engine) == "ClientRead")
            yield connection
            connection.close()


def waits_for(connection: psycopg.Connection[Any], engine: Engine) -> str | None:
    """Give what the server waits for in a session; None if it waits for nothing, or the session has ended."""
    with engine.connect() as other:
        query = f"SELECT wait_event FROM pg_stat_activity WHERE pid = {connection.info.backend_pid}"
        found: str | None = other.exec_driver_sql(query).scalar_one_or_none()
        return found


def test_one_that_begins_after_its_successor_is_ended_once_it_blocks(engine: Engine) -> None:
    sink = SQLSink("orders", mode="append")
    with engine.begin() as connection:
        sink.begin(job(token=2), connection)
    with copying(engine, JOB_ID, "orders", 1) as copier:
        with pytest.raises(OperationalError, match="lock timeout"), engine.begin() as connection:
            sink.write(batch([{"id": 7, "name": "seven"}], token=2), connection)
        until(lambda: waits_for(copier, engine) is None)
        with engine.begin() as connection:
            sink.write(batch([{"id": 7, "name": "seven"}], token=2), connection)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT id, name FROM orders").all() == [(7, "seven")]


@pytest.mark.parametrize(
    ("job_id", "target", "token"), [(JOB_ID, "orders", 2), (JOB_ID, "returns", 1), ("another", "orders", 1)]
)
def test_no_other_copy_is_ended(engine: Engine, job_id: str, target: str, token: int) -> None:
    sink = SQLSink("orders", mode="append")
    with copying(engine, job_id, target, token) as copier:
        with engine.begin() as connection:
            sink.begin(job(token=2), connection)
        with pytest.raises(OperationalError, match="lock timeout"), engine.begin() as connection:
            sink.write(batch([{"id": 7, "name": "seven"}], token=2), connection)
        assert waits_for(copier, engine) == "ClientRead"


def test_a_copy_that_is_ended_is_rolled_back(engine: Engine) -> None:
    sink = SQLSink("orders", mode="append", url=engine.url.set(query={}))
    with copying(engine, JOB_ID, "orders", 1):
        sink.checkpoint(job(token=2))
        sink.begin(job(token=2), None)
        sink.write(batch([{"id": 7, "name": "seven"}], token=2), None)
    sink.close()
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT id FROM orders").all() == [(7,)]
