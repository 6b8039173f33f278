"""The sink suite passes correct sinks, and finds every mistake by a test that names it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from typing_extensions import override

from resumable_sync import ConfigurationError, MemoryJobStore
from resumable_sync.stores.sql import SQLJobStore
from resumable_sync.testing import SinkSuite
from testing.tiny_parts import TinyCheckpointingSink, TinyListSink, TinyTransactionalSink

RECORDS = [{"id": number, "name": f"name {number}"} for number in range(1, 11)]

CHECKPOINTING = {
    "does not fence": "its_checkpoint_fences_zombies",
    "forgets its checkpoint": "its_checkpoint_follows_the_rows",
    "checkpoint of any run": "its_checkpoint_follows_the_rows",
}
LIST = {
    "claims to be idempotent": "a_death_during_a_batch",
    "writes backwards": "records_arrive_in_order",
    "takes half of a bad batch": "a_batch_is_taken_whole_or_not_at_all",
}
TRANSACTIONAL = {
    "commits half": "a_sink_writes_only_in_the_transaction",
    "commits the connection": "records_arrive_in_order",
    "loses the last record of a batch": "records_arrive_in_order",
    "begin always empties the target": "beginning_again_is_harmless",
    "complete copies the rows": "a_death_during_completion",
    "parts begin too": "parts_write_side_by_side",
    "takes any format": "a_format_changes_nothing",
}


class TestTinyListSink(SinkSuite):
    @pytest.fixture
    def target(self) -> list[Any]:
        return []

    @pytest.fixture
    @override
    def sink(self, target: list[Any]) -> TinyListSink:
        return TinyListSink(target)

    @pytest.fixture
    @override
    def delivered(self, target: list[Any]) -> Callable[[], Sequence[Any]]:
        return lambda: target

    @pytest.fixture
    @override
    def bad_record(self) -> str:
        return "bad"


class TestTinyCheckpointingSink(SinkSuite):
    @pytest.fixture
    def target(self) -> dict[str, Any]:
        return {}

    @pytest.fixture
    @override
    def sink(self, target: dict[str, Any]) -> TinyCheckpointingSink:
        return TinyCheckpointingSink(target)

    @pytest.fixture
    @override
    def delivered(self, target: dict[str, Any]) -> Callable[[], Sequence[Any]]:
        return lambda: target["rows"]


class _Target:
    """A SQLite file with a table, which the sink and the store share."""

    def __init__(self, folder: Path) -> None:
        self.url = f"sqlite:///{folder}/target.db"
        self.engine = create_engine(self.url)
        self.store = SQLJobStore(self.url)
        with self.engine.begin() as connection:
            connection.execute(text("CREATE TABLE target (id INTEGER, name TEXT)"))

    def rows(self) -> list[dict[str, Any]]:
        with self.engine.connect() as connection:
            return [dict(row) for row in connection.execute(text("SELECT id, name FROM target")).mappings()]

    def close(self) -> None:
        self.engine.dispose()
        self.store.close()


@pytest.fixture
def target(tmp_path: Path) -> Iterator[_Target]:
    with ExitStack() as stack:
        made = _Target(tmp_path)
        stack.callback(made.close)
        yield made


class TestTinyTransactionalSink(SinkSuite):
    must_pickle = True

    @pytest.fixture
    @override
    def sink(self) -> TinyTransactionalSink:
        return TinyTransactionalSink()

    @pytest.fixture
    @override
    def store(self, target: _Target) -> SQLJobStore:
        return target.store

    @pytest.fixture
    @override
    def delivered(self, target: _Target) -> Callable[[], Sequence[Any]]:
        return target.rows


def _run(test: str, sink: Any, **fixtures: Any) -> None:
    method = getattr(SinkSuite(), f"test_{test}")
    given = fixtures | {"sink": sink, "make_sink": lambda: sink, "records": RECORDS, "columns": []}
    method(**{name: given[name] for name in method.__code__.co_varnames[1 : method.__code__.co_argcount]})


@pytest.mark.parametrize("bug", list(LIST))
def test_a_mistake_of_a_plain_sink_is_found(bug: str) -> None:
    rows: list[Any] = []
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        _run(LIST[bug], TinyListSink(rows, bug), delivered=lambda: rows, store=MemoryJobStore(), bad_record="bad")


@pytest.mark.parametrize("bug", list(CHECKPOINTING))
def test_a_mistake_of_a_sink_with_a_checkpoint_is_found(bug: str) -> None:
    there: dict[str, Any] = {}
    sink = TinyCheckpointingSink(there, bug)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        _run(CHECKPOINTING[bug], sink, delivered=lambda: there["rows"], store=MemoryJobStore())


@pytest.mark.parametrize("bug", list(TRANSACTIONAL))
def test_a_mistake_of_a_transactional_sink_is_found(bug: str, target: _Target) -> None:
    with pytest.raises((AssertionError, ConfigurationError)):
        _run(TRANSACTIONAL[bug], TinyTransactionalSink(bug), delivered=target.rows, store=target.store)
