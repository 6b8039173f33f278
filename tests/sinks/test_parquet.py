"""Parquet files as targets: what is published when, what a death leaves, and who is refused."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pytest
from pyarrow import parquet

from resumable_sync import (
    Checkpoint,
    ConfigurationError,
    Guarantee,
    LeaseLostError,
    StateCorruptError,
    StoreError,
    plan_full_sync,
    run_full_sync,
)
from resumable_sync.connectors.parquet import ParquetConnector
from resumable_sync.sinks import _places
from resumable_sync.sinks.parquet import ParquetSink
from resumable_sync.stores.memory import MemoryJobStore
from sinks.driving import batch, job


def begun(sink: Any, *, token: int = 1, run_id: str = "run 1", **changes: Any) -> Checkpoint | None:
    found: Checkpoint | None = sink.checkpoint(job(token=token, run_id=run_id, **changes))
    sink.begin(job(token=token, run_id=run_id, **changes), None)
    return found


def run(sink: Any, *records: Any, columns: Any = None, run_id: str = "run 1", token: int = 1) -> None:
    begun(sink, run_id=run_id, token=token)
    for number, each in enumerate(records):
        sink.write(batch(each, columns, number=number, token=token), None)
    sink.complete(job(run_id=run_id, token=token), None)


def numbers(*values: int) -> list[dict[str, int]]:
    return [{"n": value} for value in values]


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.parquet"))


def content(folder: Path) -> list[int]:
    return [value for file in files(folder) for value in parquet.read_table(file)["n"].to_pylist()]


def test_a_run_takes_the_place_of_what_is_there_when_it_is_complete(tmp_path: Path) -> None:
    sink = ParquetSink(tmp_path / "t")
    run(sink, numbers(1, 2), numbers(3))
    (tmp_path / "t" / "README").write_text("not ours")
    begun(sink, run_id="run 2", token=2)
    sink.write(batch(numbers(4), token=2), None)
    assert content(tmp_path / "t") == [1, 2, 3]
    sink.complete(job(run_id="run 2", token=2), None)
    assert content(tmp_path / "t") == [4]
    assert json.loads((tmp_path / "t" / "_SUCCESS").read_text()) == {
        "job": "job",
        "run_id": "run 2",
        "files": 1,
        "records": 1,
    }
    assert sorted(one.name for one in (tmp_path / "t").iterdir() if one.suffix != ".parquet") == [
        ".sync",
        "README",
        "_SUCCESS",
    ]
    assert [one.name for one in (tmp_path / "t" / ".sync").iterdir()] == ["attempts"]


def test_the_footer_tells_where_a_file_comes_from_and_no_cursor(tmp_path: Path) -> None:
    sink = ParquetSink(tmp_path / "t")
    begun(sink)
    sink.write(batch(numbers(1)), None)
    sink.write(batch(numbers(2), number=1, cursor=["a secret token"]), None)
    sink.complete(job(), None)
    _, second = files(tmp_path / "t")
    assert second.name.endswith("-00000001.parquet")
    footer = parquet.read_metadata(second).metadata
    found = {key.decode(): value.decode() for key, value in footer.items() if key.startswith(b"resumable_sync.")}
    assert found == {
        "resumable_sync.job": "job",
        "resumable_sync.run": "1",
        "resumable_sync.run_id": "run 1",
        "resumable_sync.batch": "1",
        "resumable_sync.key": "0" * 32,
    }
    assert all(b"secret" not in file.read_bytes() for file in files(tmp_path / "t"))


@pytest.mark.parametrize(("lists", "dictionaries"), [(False, [False, True]), (True, [True, True, True])])
def test_values_that_repeat_get_a_dictionary(tmp_path: Path, *, lists: bool, dictionaries: list[bool]) -> None:
    table = pa.table({"id": range(100), "status": ["paid"] * 100})
    if lists:
        table = table.append_column("lists", [[[number] for number in range(100)]])
    run(ParquetSink(tmp_path / "t"), table)
    (file,) = files(tmp_path / "t")
    group = parquet.read_metadata(file).row_group(0)
    assert [group.column(place).has_dictionary_page for place in range(group.num_columns)] == dictionaries
    assert parquet.read_table(file).to_pylist() == table.to_pylist()


def test_runs_add_to_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    parquet.write_table(pa.table({"n": [0]}), tmp_path / "t" / "00000-theirs.parquet")
    sink = ParquetSink(tmp_path / "t", mode="append")
    run(sink, numbers(1))
    begun(sink, run_id="run 2", token=2)
    assert not (tmp_path / "t" / "_SUCCESS").exists()
    sink.write(batch(numbers(2), token=2), None)
    assert sorted(content(tmp_path / "t")) == [0, 1, 2]
    run(sink, numbers(3), run_id="run 3", token=3)
    assert sorted(content(tmp_path / "t")) == [0, 1, 3]
    assert (tmp_path / "t" / "_SUCCESS").exists()


def test_other_files_of_that_kind_cannot_be_replaced(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "theirs.parquet").write_bytes(b"")
    sink = ParquetSink(tmp_path / "t")
    with pytest.raises(ConfigurationError, match=r"holds 'theirs.parquet', which no run has written.* mode=\"append\""):
        begun(sink)


class Death(BaseException):
    pass


class Watched:
    """Does something before some move of a sink's place, the first being number 1."""

    def __init__(self, sink: Any, number: int, before: Callable[[], None]) -> None:
        self.place, self.left, self.before = sink._dataset.place, number, before
        self.move, self.place.move = self.place.move, self

    def __call__(self, name: str, to: str) -> None:
        self.left -= 1
        if self.left == 0:
            self.before()
        self.move(name, to)


