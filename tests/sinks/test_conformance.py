"""The conformance suite, against every sink, mode and database."""

import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import pytest
from sqlalchemy import Connection, create_engine, text
from typing_extensions import override

from resumable_sync import Batch, JobStore, Sink, transactional
from resumable_sync._sinks import as_sink
from resumable_sync.sinks.sql import SQLSink
from resumable_sync.stores.sql import SQLJobStore
from resumable_sync.testing import SinkSuite


class InDatabase(SinkSuite):
    """What the sinks below share: the target is the table `target` of `database_url`."""

    @pytest.fixture
    @override
    def delivered(self, database_url: str) -> Iterator[Callable[[], Sequence[Any]]]:
        engine = create_engine(database_url)

        def read() -> Sequence[Any]:
            with engine.connect() as connection:
                return [
                    dict(row) for row in connection.execute(text("SELECT id, name FROM target ORDER BY id")).mappings()
                ]

        yield read
        engine.dispose()

    @pytest.fixture
    @override
    def store(self, database_url: str) -> Iterator[JobStore]:
        with SQLJobStore(database_url) as store:
            yield store

    @pytest.fixture
    @override
    def bad_record(self) -> Any:
        return {"id": object(), "name": "of no type that a database knows"}


class TestSQLSinkInTheStore(InDatabase):
    must_pickle = True

    @pytest.fixture(params=["append", "upsert"])
    def mode(self, request: Any) -> Any:
        return request.param

    @pytest.fixture
    @override
    def sink(self, mode: Any) -> SQLSink:
        return SQLSink("target", mode=mode, publish_incomplete=mode == "replace")

    @pytest.fixture
    @override
    def records(self, mode: str) -> Sequence[Any]:
        dicts = [{"id": number, "name": f"name {number} é'%"} for number in range(1, 11)]
        return dicts if mode == "append" else [Row(record.values()) for record in dicts]

    @pytest.fixture
    @override
    def bad_record(self, mode: str) -> Any:
        return {"id": object(), "name": "refused"} if mode == "append" else Row((None, "refused"))


class Row(tuple[Any, ...]):
    """A tuple that equals the dict of its columns, so that one `delivered` serves both."""

    __slots__ = ()

    @override
    def __eq__(self, other: object) -> bool:
        return super().__eq__(tuple(other.values()) if isinstance(other, dict) else other)

    @override
    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = tuple.__hash__


class TestSQLSinkWithUrl(InDatabase):
    must_pickle = True

    @pytest.fixture(params=["append", "upsert"])
    @override
    def sink(self, request: Any, database_url: str) -> Iterator[SQLSink]:
        sink = SQLSink("target", mode=request.param, url=database_url)
        yield sink
        sink.close()

    @pytest.fixture
    @override
    def make_sink(self, sink: SQLSink) -> Iterator[Callable[[], Sink[Any]]]:
        with ExitStack() as stack:

            def make() -> Sink[Any]:
                copy: SQLSink = pickle.loads(pickle.dumps(sink))
                stack.callback(copy.close)
                return copy

            yield make

    @pytest.fixture
    @override
    def store(self, sqlite_url: str) -> Iterator[JobStore]:
        """In another database than the target."""
        with SQLJobStore(sqlite_url) as store:
            yield store


class TestSQLSinkThatReplaces(TestSQLSinkInTheStore):
    visible = False

    @pytest.fixture(params=["replace"])
    @override
    def mode(self, request: Any) -> Any:
        return request.param


class TestSQLSinkThatReplacesWithUrl(TestSQLSinkWithUrl):
    visible = False

    @pytest.fixture
    @override
    def sink(self, database_url: str) -> Iterator[SQLSink]:
        sink = SQLSink("target", mode="replace", url=database_url)
        yield sink
        sink.close()


class TestTransactionalFunction(InDatabase):
    @pytest.fixture
    @override
    def sink(self, database_url: str) -> Sink[Any]:
        make_table(database_url)

        @transactional
        def load(batch: Batch[Any], connection: Connection) -> None:
            connection.execute(text("INSERT INTO target (id, name) VALUES (:id, :name)"), batch.dicts())

        return load


class TestFunction(InDatabase):
    @pytest.fixture
    @override
    def sink(self, database_url: str) -> Iterator[Sink[Any]]:
        make_table(database_url)
        engine = create_engine(database_url)

        def load(batch: Batch[Any]) -> None:
            with engine.begin() as connection:
                # A batch may be delivered again after a death, and this target would refuse it.
                connection.execute(text("DELETE FROM target WHERE id = :id"), batch.dicts())
                connection.execute(text("INSERT INTO target (id, name) VALUES (:id, :name)"), batch.dicts())

        yield as_sink(load)
        engine.dispose()


def make_table(url: str) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE target (id INTEGER NOT NULL PRIMARY KEY, name VARCHAR(50))"))
    engine.dispose()
