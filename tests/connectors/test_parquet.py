"""Parquet files as they come."""

import sys
import tracemalloc
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow.parquet import ParquetWriter, write_table

from resumable_sync import ConfigurationError, CursorError, MissingExtraError, run_full_sync
from resumable_sync._model import as_records
from resumable_sync.connectors.parquet import ParquetConnector
from resumable_sync.sinks.files import JSONLinesSink
from resumable_sync.sinks.sql import SQLSink
from resumable_sync.stores.memory import MemoryJobStore
from resumable_sync.stores.sql import SQLJobStore

TABLE = pa.table({"id": pa.array(range(10), pa.int32()), "name": [f"name {n}" for n in range(10)]})


def ids(connector: Any, cursor: Any = None, batch_size: int = 3) -> list[int]:
    return [row["id"] for page in connector.read(cursor, batch_size) for row in page.records.to_pylist()]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda path: write_table(TABLE.slice(0, 9), path, row_group_size=4), "which was (truncated|written anew)"),
        (lambda path: write_table(pa.concat_tables([TABLE, TABLE]), path, row_group_size=4), "was written anew"),
        (lambda path: path.write_bytes(path.read_bytes()), None),
        (lambda path: path.write_bytes(b""), "truncated"),
    ],
)
def test_a_file_that_changed(tmp_path: Path, change: Callable[[Path], object], told: str | None) -> None:
    path = tmp_path / "a.parquet"
    write_table(TABLE, path, row_group_size=4)
    connector = ParquetConnector(path)
    pages = list(connector.read(None, 3))
    assert [page.cursor["place"][:2] for page in pages] == [[0, 3], [0, 4], [1, 3], [1, 4], [2, 2]]
    change(path)
    if told is None:
        assert connector.moved(pages[1].cursor) is None
        assert ids(connector, pages[1].cursor) == list(range(4, 10))
        return
    with pytest.raises(CursorError, match=told):
        connector.read(pages[1].cursor, 1)


