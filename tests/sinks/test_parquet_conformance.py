"""The conformance suite for sinks, against Parquet files: of this machine, and behind a URL."""

import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import fsspec
import pytest
from pyarrow import parquet
from typing_extensions import override

from resumable_sync.sinks.parquet import ParquetSink
from resumable_sync.testing import SinkSuite


class TestParquetSink(SinkSuite):
    must_pickle = True

    @pytest.fixture(params=["local", "memory"])
    def path(self, request: Any, tmp_path: Path) -> Iterator[str]:
        if request.param == "local":
            yield str(tmp_path / "target")
            return
        yield f"memory://{uuid.uuid4()}/target"
        fsspec.filesystem("memory").store.clear()

    @pytest.fixture(params=["append", "replace"])
    def mode(self, request: Any) -> Any:
        return request.param

    @pytest.fixture
    @override
    def sink(self, path: str, mode: Any) -> ParquetSink:
        return ParquetSink(path, mode=mode)

    @pytest.fixture
    @override
    def bad_record(self) -> Any:
        return {"id": "no number", "name": "which the column is"}

    @pytest.fixture
    @override
    def delivered(self, path: str) -> Callable[[], Sequence[Any]]:
        def read() -> Sequence[Any]:
            found: list[Any] = []
            for file in sorted(fsspec.open_files(f"{path}/*.parquet"), key=lambda one: one.path):
                with file as opened:
                    found += parquet.read_table(opened).to_pylist()
            return found

        return read