def dying() -> None:
    raise Death


@pytest.mark.parametrize("mode", ["append", "replace"])
def test_a_death_before_every_move(tmp_path: Path, mode: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # no machine dies here
    number, died = 0, True
    while died:
        number += 1
        folder = tmp_path / str(number)
        run(ParquetSink(folder, mode=mode), numbers(0), run_id="run 0")
        first = ParquetSink(folder, mode=mode)
        Watched(first, number, dying)
        try:
            run(first, numbers(1, 2), numbers(3), token=2)
            died = False
        except Death:
            again = ParquetSink(folder, mode=mode)
            done = again.checkpoint(job(token=3))
            # Another batch size than before.
            records = [[1], [2], [3]] if done is None else [[1], [2], [3]][done.processed_records :]
            begun(again, token=3)
            for place, each in enumerate(records, 0 if done is None else done.processed_batches):
                again.write(batch(numbers(*each), number=place, token=3), None)
            again.complete(job(token=3), None)
        assert sorted(content(folder)) == ([1, 2, 3] if mode == "replace" else [0, 1, 2, 3])
        assert (folder / "_SUCCESS").exists()
    assert number > 8


@pytest.mark.parametrize("mode", ["append", "replace"])
def test_who_is_overtaken_before_any_move_changes_nothing(
    tmp_path: Path, mode: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    number, overtaken, before = 0, True, 0
    while overtaken:
        number += 1
        folder = tmp_path / str(number)
        zombie, successor = ParquetSink(folder, mode=mode), ParquetSink(folder, mode=mode)

        def overtake(successor: Any = successor) -> None:
            done = begun(successor, token=2)
            for place in range(0 if done is None else done.processed_batches, 3):
                successor.write(batch(numbers(10 + place), number=place, token=2), None)
            successor.complete(job(token=2), None)
            run(successor, numbers(20), numbers(21), run_id="run 2", token=3)

        run(ParquetSink(folder, mode=mode), numbers(0), run_id="run 0", token=0)
        before = len(files(folder))
        Watched(zombie, number, overtake)
        try:
            run(zombie, numbers(10), numbers(11), numbers(12))
            overtaken = False
        except LeaseLostError:
            found = content(folder)
            assert sorted(found) == ([20, 21] if mode == "replace" else [0, 10, 11, 12, 20, 21])
            assert (folder / "_SUCCESS").exists()
    assert before == 1
    assert number > 8


def test_a_removed_file_is_missed(tmp_path: Path) -> None:
    sink = ParquetSink(tmp_path / "t", mode="append")
    begun(sink)
    sink.write(batch(numbers(1)), None)
    files(tmp_path / "t")[0].unlink()
    progress: Any = {"token": 2, "cursor": [1], "processed_records": 1, "processed_batches": 1}
    with pytest.raises(StoreError, match=r"00000000.parquet' is gone from .* reset_job"):
        begun(sink, **progress)
    state = tmp_path / "t" / ".sync" / "attempts" / "2" / "state.json"
    state.write_text('{"job_id": 7}')
    with pytest.raises(StateCorruptError):
        begun(sink, **progress)
    state.unlink()
    with pytest.raises(StoreError, match=r"no checkpoint of that run in .* reset_job"):
        begun(sink, **progress)
    with pytest.raises(StoreError, match="was not begun"):
        sink.complete(job(token=2), None)


def test_a_batch_is_not_written_twice_nor_out_of_turn(tmp_path: Path) -> None:
    sink = ParquetSink(tmp_path / "t", mode="append")
    with pytest.raises(ConfigurationError, match=r"before begin\(job\)"):
        sink.write(batch(numbers(1)), None)
    begun(sink)
    for _ in range(2):
        sink.write(batch(numbers(1)), None)
    with pytest.raises(StoreError, match="batch 2 does not follow on the checkpoint"):
        sink.write(batch(numbers(3), number=2), None)
    assert content(tmp_path / "t") == [1]


def test_jobs_take_turns(tmp_path: Path) -> None:
    first, second = (ParquetSink(tmp_path / "t", mode="append") for _ in range(2))
    begun(first, token=9)
    other = job(token=3).__class__(id="other", run=1, run_id="run 7", lease=job(token=3).lease)
    with pytest.raises(ConfigurationError, match=r"the job 'job' is not done with .* give this job another path"):
        second.checkpoint(other)
    first.write(batch(numbers(1), token=9), None)
    first.complete(job(token=9), None)
    assert second.checkpoint(other) is None
    second.begin(other, None)
    with pytest.raises((LeaseLostError, FileNotFoundError)):
        first.write(batch(numbers(2), number=1, token=9), None)
    second.write(batch(numbers(3), job_id="other", token=3), None)
    second.complete(other, None)
    assert sorted(content(tmp_path / "t")) == [1, 3]


def test_a_write_that_fails_can_be_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = ParquetSink(tmp_path / "t", mode="append")
    begun(sink)

    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(_places._Local, "write", full)
        with pytest.raises(OSError, match="No space"):
            sink.write(batch(numbers(1)), None)
    sink.write(batch(numbers(1)), None)
    assert content(tmp_path / "t") == [1]


def test_a_sync_behind_a_url() -> None:
    fsspec.filesystem("memory").store.clear()
    source = pa.table({"id": [1, 2, 3], "total": pa.array([None, 2, 3], pa.int32())})
    with fsspec.open("memory://in/a.parquet", "wb") as file:
        parquet.write_table(source, file)
    store = MemoryJobStore()
    sink = ParquetSink("memory://out/t")
    arguments: Any = ("copy", ParquetConnector("memory://in/*.parquet"), sink)
    assert plan_full_sync(*arguments, store=store).guarantee is Guarantee.EXACTLY_ONCE
    assert not any("out" in name for name in fsspec.filesystem("memory").store)
    first = run_full_sync(*arguments, store=store, batch_size=2, max_records=2)
    again = run_full_sync(*arguments, store=store, batch_size=2)
    assert (first.records, again.records, again.action) == (2, 1, "resume")
    found = [page.records for page in ParquetConnector("memory://out/t/*.parquet").read(None, 9)]
    assert pa.Table.from_batches(found).equals(source)


def test_a_source_without_records_gives_a_file_with_its_columns(tmp_path: Path) -> None:
    parquet.write_table(pa.table({"id": pa.array([], pa.int64())}), tmp_path / "in.parquet")
    connector = ParquetConnector(tmp_path / "in.parquet")
    run_full_sync("copy", connector, ParquetSink(tmp_path / "t"), store=MemoryJobStore())
    (file,) = files(tmp_path / "t")
    assert (parquet.read_schema(file).names, parquet.read_metadata(file).num_rows) == (["id"], 0)


@pytest.mark.parametrize("compression", ["snappy", "zstd", "gzip", "lz4", "none"])
def test_compressions(tmp_path: Path, compression: str) -> None:
    run(ParquetSink(tmp_path, compression=compression), numbers(*range(100)))
    (file,) = files(tmp_path)
    kind = parquet.read_metadata(file).row_group(0).column(0).compression
    assert kind.lower().replace("uncompressed", "none").startswith(compression)
    assert content(tmp_path) == [*range(100)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"path": 7}, "is a int that names no folder"),
        ({"path": "a", "mode": "upsert"}, "none of 'replace' and 'append'"),
        ({"path": "a", "compression": "rar"}, "none of 'snappy'"),
        ({"path": "a", "types": {"x": "numbre"}}, "names no type; name one such as"),
        ({"path": "a", "types": {"x": "decimal(99, 1)"}}, "names no type"),
        ({"path": "a", "storage_options": {"key": "hunter2"}}, "is a local path; leave them out"),
    ],
)
def test_arguments_that_do_not_fit(arguments: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        ParquetSink(**arguments)
    assert "hunter2" not in str(caught.value)


def test_a_url_shows_no_credentials() -> None:
    sink = ParquetSink("sftp://etl:hunter2@host.invalid/t")
    assert repr(sink) == "ParquetSink('sftp://host.invalid/t', mode='replace')"
    with pytest.raises(Exception, match=r"sftp://host.invalid/t") as caught:
        sink.checkpoint(job())
    assert "hunter2" not in repr(caught.value)
