"""An `SQLSink(url=...)` has one connection, one fencing token and one checkpoint: it is for one job at a time."""

import threading
from collections.abc import Iterator
from typing import Any

import attrs
import pytest
from sqlalchemy import Engine, Integer, create_engine, event, text
from sqlalchemy.pool import NullPool

from resumable_sync import Column, ConfigurationError
from resumable_sync.sinks.sql import SQLSink
from sinks.driving import batch, job


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    made = create_engine(database_url, poolclass=NullPool)
    yield made
    made.dispose()


@pytest.fixture
def sink(engine: Engine) -> Iterator[SQLSink]:
    made = SQLSink("numbers", "append", url=engine.url)
    made.prepare([Column(name="n", type=Integer())])
    yield made
    made.close()


def rows(engine: Engine) -> list[int]:
    with engine.connect() as connection:
        return list(connection.execute(text("SELECT n FROM numbers ORDER BY n")).scalars())


def numbers(number: int) -> Any:
    """Batch 0 holds 0 to 2, batch 1 3 to 5, and so on."""
    return batch([(3 * number + each,) for each in range(3)], ["n"], number=number)


def begin(sink: SQLSink) -> None:
    sink.checkpoint(job())
    sink.begin(job(), None)


def test_another_job_that_begins_on_the_same_object_ends_the_first(sink: SQLSink, engine: Engine) -> None:
    begin(sink)
    sink.write(numbers(0), None)
    other = attrs.evolve(job(), id="other")
    sink.checkpoint(other)
    with pytest.raises(ConfigurationError, match=r"SQLSink\('numbers'\).*'job'.*'other'.*one of its own"):
        sink.write(numbers(1), None)
    with pytest.raises(ConfigurationError, match="one of its own"):
        sink.complete(job(), None)
    sink.begin(other, None)
    sink.complete(other, None)
    begin(sink)
    sink.write(numbers(1), None)
    sink.complete(job(), None)
    assert rows(engine) == [0, 1, 2, 3, 4, 5]


def test_two_jobs_in_two_threads_do_not_meet_on_the_connection(sink: SQLSink, engine: Engine) -> None:
    begin(sink)
    writing, go_on, failures = threading.Event(), threading.Event(), []

    def hold(*_: Any) -> None:
        writing.set()
        assert go_on.wait(30)

    def intrude() -> None:
        try:
            sink.checkpoint(attrs.evolve(job(), id="other"))
        except Exception as error:
            failures.append(error)

    link = sink._link
    assert link is not None
    event.listen(link.engine, "commit", hold, once=True)
    first = threading.Thread(target=lambda: sink.write(numbers(0), None))
    first.start()
    assert writing.wait(30)
    second = threading.Thread(target=intrude)
    second.start()
    second.join(0.2)
    assert second.is_alive()
    go_on.set()
    first.join(30)
    second.join(30)
    assert failures == []
    assert rows(engine) == [0, 1, 2]
    with pytest.raises(ConfigurationError, match="one of its own"):
        sink.write(numbers(1), None)
