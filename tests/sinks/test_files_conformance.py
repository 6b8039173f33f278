"""The conformance suite for sinks, against those on files."""

import csv
import gzip
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from typing_extensions import override

from resumable_sync.sinks.files import CSVSink, JSONLinesSink
from resumable_sync.testing import SinkSuite


class InFile(SinkSuite):
    must_pickle = True

    @pytest.fixture(params=[("append", ""), ("replace", ".gz")], ids=["append", "replace gz"])
    def mode_and_ending(self, request: Any) -> Any:
        return request.param

    @pytest.fixture
    def mode(self, mode_and_ending: Any) -> Any:
        return mode_and_ending[0]

    @pytest.fixture
    def ending(self, mode_and_ending: Any) -> Any:
        return mode_and_ending[1]

    @pytest.fixture
    @override
    def bad_record(self) -> Any:
        return {"id": object(), "name": "of no type that a file knows"}


def text_of(path: Path) -> str:
    if not path.exists():
        return ""
    data = path.read_bytes()
    return (gzip.decompress(data) if path.suffix == ".gz" else data).decode()


class TestJSONLinesSink(InFile):
    @pytest.fixture
    @override
    def sink(self, tmp_path: Path, mode: Any, ending: str) -> JSONLinesSink:
        return JSONLinesSink(tmp_path / f"target.jsonl{ending}", mode=mode)

    @pytest.fixture
    @override
    def delivered(self, tmp_path: Path, ending: str) -> Callable[[], Sequence[Any]]:
        return lambda: [json.loads(line) for line in text_of(tmp_path / f"target.jsonl{ending}").splitlines()]


class TestCSVSink(InFile):
    @pytest.fixture
    @override
    def sink(self, tmp_path: Path, mode: Any, ending: str) -> CSVSink:
        return CSVSink(tmp_path / f"target.csv{ending}", mode=mode)

    @pytest.fixture
    @override
    def records(self) -> Sequence[Any]:
        return [{"id": str(number), "name": f"name {number}\n é'%,\""} for number in range(1, 11)]

    @pytest.fixture
    @override
    def delivered(self, tmp_path: Path, ending: str) -> Callable[[], Sequence[Any]]:
        return lambda: list(csv.DictReader(text_of(tmp_path / f"target.csv{ending}").splitlines(keepends=True)))
