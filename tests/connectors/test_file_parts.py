"""Parts of files: which files and row groups are read by which, whatever becomes of the files meanwhile."""

import pickle
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow.parquet import write_table
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from resumable_sync import CursorError, run_partitioned_sync
from resumable_sync._model import as_records
from resumable_sync.connectors._file_parts import Edge, FileRange, cut
from resumable_sync.connectors._storage import FileFacts
from resumable_sync.connectors.files import CSVConnector, JSONLinesConnector
from resumable_sync.connectors.parquet import ParquetConnector
from resumable_sync.sinks.sql import SQLSink
from resumable_sync.stores.sql import SQLJobStore


def write(folder: Path, name: str, numbers: Sequence[int]) -> None:
    (folder / name).write_text("".join(f"{number}\n" for number in numbers))


def read(connector: Any, cursor: Any = None) -> list[Any]:
    return [record for page in connector.read(cursor, 3) for record in as_records(page.records)]


def ids(connector: Any, cursor: Any = None) -> list[int]:
    return [record["id"] for record in read(connector, cursor)]


@pytest.fixture
def lines(tmp_path: Path) -> JSONLinesConnector:
    for number in range(6):
        write(tmp_path, f"{number}.jsonl", range(number * 10, number * 10 + 10))
    return JSONLinesConnector(tmp_path / "*.jsonl")


@pytest.fixture
def table() -> Any:
    return pa.table({"id": range(20), "name": [f"name {n}" for n in range(20)]})


@pytest.mark.parametrize(
    ("weights", "parts", "sizes"),
    [
        ([1, 1, 1, 1], 2, [2, 2]),
        ([1, 1, 1], 8, [1, 1, 1]),
        ([100, 1, 1, 1], 2, [1, 3]),
        ([1, 1, 1, 100], 2, [3, 1]),
        ([1, 100, 1], 3, [1, 1, 1]),
        ([0, 0, 0], 3, [3]),
        ([5, 0, 5, 0], 2, [1, 3]),
        ([7], 3, [1]),
        ([], 3, [0]),
    ],
)
def test_pieces_are_spread_by_their_weight(weights: Sequence[int], parts: int, sizes: Sequence[int]) -> None:
    names = [f"{place:02d}" for place in range(len(weights))]
    ranges = cut(FileRange(), [(Edge(name), weight) for name, weight in zip(names, weights, strict=True)], parts)
    assert [sum(map(found.holds, names)) for found in ranges] == sizes
    assert (ranges[0].after, ranges[-1].upto) == (None, None)


def test_files_that_come_later_belong_to_the_part_in_which_they_sort(lines: JSONLinesConnector, tmp_path: Path) -> None:
    first, second, third = lines.split(3)
    assert [part.place for part in (first, second, third)] == [
        [None, ["1.jsonl"]],
        [["1.jsonl"], ["3.jsonl"]],
        [["3.jsonl"], None],
    ]
    for name, number in (("0a", 100), ("1a", 101), ("3.jsonk", 102), ("9", 103)):
        write(tmp_path, f"{name}.jsonl", [number])
    assert [[record for record in read(part) if record >= 100] for part in (first, second, third)] == [
        [100],
        [101, 102],
        [103],
    ]
    assert sorted(record for part in (first, second, third) for record in read(part)) == sorted(read(lines))


def test_a_part_goes_on_in_a_file_that_was_appended_to_and_not_in_one_that_was_replaced(
    lines: JSONLinesConnector, tmp_path: Path
) -> None:
    part = lines.split(3)[1]
    page = next(part.read(None, 3))
    with (tmp_path / "2.jsonl").open("a") as file:
        file.write("1000\n")
    assert part.moved(page.cursor) is None
    assert read(part, page.cursor) == [*range(23, 30), 1000, *range(30, 40)]
    write(tmp_path, "0a.jsonl", [1])  # in another part
    assert part.moved(page.cursor) is None
    write(tmp_path, "2.jsonl", range(50, 90))
    assert "was replaced" in str(part.moved(page.cursor))
    with pytest.raises(CursorError, match="was replaced"):
        read(part, page.cursor)


def test_a_part_whose_files_are_gone_is_not_taken_for_an_empty_one(lines: JSONLinesConnector, tmp_path: Path) -> None:
    part = lines.split(3)[1]
    for name in ("2.jsonl", "3.jsonl"):
        (tmp_path / name).unlink()
    with pytest.raises(FileNotFoundError, match="all files of a part are gone; put them back"):
        read(part)


