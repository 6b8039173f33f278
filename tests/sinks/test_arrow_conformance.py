"""The conformance suite, against `ArrowSink` on real databases."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from typing_extensions import override

from resumable_sync.sinks.arrow import ArrowSink
from resumable_sync.testing import SinkSuite


@pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)
class ArrowSuite(SinkSuite):
    must_pickle = True

    @pytest.fixture
    @override
    def delivered(self, database_url: str) -> Iterator[Callable[[], Sequence[Any]]]:
        engine = create_engine(database_url)

        def read() -> Sequence[Any]:
            with engine.connect() as connection:
                rows = connection.execute(text("SELECT id, name FROM target ORDER BY id")).mappings()
                return [dict(row) for row in rows]

        yield read
        engine.dispose()

    @pytest.fixture
    @override
    def bad_record(self) -> Any:
        return {"id": object(), "name": "of no type that a database knows"}

    @pytest.fixture
    def made(self, database_url: str) -> Iterator[list[ArrowSink]]:
        if database_url.startswith("sqlite"):
            pytest.importorskip("adbc_driver_sqlite", reason="ADBC's driver for SQLite is not installed")
        sinks: list[ArrowSink] = []
        yield sinks
        for sink in sinks:
            sink.close()

    @pytest.fixture
    @override
    def make_sink(self, made: list[ArrowSink], sink: ArrowSink) -> Callable[[], ArrowSink]:
        def make() -> ArrowSink:
            copy = type(sink).__new__(type(sink))
            copy.__setstate__(sink.__getstate__())
            made.append(copy)
            return copy

        return make


class TestArrowSinkAppends(ArrowSuite):
    @pytest.fixture
    @override
    def sink(self, database_url: str, made: list[ArrowSink]) -> ArrowSink:
        made.append(ArrowSink("target", "append", database_url))
        return made[0]


class TestArrowSinkReplaces(ArrowSuite):
    visible = False

    @pytest.fixture
    @override
    def sink(self, database_url: str, made: list[ArrowSink]) -> ArrowSink:
        made.append(ArrowSink("target", "replace", database_url, publish_incomplete=True))
        return made[0]
