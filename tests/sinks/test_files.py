"""Files as targets: what is published when, what a death leaves, and what becomes of values."""

import csv
import errno
import gzip
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Integer, Text

from resumable_sync import (
    Checkpoint,
    Column,
    ConfigurationError,
    Guarantee,
    LeaseLostError,
    StateCorruptError,
    StoreError,
    plan_full_sync,
    reset_job,
    run_full_sync,
)
from resumable_sync.connectors.files import CSVConnector, JSONLinesConnector
from resumable_sync.sinks import _appendix, _lock
from resumable_sync.sinks.files import CSVSink, JSONLinesSink
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


def test_a_run_takes_the_place_of_the_target_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("old\n")
    path.chmod(0o640)
    link = tmp_path / "link.jsonl"
    link.symlink_to(path)
    sink = JSONLinesSink(link)
    begun(sink)
    sink.write(batch([{"n": 1}]), None)
    assert path.read_text() == "old\n"
    sink.complete(job(), None)
    assert (path.read_text(), link.is_symlink(), path.stat().st_mode & 0o777) == ('{"n":1}\n', True, 0o640)
    run(sink, [{"n": 2}], [{"n": 3}], run_id="run 2", token=2)
    assert path.read_text() == '{"n":2}\n{"n":3}\n'
    assert sorted(one.name for one in (tmp_path / ".a.jsonl.sync").iterdir()) == ["2.json", "lock"]