def test_files_whose_sizes_nobody_knows_count_alike(
    lines: JSONLinesConnector, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write(tmp_path, "0.jsonl", range(10_000))
    assert len(lines.split(3)) == 2
    known = lines._storage.open

    def unknown(name: str) -> Any:
        file, facts = known(name)
        return file, FileFacts(size=None if name == "3.jsonl" else facts.size, version=facts.version)

    monkeypatch.setattr(lines._storage, "open", unknown)
    assert [part.place[1] for part in lines.split(3)] == [["1.jsonl"], ["3.jsonl"], None]


def test_a_single_file_of_text_is_one_part(tmp_path: Path) -> None:
    write(tmp_path, "a.jsonl", range(10))
    (part,) = JSONLinesConnector(tmp_path / "a.jsonl").split(4)
    assert part.place == [None, None]
    assert read(part) == list(range(10))


def test_parts_of_csv_have_the_columns_of_the_whole_in_its_order(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,name\n1,one\n")
    (tmp_path / "b.csv").write_text("name,id\ntwo,2\n")
    parts = CSVConnector(tmp_path / "*.csv").split(2)
    assert [page.columns for part in parts for page in part.read(None, 5)] == [("id", "name")] * 2
    assert [read(part) for part in parts] == [[("1", "one")], [("2", "two")]]
    assert [[column.name for column in part.columns()] for part in parts] == [["id", "name"]] * 2


def test_row_groups_are_spread_over_parts_also_of_one_file(tmp_path: Path, table: Any) -> None:
    write_table(table, tmp_path / "a.parquet", row_group_size=3)
    whole = ParquetConnector(tmp_path / "a.parquet")
    parts = whole.split(3)
    assert [ids(part) for part in parts] == [list(range(6)), list(range(6, 12)), list(range(12, 20))]
    assert [part.count() for part in parts] == [6, 6, 8]
    assert [smaller.count() for smaller in parts[1].split(2)] == [3, 3]
    assert [number for smaller in parts[1].split(8) for number in ids(smaller)] == list(range(6, 12))
    assert len(whole.split(100)) == 7
    assert parts[1].fingerprint == {**whole.fingerprint, "range": parts[1].fingerprint["range"]}
    assert "part of" in repr(parts[1])
    assert "part of" not in repr(whole)
    assert whole.place is None
    assert ids(pickle.loads(pickle.dumps(parts[1]))) == ids(parts[1])


def test_a_file_that_was_written_anew_since_it_was_split_is_refused(tmp_path: Path, table: Any) -> None:
    write_table(table, tmp_path / "a.parquet", row_group_size=3)
    write_table(table, tmp_path / "b.parquet", row_group_size=20)
    halves = ParquetConnector(tmp_path / "*.parquet").split(4)
    write_table(table.slice(0, 19), tmp_path / "a.parquet", row_group_size=3)
    for half in halves[:2]:
        with pytest.raises(CursorError, match=r"'a\.parquet' was written anew since it was split into parts"):
            ids(half)
    assert ids(halves[-1]) == list(range(20))
    (tmp_path / "a.parquet").unlink()
    with pytest.raises(FileNotFoundError, match=r"'a\.parquet', in which a part begins or ends, is gone"):
        ids(halves[0])


def test_a_file_without_rows_changes_nothing(tmp_path: Path, table: Any) -> None:
    write_table(table.slice(0, 0), tmp_path / "a.parquet")
    assert [ids(part) for part in ParquetConnector(tmp_path / "*.parquet").split(4)] == [[]]
    write_table(table, tmp_path / "b.parquet", row_group_size=10)
    write_table(table.slice(0, 0), tmp_path / "c.parquet")
    parts = ParquetConnector(tmp_path / "*.parquet").split(2)
    assert [ids(part) for part in parts] == [list(range(10)), list(range(10, 20))]


@pytest.mark.parametrize(
    "place", [None, [None], [["a"], ["b"], ["c"]], [[1], None], [["a", 0, 5], None], [["a", 1], None], (None, None)]
)
def test_what_is_no_place_of_a_part(lines: JSONLinesConnector, place: Any) -> None:
    with pytest.raises(CursorError, match="two edges"):
        lines.part(place)


def test_text_has_no_parts_within_a_file(lines: JSONLinesConnector) -> None:
    with pytest.raises(CursorError, match="in the middle of a file"):
        lines.part([None, ["a.parquet", 3, 3735928559]])


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_files_are_synced_in_parts(sqlite_url: str, tmp_path: Path, table: Any, kind: str) -> None:
    for number in range(4):
        piece = table.slice(number * 5, 5)
        if kind == "parquet":
            write_table(piece, tmp_path / f"{number}.parquet", row_group_size=2)
        else:
            rows = "".join(f"{row['id']},{row['name']}\n" for row in piece.to_pylist())
            (tmp_path / f"{number}.csv").write_text(f"id,name\n{rows}")
    made: Any = {"csv": CSVConnector, "parquet": ParquetConnector}[kind]
    with SQLJobStore(sqlite_url) as store, ThreadPoolExecutor(2) as executor:
        sink = SQLSink("target", mode="replace")
        result = run_partitioned_sync(
            "files", made(tmp_path / f"*.{kind}"), sink, store=store, executor=executor, parts=4, batch_size=2
        )
        assert (result.status, result.records) == ("completed", 20)
    with create_engine(sqlite_url, poolclass=NullPool).connect() as connection:
        found = connection.exec_driver_sql("SELECT CAST(id AS integer), name FROM target ORDER BY 1").all()
    assert [tuple(row) for row in found] == [(n, f"name {n}") for n in range(20)]