def test_a_place_that_the_file_does_not_have(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    write_table(TABLE, path, row_group_size=4)
    daring = ParquetConnector(path, if_moved="warn")
    page = next(daring.read(None, 3))
    for place in ([3, 0], [2, 3]):
        with pytest.raises(CursorError, match="no such row"):
            ids(daring, {**page.cursor, "place": [*place, 0]})


def test_columns_that_are_chosen(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    write_table(TABLE, path)
    connector = ParquetConnector(path, columns=["name", "id"])
    assert list(as_records(next(connector.read(None, 1)).records)) == [{"name": "name 0", "id": 0}]
    assert [column.name for column in connector.columns()] == ["name", "id"]
    with pytest.raises(ValueError, match=r"'a.parquet' has no column 'x'; correct columns="):
        ids(ParquetConnector(path, columns=["x"]))
    with pytest.raises(ConfigurationError, match="name each once"):
        ParquetConnector(path, columns=["id", "id"])


@pytest.mark.parametrize("data", [b"", b"PAR1", b"no parquet at all, but long enough for a tail", b"PAR1\0\0\0\0PAR1"])
def test_what_is_no_parquet(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.parquet").write_bytes(data)
    with pytest.raises(ValueError, match=r"'a.parquet' is no Parquet file, or damaged"):
        ids(ParquetConnector(tmp_path / "a.parquet"))


def test_a_damaged_page(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    write_table(pa.table({"id": range(4_000)}), path, row_group_size=2_000, compression="gzip", use_dictionary=False)
    data = bytearray(path.read_bytes())
    middle = len(data) * 3 // 4
    data[middle : middle + 64] = b"\xff" * 64
    path.write_bytes(data)
    pages = ParquetConnector(path).read(None, 2_000)
    next(pages)
    with pytest.raises(ValueError, match=r"'a.parquet' is no Parquet file, or damaged"):
        list(pages)


def test_types_and_a_table_made_of_them(tmp_path: Path, sqlite_url: str) -> None:
    values: dict[str, tuple[Any, Any]] = {
        "small": (pa.uint8(), 200),
        "unsigned": (pa.uint64(), 2**63 - 1),
        "single": (pa.float32(), 0.5),
        "amount": (pa.decimal128(12, 2), Decimal("1.50")),
        "flag": (pa.bool_(), True),
        "day": (pa.date32(), date(2026, 1, 31)),
        "clock": (pa.time64("us"), time(12, 0, 0, 1)),
        "at": (pa.timestamp("us", tz="UTC"), datetime(2026, 1, 31, 12, tzinfo=UTC)),
        "span": (pa.duration("us"), timedelta(seconds=1)),
        "raw": (pa.binary(), b"\xff"),
        "list": (pa.list_(pa.int8()), [1, 2]),
        "kind": (pa.dictionary(pa.int8(), pa.string()), "a"),
        "nothing": (pa.null(), None),
    }
    path = tmp_path / "a.parquet"
    schema = pa.schema([(name, kind) for name, (kind, _) in values.items()])
    row = {name: value for name, (_, value) in values.items()}
    write_table(pa.Table.from_pylist([row], schema), path)
    connector = ParquetConnector(path)
    told = {column.name: str(column.type) for column in connector.columns()}
    assert told == {
        "small": "SMALLINT",
        "unsigned": "NUMERIC(20, 0)",
        "single": "FLOAT",
        "amount": "NUMERIC(12, 2)",
        "flag": "BOOLEAN",
        "day": "DATE",
        "clock": "TIME",
        "at": "DATETIME",
        "span": "DATETIME",
        "raw": "BLOB",
        "list": "JSON",
        "kind": "TEXT",
        "nothing": "TEXT",
    }
    with SQLJobStore(sqlite_url) as store:
        assert run_full_sync("types", connector, SQLSink("types", mode="append"), store=store).status == "completed"
    sink = JSONLinesSink(tmp_path / "a.jsonl")
    assert run_full_sync("types", connector, sink, store=MemoryJobStore()).job.total_records == 1


def test_files_of_other_columns_are_refused(tmp_path: Path) -> None:
    write_table(TABLE, tmp_path / "1.parquet")
    write_table(TABLE.select(["id"]), tmp_path / "2.parquet")
    with pytest.raises(ValueError, match=r"'2.parquet' has other columns .* it lacks \['name'\]"):
        ids(ParquetConnector(tmp_path / "*.parquet"))


def test_types_are_those_of_the_first_file(tmp_path: Path) -> None:
    first = pa.table({"a": pa.array([1], pa.int64()), "b": [None], "c": ["x"]})
    write_table(first, tmp_path / "1.parquet")
    write_table(pa.table({"c": ["y"], "a": pa.array([2], pa.int16()), "b": [5]}), tmp_path / "2.parquet")
    connector: Any = ParquetConnector(tmp_path / "*.parquet")
    one, two = connector.read(None, 9)
    assert [*one.records.to_pylist(), *two.records.to_pylist()] == [
        {"a": 1, "b": None, "c": "x"},
        {"a": 2, "b": 5, "c": "y"},
    ]
    assert two.records.schema.field("a").type == pa.int64()
    for other, kind in ((["03"], "string"), ([4.5], "double")):
        write_table(pa.table({"a": other, "b": [5], "c": ["z"]}), tmp_path / "3.parquet")
        with pytest.raises(
            ValueError, match=f"the file '3.parquet' has the column 'a' as {kind}, which does not fit int"
        ):
            list(connector.read(two.cursor, 9))


def test_reading_takes_constant_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    block = pa.table({"id": range(20_000), "text": ["x" * 100] * 20_000})
    with ParquetWriter(path, block.schema, use_dictionary=False, compression="none") as writer:
        for _ in range(20):
            writer.write_table(block)
    assert path.stat().st_size > 40_000_000
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    try:
        peaks = [pa.total_allocated_bytes() - before for _ in ParquetConnector(path).read(None, 1_000)]
        assert max(peaks) < 8_000_000
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()


def test_what_it_needs_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'resumable_sync\[parquet\]'"):
        ParquetConnector("a.parquet")