def test_runs_add_to_the_target(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("1")
    sink = JSONLinesSink(path, mode="append")
    run(sink, [2], [3])
    run(sink, [4], run_id="run 2", token=2)
    assert path.read_text() == "1\n2\n3\n4\n"


def test_a_death_before_the_missing_line_break_was_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("1")

    def dying(*arguments: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(_appendix.Appendix, "add", dying)
        with pytest.raises(KeyboardInterrupt):
            begun(JSONLinesSink(path, mode="append"))
    run(JSONLinesSink(path, mode="append"), [2], token=2)
    assert path.read_text() == "1\n2\n"


def test_a_run_that_was_given_up_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    sink = JSONLinesSink(path, mode="append")
    run(sink, [1])
    begun(sink, run_id="run 2", token=2)
    sink.write(batch([2], token=2), None)
    assert path.read_text() == "1\n2\n"
    run(sink, [3], run_id="run 3", token=3)
    assert path.read_text() == "1\n3\n"


@pytest.mark.parametrize("mode", ["append", "replace"])
@pytest.mark.parametrize("ending", ["", ".gz", ".zst"])
def test_what_was_half_written_is_cut_off(tmp_path: Path, mode: Any, ending: str) -> None:
    path = tmp_path / f"a.jsonl{ending}"
    sink = JSONLinesSink(path, mode=mode)
    begun(sink)
    sink.write(batch([1, 2]), None)
    file = path if mode == "append" else tmp_path / f".{path.name}.sync" / "part"
    with file.open("ab") as half:
        half.write(b"[3, ")
    again = JSONLinesSink(path, mode=mode)
    found = begun(again, token=2, cursor=[1], processed_records=2, processed_batches=1)
    assert found == Checkpoint(run_id="run 1", cursor=[1], processed_records=2, processed_batches=1)
    again.write(batch([4], number=1, token=2), None)
    again.complete(job(token=2), None)
    assert [page.records for page in JSONLinesConnector(path).read(None, 9)] == [[1, 2, 4]]
    with pytest.raises(LeaseLostError):
        sink.complete(job(), None)


def test_a_batch_is_not_written_twice_nor_out_of_turn(tmp_path: Path) -> None:
    sink = JSONLinesSink(tmp_path / "a.jsonl", mode="append")
    with pytest.raises(ConfigurationError, match=r"before begin\(job\)"):
        sink.write(batch([1]), None)
    begun(sink)
    for _ in range(2):
        sink.write(batch([1]), None)
    with pytest.raises(StoreError, match="batch 2 does not follow on the checkpoint"):
        sink.write(batch([3], number=2), None)
    assert (tmp_path / "a.jsonl").read_text() == "1\n"


def test_a_write_that_fails_leaves_nothing_and_can_be_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.jsonl"
    sink = JSONLinesSink(path, mode="append")
    begun(sink)
    sink.write(batch([1]), None)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            sink.write(batch([2], number=1), None)
    assert path.read_text() == "1\n"
    sink.write(batch([2], number=1), None)
    assert path.read_text() == "1\n2\n"


def test_a_death_between_renaming_and_saying_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("8\n")
    sink = JSONLinesSink(path)
    begun(sink)
    sink.write(batch([1]), None)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", _dying(Path.replace, "part"))
        with pytest.raises(KeyboardInterrupt):
            sink.complete(job(), None)
    assert path.read_text() == "1\n"
    again = JSONLinesSink(path)
    assert begun(again, token=2, cursor=[1], processed_records=1, processed_batches=1) is not None
    again.write(batch([2], number=1, token=2), None)
    again.complete(job(token=2), None)
    assert path.read_text() == "1\n2\n"


def _dying(replace: Callable[..., Any], name: str) -> Callable[..., Any]:
    def dying(self: Path, target: Path) -> Any:
        result = replace(self, target)
        if self.name == name:
            raise KeyboardInterrupt
        return result

    return dying


def test_what_somebody_removed_is_not_taken_for_an_empty_target(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    sink = JSONLinesSink(path, mode="append")
    begun(sink)
    sink.write(batch([1]), None)
    progress: Any = {"token": 2, "cursor": [1], "processed_records": 1, "processed_batches": 1}
    os.truncate(path, 1)
    with pytest.raises(StoreError, match=r"has 1 bytes, but 2 were written: .* reset_job"):
        begun(sink, **progress)
    folder = tmp_path / ".a.jsonl.sync"
    (checkpoint,) = folder.glob("*.json")
    checkpoint.write_text('{"job_id": 7}')
    with pytest.raises(StateCorruptError):
        begun(sink, **progress)
    checkpoint.unlink()
    with pytest.raises(StoreError, match=r"no checkpoint of that run beside .* reset_job"):
        begun(sink, **progress)
    with pytest.raises(StoreError, match="was not begun"):
        sink.complete(job(token=2), None)


def test_jobs_take_turns(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    first, second = JSONLinesSink(path, mode="append"), JSONLinesSink(path, mode="append")
    begun(first, token=9)
    other = job(token=3).__class__(id="other", run=1, run_id="run 7", lease=job(token=3).lease)
    with pytest.raises(ConfigurationError, match=r"the job 'job' is not done with .* give this job another path"):
        second.checkpoint(other)
    first.write(batch([1], token=9), None)
    first.complete(job(token=9), None)
    assert second.checkpoint(other) is None
    second.begin(other, None)
    with pytest.raises(LeaseLostError):
        first.write(batch([2], number=1, token=9), None)
    second.write(batch([3], job_id="other", token=3), None)
    second.complete(other, None)
    assert path.read_text() == "1\n3\n"


FREEZE = """
import os, signal, sys
from resumable_sync.sinks import _appendix
from resumable_sync.sinks.files import JSONLinesSink
from sinks.driving import batch, job

sink = JSONLinesSink(sys.argv[1], mode="append")
sink.checkpoint(job())
sink.begin(job(), None)
sink.write(batch([1]), None)
holder, name = {"open": (_appendix, "_open"), "fsync": (os, "fsync")}[sys.argv[2]]
work = getattr(holder, name)
def frozen(*arguments):
    setattr(holder, name, work)
    print("frozen", flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)
    return work(*arguments)
setattr(holder, name, frozen)
try:
    sink.write(batch([2], number=1), None)
    sink.write(batch([3], number=2), None)
except Exception as error:
    print(type(error).__name__, flush=True)
"""


@pytest.mark.kills
@pytest.mark.parametrize("place", ["open", "fsync"])
def test_a_process_that_froze_in_the_middle_of_a_batch_is_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.setattr(_lock, "LOCK_TIMEOUT", 0.2)
    path = tmp_path / "a.jsonl"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", FREEZE, str(path), place]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "frozen\n"
            os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
            sink = JSONLinesSink(path, mode="append")
            assert begun(sink, token=2, cursor=[1], processed_records=1, processed_batches=1) is not None
            sink.write(batch([5], number=1, token=2), None)
        finally:
            process.send_signal(signal.SIGCONT)
        assert process.stdout.read() == "LeaseLostError\n"
    sink.write(batch([6], number=2, token=2), None)
    sink.complete(job(token=2), None)
    assert path.read_text() == "1\n5\n6\n"


class Colour(StrEnum):
    RED = "red"


VALUES = {
    "none": None,
    "text": 'é\U0001f600,"\n',
    "flag": True,
    "number": 2**70,
    "float": 0.1,
    "decimal": Decimal("1.50"),
    "time": datetime(2026, 1, 31, 12, tzinfo=UTC),
    "date": date(2026, 1, 31),
    "span": timedelta(days=-1, microseconds=1),
    "uuid": UUID("12345678-1234-5678-1234-567812345678"),
    "bytes": b"\xff\x00",
    "list": [1, {"a": Decimal(2)}],
    "enum": Colour.RED,
}
PLAIN = {
    **VALUES,
    "decimal": "1.50",
    "time": "2026-01-31T12:00:00+00:00",
    "date": "2026-01-31",
    "span": "-86399.999999",
    "uuid": "12345678-1234-5678-1234-567812345678",
    "bytes": "/wA=",
    "list": [1, {"a": "2"}],
    "enum": "red",
}


def test_values(tmp_path: Path) -> None:
    run(JSONLinesSink(tmp_path / "a.jsonl"), [VALUES], [{"half": "\ud83d"}])
    first, second = (tmp_path / "a.jsonl").read_bytes().splitlines()
    assert json.loads(first) == PLAIN
    assert "é\U0001f600" in first.decode()
    assert second == b'{"half":"\\ud83d"}'
    run(CSVSink(tmp_path / "a.csv"), [tuple(VALUES.values())], columns=list(VALUES))
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    texts = {"none": "", "flag": "true", "number": str(2**70), "float": "0.1", "list": '[1,{"a":"2"}]'}
    assert row == {**PLAIN, **texts}


def test_no_reader_finds_the_end_of_a_line_of_json_elsewhere(tmp_path: Path) -> None:
    texts = [f"x{chr(code)}y" for code in (*range(33), 0x85, 0x2028, 0x2029)]
    run(JSONLinesSink(tmp_path / "a.jsonl"), [{"a": text} for text in texts])
    lines = (tmp_path / "a.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line)["a"] for line in lines] == texts


@pytest.mark.parametrize("value", [float("nan"), object(), {1, "secret"}, {("secret",): 1}, "secret\ud83d"], ids=type)
def test_values_that_files_have_no_form_for(tmp_path: Path, value: Any) -> None:
    sink: Any = CSVSink(tmp_path / "a.csv") if isinstance(value, str) else JSONLinesSink(tmp_path / "a.jsonl")
    begun(sink)
    with pytest.raises(ValueError, match="convert it before") as caught:
        sink.write(batch([{"a": value}]), None)
    assert "secret" not in str(caught.value)
    assert "nan" not in str(caught.value)


class TestCSV:
    def test_the_header_is_that_of_the_first_batch(self, tmp_path: Path) -> None:
        path = tmp_path / "a.csv"
        sink = CSVSink(path, mode="append")
        begun(sink)
        sink.write(batch([{"a": 1}, {"b": 2, "a": 3}]), None)
        sink.write(batch([(4, 5)], ["b", "a"], number=1), None)
        with pytest.raises(ValueError, match="the column 'c', which the header lacks; name all columns in columns="):
            sink.write(batch([{"c": 1}], number=2), None)
        with pytest.raises(ValueError, match="1 values for 2 columns"):
            sink.write(batch([(4,)], ["a", "b"], number=2), None)
        sink.complete(job(), None)
        assert path.read_text() == "a,b\n1,\n3,2\n5,4\n"
        run(CSVSink(path, mode="append"), [{"b": 6}], run_id="run 2", token=2)
        assert path.read_text() == "a,b\n1,\n3,2\n5,4\n,6\n"

    def test_columns_that_are_given(self, tmp_path: Path) -> None:
        path = tmp_path / "a.csv"
        run(CSVSink(path, columns=["b", "a"], delimiter=";"), [{"a": "x;y"}])
        assert path.read_text() == 'b;a\n;"x;y"\n'
        with pytest.raises(ConfigurationError, match=r"the header of .* is not columns="):
            begun(CSVSink(path, mode="append", columns=["a"], delimiter=";"), token=2, run_id="run 2")

    def test_what_readers_take_for_something_else_is_quoted(self, tmp_path: Path) -> None:
        letters = [chr(code) for code in (*range(33), 34, 44, 0x85, 0x2028)]
        texts = [text for one in letters for text in (one, f"x{one}", f"{one}y", f"x{one}y", 2 * one)]
        run(CSVSink(tmp_path / "a.csv"), [{"a": None}, {"a": ""}, *({"a": text} for text in texts)])
        (page,) = CSVConnector(tmp_path / "a.csv").read(None, 1_000)
        with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as file:
            assert [row[0] for row in list(csv.reader(file))[1:]] == ["", "", *texts]
        assert [record[0] for record in page.records] == ["", "", *texts]

    @pytest.mark.parametrize(("columns", "text"), [(["id", "name"], "id,name\n"), ([], "")])
    def test_a_run_without_records(self, tmp_path: Path, columns: list[str], text: str) -> None:
        sink = CSVSink(tmp_path / "a.csv.gz")
        sink.prepare([Column(name=name, type=Integer() if name == "id" else Text()) for name in columns])
        run(sink)
        assert gzip.decompress((tmp_path / "a.csv.gz").read_bytes() or gzip.compress(b"")).decode() == text


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: JSONLinesSink("s3://user:secret@bucket/a"), "s3://... is none of a local file"),
        (lambda: JSONLinesSink(""), "local file"),
        (lambda: JSONLinesSink("a", mode="upsert"), "none of 'replace' and 'append'"),  # type: ignore[arg-type]
        (lambda: CSVSink("a", delimiter="ab"), "one character"),
        (lambda: CSVSink("a", columns=["a", "a"]), "name each once"),
    ],
)
def test_arguments_that_cannot_work(make: Callable[[], object], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told) as caught:
        make()
    assert "secret" not in str(caught.value)


def test_a_missing_folder_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"the folder .* does not exist; make it"):
        begun(JSONLinesSink(tmp_path / "nowhere" / "a.jsonl"))
    with pytest.raises(IsADirectoryError, match="is a folder; give the path of a file in it"):
        begun(CSVSink(tmp_path))


def test_from_file_to_file_through_stops_resets_and_new_runs(tmp_path: Path) -> None:
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text("id,name\n" + "".join(f'{number},"a\n{number}"\n' for number in range(20)))
    store = MemoryJobStore()

    def sync(**options: Any) -> Any:
        return run_full_sync("files", CSVConnector(source), CSVSink(target), store=store, batch_size=3, **options)

    assert plan_full_sync("files", CSVConnector(source), CSVSink(target), store=store).action == "new"
    assert sorted(tmp_path.iterdir()) == [source]
    for _ in range(3):
        assert sync(max_records=4).guarantee is Guarantee.EXACTLY_ONCE
    assert not target.exists()
    reset_job("files", store=store)
    assert sync(max_records=4).records == 6
    while sync(max_records=4).status != "completed":
        pass
    assert target.read_text() == source.read_text()
    source.write_text("id,name\n1,b\n")
    assert sync().action == "new"
    assert target.read_text() == source.read_text()
