"""The conformance suite for connectors, against those on files, cut at every prefix."""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow.parquet import write_table
from typing_extensions import override

from resumable_sync._zstd import zstd_module
from resumable_sync.connectors.files import CSVConnector, JSONLinesConnector
from resumable_sync.connectors.parquet import ParquetConnector
from resumable_sync.testing import ConnectorSuite

ROWS = [(str(number), f'name {number}\r\nsaid "é\U0001f600", and\nmore') for number in range(12)]
BAD = [
    {"file": "a", "place": [1, 2, 3], "size": 1, "version": "x", "before": [0, "y"]},
    {"file": "a", "place": [1, 2, 3, -1], "size": 1, "version": "x", "before": [0, "y"]},
    {"file": "a", "place": [1, 2, 3, 0], "size": "1", "version": "x", "before": [0, "y"]},
    {"file": "a", "place": [1, 2, 3, 0], "size": 1, "version": "x", "before": []},
    {"file": "a", "place": [True, 2, 3, 0], "size": 1, "version": "x", "before": [0, "y"]},
    [1],
    "a",
]


def quoted(value: str) -> str:
    return '"' + value.replace('"', '""') + '"'


def csv_of(rows: Sequence[tuple[str, ...]], header: str = "id,name") -> str:
    return "\r\n".join([header, *(",".join(map(quoted, row)) for row in rows)])


class FileSuite(ConnectorSuite):
    must_pickle = True

    @pytest.fixture
    @override
    def bad_cursors(self) -> Sequence[Any]:
        return BAD


class TestCSV(FileSuite):
    """Three files: one of them with the columns in another order, one without any record."""

    @pytest.fixture
    @override
    def connector(self, tmp_path: Path) -> CSVConnector:
        turned = [row[::-1] for row in ROWS[6:]]
        (tmp_path / "1.csv").write_text(csv_of(ROWS[:6]), encoding="utf-8-sig", newline="")
        (tmp_path / "2.csv").write_text("id,name\n", newline="")
        (tmp_path / "3.csv").write_text(csv_of(turned, "name,id"), encoding="utf-16", newline="")
        return CSVConnector(tmp_path / "*.csv")

    @pytest.fixture
    @override
    def expected(self) -> Sequence[Any]:
        return ROWS


class TestCompressedCSV(FileSuite):
    """A member for each line, through fsspec."""

    @pytest.fixture(params=["gz", "zst"])
    @override
    def connector(self, request: Any, tmp_path: Path) -> CSVConnector:
        compress = gzip.compress if request.param == "gz" else zstd_module().compress
        lines = csv_of(ROWS).encode().splitlines(keepends=True)
        path = tmp_path / f"rows.csv.{request.param}"
        path.write_bytes(b"".join(map(compress, lines)))
        return CSVConnector(f"file://{path}")

    @pytest.fixture
    @override
    def expected(self) -> Sequence[Any]:
        return ROWS


class TestJSONLines(FileSuite):
    @pytest.fixture
    @override
    def connector(self, tmp_path: Path) -> JSONLinesConnector:
        lines = [json.dumps(record) + "\n" * (1 + place % 2) for place, record in enumerate(self._records())]
        (tmp_path / "records.jsonl").write_text("".join(lines))
        return JSONLinesConnector(tmp_path / "records.jsonl")

    @pytest.fixture
    @override
    def expected(self) -> Sequence[Any]:
        return self._records()

    def _records(self) -> Sequence[Any]:
        return [{"id": key, "name": name} for key, name in ROWS] + [None, 7, "text", [1]]


class TestParquet(FileSuite):
    """Three files: one of several row groups, one without rows, one with the columns in another order."""

    @pytest.fixture
    @override
    def connector(self, tmp_path: Path) -> ParquetConnector:
        table = pa.table({"id": [row[0] for row in ROWS], "name": [row[1] for row in ROWS]})
        write_table(table.slice(0, 8), tmp_path / "1.parquet", row_group_size=3)
        write_table(table.slice(0, 0), tmp_path / "2.parquet")
        write_table(table.slice(8).select(["name", "id"]), tmp_path / "3.parquet", row_group_size=2)
        return ParquetConnector(tmp_path / "*.parquet")

    @pytest.fixture
    @override
    def bad_cursors(self) -> Sequence[Any]:
        before = [0, "94be1685305ab80a"]
        return [*BAD[1:], {"file": "1.parquet", "place": [1, 2, 3, 0], "size": 1, "version": "x", "before": before}]

    @pytest.fixture
    @override
    def expected(self) -> Sequence[Any]:
        return [{"id": key, "name": name} for key, name in ROWS]


class TestPartOfCSV(FileSuite):
    """The middle one of three parts, each of two files."""

    @pytest.fixture
    @override
    def connector(self, tmp_path: Path) -> CSVConnector:
        for number in range(6):
            (tmp_path / f"{number}.csv").write_text(csv_of(ROWS[:6]), newline="")
        part = CSVConnector(tmp_path / "*.csv").split(3)[1]
        assert part.place == [["1.csv"], ["3.csv"]]
        return part

    @pytest.fixture
    @override
    def expected(self) -> Sequence[Any]:
        return ROWS[:6] * 2


class TestPartOfParquet(FileSuite):
    """From the middle of one file to the middle of another."""

    @pytest.fixture
    @override
    def connector(self, tmp_path: Path) -> ParquetConnector:
        table = pa.table({"id": [row[0] for row in ROWS], "name": [row[1] for row in ROWS]})
        for number in range(5):
            write_table(table, tmp_path / f"{number}.parquet", row_group_size=3)
        part = ParquetConnector(tmp_path / "*.parquet").split(4)[1]
        place: Any = part.place
        assert [edge[:2] for edge in place] == [["1.parquet", 1], ["2.parquet", 2]]
        return part

    @pytest.fixture
    @override
    def bad_cursors(self) -> Sequence[Any]:
        return BAD[1:]

    @pytest.fixture
    @override
    def expected(self) -> Sequence[Any]:
        records = [{"id": key, "name": name} for key, name in ROWS]
        return [*records[3:], *records[:6]]
