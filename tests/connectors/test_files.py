"""Files as they come: odd ends, encodings, and files that change while a job is between two attempts, or at work."""

import csv
import gzip
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from resumable_sync import (
    ConfigurationError,
    CursorError,
    MissingExtraError,
    Page,
    SourceChangedError,
    plan_full_sync,
    run_full_sync,
)
from resumable_sync.connectors import _lines
from resumable_sync.connectors._members import BUFFER
from resumable_sync.connectors.files import CSVConnector, JSONLinesConnector
from resumable_sync.sinks.sql import SQLSink
from resumable_sync.stores.memory import MemoryJobStore


def pages_of(connector: Any, cursor: Any = None, batch_size: int = 1) -> list[Page[Any]]:
    return list(connector.read(cursor, batch_size))


def records_of(connector: Any, cursor: Any = None, batch_size: int = 1) -> list[Any]:
    return [record for page in pages_of(connector, cursor, batch_size) for record in page.records]


def check_every_prefix(connector: Any, expected: Sequence[Any]) -> None:
    pages = pages_of(connector)
    assert [record for page in pages for record in page.records] == list(expected)
    for place, page in enumerate(pages):
        assert records_of(connector, page.cursor, 2) == list(expected)[place + 1 :]


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


@pytest.mark.parametrize("data", [b"", b"\n\n", b"id,name\n", b"id,name", b"\xef\xbb\xbfid,name\r\n\r\n"])
def test_a_file_without_records(tmp_path: Path, data: bytes) -> None:
    connector = CSVConnector(write(tmp_path / "a.csv", data))
    assert pages_of(connector) == []
    assert [column.name for column in connector.columns()] == (["id", "name"] if b"id" in data else [])
    assert connector.cursor_at(1) is None
    assert pages_of(JSONLinesConnector(write(tmp_path / "a.jsonl", b""))) == []


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("latin-1", "id,name\r\n1,é\r\n2,\xff\xfe"),
        ("cp500", "id,name\n1,é\n2,%\n"),
        ("utf-16-be", "id,name\n1,\u0a0a\u0a00\u000b\n2,\u0d0a\n"),
        ("utf-16", "id,name\r\n1,\U0001f600\r\n2,\u0a00"),
        ("utf-32-le", "id,name\r\n1,\U0001f600\u0a0a\r\n2,b\n"),
        ("shift_jis", "id,name\n1,\u8868\u30bd\n2,b\n"),
        ("utf-8-sig", "id,name\n1,\ufeffa\n2,b\n"),
    ],
)
@pytest.mark.parametrize("chunk", [_lines.CHUNK, 5])
def test_encodings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str, text: str, chunk: int) -> None:
    monkeypatch.setattr(_lines, "CHUNK", chunk)
    expected = [
        tuple(row) for row in csv.reader(text.splitlines() if "\u000b" not in text else text.split("\n")) if row
    ]
    path = write(tmp_path / "a.csv", text.encode(encoding))
    check_every_prefix(CSVConnector(path, encoding=encoding), expected[1:])


def test_line_breaks_in_quotes_across_the_borders_of_buffers(tmp_path: Path) -> None:
    values = [(("a" * 400 + "\n") * (BUFFER // 2_000), str(place)) for place in range(12)]
    rows = [f'"{value}",{number}\n' for value, number in values]
    path = write(tmp_path / "a.csv", "".join(["text,number\n", *rows]).encode())
    assert path.stat().st_size > 2 * BUFFER
    check_every_prefix(CSVConnector(path), values)


@pytest.mark.parametrize(("encoding", "newline"), [("utf-8", "\n"), ("utf-16", "\n")])
def test_a_line_that_is_too_long_is_not_taken_into_memory(tmp_path: Path, encoding: str, newline: str) -> None:
    path = write(tmp_path / "a.jsonl", (newline.join(["[1]", "[" + "1," * 500_000, "[2]"])).encode(encoding))
    connector = JSONLinesConnector(path, encoding=encoding, max_line_bytes=100_000)
    pages = connector.read(None, 1)
    assert next(pages).records == [[1]]
    with pytest.raises(
        ValueError, match=r"in the records after 1, .* a line of more than 100000 bytes; raise max_line"
    ):
        next(pages)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"id,name\n1,a\n2,secret,b\n", "a record of 3 values for 2 columns"),
        (b"id,name\n1,a\n2\n", "a record of 1 values for 2 columns"),
        (b'id,name\n1,a\n2,"secret', "not CSV: unexpected end of data"),
        (b'id,name\n1,a\n2,"secret"b\n', "not CSV"),
        (b"id,name\n1,a\n2,\xffsecret\n", "not utf-8"),
        (b"id,name\n1,a\n2," + b"secret" * 30_000, "csv.field_size_limit"),
    ],
)
def test_what_cannot_be_read_is_said_with_its_place_and_without_the_record(
    tmp_path: Path, data: bytes, told: str
) -> None:
    pages = CSVConnector(write(tmp_path / "a.csv", data)).read(None, 1)
    assert next(pages).records == [("1", "a")]
    with pytest.raises(ValueError, match=rf"'a.csv', in the records after 1, before byte \d+, .*{told}") as caught:
        next(pages)
    check_hidden(caught.value, "secret")


def check_hidden(error: BaseException, secret: str) -> None:
    told: BaseException | None = error
    while told is not None:
        assert secret not in str(told) + repr(vars(told)) + repr(told)
        assert not hasattr(told, "doc")
        assert not hasattr(told, "object")
        told = told.__context__ or told.__cause__


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b'{"a": secret}\n', "not JSON: Expecting value at character 6; mend it"),
        (b'{"a": "secret', "it is the last one and has no line break"),
        (b"[" * 100_000 + b"\n", "nested too deeply"),
    ],
)
def test_lines_that_are_no_json(tmp_path: Path, line: bytes, told: str) -> None:
    pages = JSONLinesConnector(write(tmp_path / "a.jsonl", b"1\n" + line)).read(None, 1)
    next(pages)
    with pytest.raises(ValueError, match=told) as caught:
        next(pages)
    check_hidden(caught.value, "secret")


@pytest.mark.parametrize("header", [b"a,b,a\n", b"a,a\n1,2\n"])
def test_a_header_names_each_column_once(tmp_path: Path, header: bytes) -> None:
    with pytest.raises(ConfigurationError, match="more than one column 'a'; mend it, or name the columns"):
        pages_of(CSVConnector(write(tmp_path / "a.csv", header)))


def test_files_without_a_header(tmp_path: Path) -> None:
    connector = CSVConnector(
        write(tmp_path / "a.csv", b"1;'x;y'\n2;b"), delimiter=";", quotechar="'", columns=["i", "n"]
    )
    check_every_prefix(connector, [("1", "x;y"), ("2", "b")])
    assert pages_of(connector)[0].columns == ("i", "n")
    assert [column.name for column in connector.columns()] == ["i", "n"]


def test_texts_become_what_the_columns_of_a_table_are(tmp_path: Path, database_url: str) -> None:
    path = write(tmp_path / "a.csv", b"id,total,day\n1,1.50,2026-01-31\n2,,\n")
    engine = create_engine(database_url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE target (id INTEGER, total NUMERIC(9, 2), day DATE)"))
    sink = SQLSink("target", mode="append", url=database_url)
    run_full_sync("files", CSVConnector(path, null=""), sink, store=MemoryJobStore())
    sink.close()
    with engine.begin() as connection:
        rows = connection.execute(text("SELECT id, total, day FROM target ORDER BY id")).all()
    engine.dispose()
    assert [(row[0], row[1] and float(row[1]), row[2] and str(row[2])) for row in rows] == [
        (1, 1.5, "2026-01-31"),
        (2, None, None),
    ]


def test_files_of_other_columns_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "1.csv", b"a,b\n1,2\n")
    write(tmp_path / "2.csv", b"a,c\n1,2\n")
    with pytest.raises(
        ValueError, match=r"'2.csv' has other columns .* it lacks \['b'\]; it has besides \['c'\]; sync"
    ):
        pages_of(CSVConnector(tmp_path / "*.csv"))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda path: append(path, b"\n4,d\n5,e\n"), None),
        (lambda path: append(path, b"c\n4,d\n"), "line went on since"),
        (lambda path: os.utime(path, (1, 1)), None),
        (lambda path: replaced(path, path.read_bytes()), None),
        (lambda path: replaced(path, path.read_bytes().replace(b"a", b"x")), "replaced, or changed before"),
        (
            lambda path: replaced(path, path.read_bytes().replace(b"a", b"x") + b"\n4,d\n"),
            "replaced, or changed before",
        ),
        (lambda path: os.truncate(path, 5), "truncated or replaced: it had 19 bytes and has 5"),
        (lambda path: path.rename(path.with_name("b")), "which is gone|No such file"),
    ],
)
def test_a_file_that_changed_since_its_last_record(
    tmp_path: Path, change: Callable[[Path], object], told: str | None
) -> None:
    path = write(tmp_path / "a.csv", b"id,name\n1,a\n2,b\n3,c")
    connector = CSVConnector(tmp_path / "*.csv")
    *_, last = pages_of(connector)
    write(tmp_path / "z.csv", b"id,name\n")
    change(path)
    moved = connector.moved(last.cursor)
    if told is None:
        assert moved is None
        rest = path.read_text().splitlines()[4:]
        assert records_of(connector, last.cursor) == [tuple(line.split(",")) for line in rest]
        return
    with pytest.raises(CursorError, match=rf"{told}.*; put the files back, or start over"):
        connector.read(last.cursor, 1)
    assert moved is not None


def replaced(path: Path, data: bytes) -> None:
    write(path.with_name("new"), data).rename(path)


def test_what_changes_behind_the_place_is_read_as_it_is_then(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", b"id,name\n1,a\n2,b\n3,c\n")
    connector = CSVConnector(path)
    first, *_ = pages_of(connector)
    write(path, b"id,name\n1,a\n2,x\n3,c\n")
    assert records_of(connector, first.cursor) == [("2", "x"), ("3", "c")]


def test_what_to_do_when_a_file_was_replaced(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", b"id,name\n1,a\n2,b\n3,c\n")
    store = MemoryJobStore()
    got: list[Any] = []

    def sync(**options: Any) -> Any:
        arguments = {"store": store, "batch_size": 1, **options}
        connector = CSVConnector(path, if_moved=arguments.pop("if_moved", "raise"))
        return run_full_sync("files", connector, lambda batch: got.extend(batch.records), **arguments)

    sync(max_records=2)
    assert sync(max_records=1).status == "interrupted"
    write(path, b"id,name\n7,a\n8,b\n9,c\n0,d\n")
    with pytest.raises(
        SourceChangedError, match=r"anchor \(the last record delivered is in the file 'a.csv', which was"
    ):
        sync()
    assert plan_full_sync("files", CSVConnector(path), print, store=store).action == "refuse"
    assert sync(if_moved="warn").records == 1
    assert got == [("1", "a"), ("2", "b"), ("3", "c"), ("0", "d")]


def test_a_replaced_file_begins_a_new_run_if_that_is_wanted(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", b"1\n2\n")
    store = MemoryJobStore()
    got: list[Any] = []

    def sync(data: bytes, most: int | None) -> int:
        connector = JSONLinesConnector(write(path, data), if_moved="rerun")
        take: Any = lambda batch: got.extend(batch.records)  # noqa: E731
        return run_full_sync("files", connector, take, store=store, batch_size=1, max_records=most).job.run

    assert sync(b"1\n2\n", 1) == 1
    assert sync(b"3\n4\n5\n", None) == 2
    assert got == [1, 3, 4, 5]


def test_a_file_that_grows_while_it_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", b"1\n2\n3")
    connector = JSONLinesConnector(path)
    pages = connector.read(None, 1)
    read = [next(pages)]
    append(path, b"\n4\n5")
    read += list(pages)
    assert [page.records for page in read] == [[1], [2], [3], [4], [5]]
    append(path, b"\n6\n")
    assert [records_of(connector, page.cursor, 9) for page in read] == [list(range(n, 7)) for n in (2, 3, 4, 5, 6)]


def test_a_file_that_is_cut_while_it_is_read(tmp_path: Path) -> None:
    lines = b"".join(b'"%06d"\n' % number for number in range(100_000))
    path = write(tmp_path / "a.jsonl", lines)
    pages = JSONLinesConnector(path).read(None, 1_000)
    next(pages)
    os.truncate(path, len(lines) // 2)
    with pytest.raises(Exception, match=r"the file 'a.jsonl' of 900000 bytes ended after 450000"):
        list(pages)


def test_new_files_at_the_end_are_welcome_and_others_noticed(tmp_path: Path) -> None:
    for name in ("b", "d"):
        write(tmp_path / f"{name}.jsonl", b"1\n2\n")
    connector = JSONLinesConnector(tmp_path / "*.jsonl")
    pages = pages_of(connector)
    write(tmp_path / "e.jsonl", b"3\n")
    assert [records_of(connector, page.cursor) for page in pages[1:]] == [[1, 2, 3], [2, 3], [3]]
    write(tmp_path / "c.jsonl", b"7\n")
    assert records_of(connector, pages[1].cursor) == [7, 1, 2, 3]
    for cursor in (pages[2].cursor, pages[3].cursor):
        assert "some came or went (1 then, 2 now)" in str(connector.moved(cursor))
        with pytest.raises(CursorError, match="some came or went"):
            connector.read(cursor, 1)
    for name in ("b", "c"):
        (tmp_path / f"{name}.jsonl").unlink()
    assert "some came or went (1 then, 0 now)" in str(connector.moved(pages[3].cursor))


def test_a_file_that_vanishes_before_it_is_read(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / f"{name}.jsonl", b"1\n")
    pages = JSONLinesConnector(tmp_path / "*.jsonl").read(None, 1)
    next(pages)
    (tmp_path / "b.jsonl").unlink()
    with pytest.raises(FileNotFoundError, match=r"b.jsonl.*it was there when the files were listed: call again"):
        next(pages)


def test_patterns(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no file matches .*correct the pattern"):
        pages_of(JSONLinesConnector(tmp_path / "*.jsonl"))
    (tmp_path / "x" / "y").mkdir(parents=True)
    write(tmp_path / "x" / "y" / "1.jsonl", b"1\n")
    write(tmp_path / "x" / "2.jsonl", b"2\n")
    write(tmp_path / "x" / "[3].jsonl", b"3\n")
    assert records_of(JSONLinesConnector(tmp_path / "**" / "*.jsonl")) == [2, 3, 1]
    assert records_of(JSONLinesConnector(tmp_path / "x" / "[3].jsonl")) == [3]


@contextmanager
def nobody() -> Iterator[None]:
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65_534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_permission_denied(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", b"1\n")
    path.chmod(0)
    with nobody(), pytest.raises(PermissionError):
        pages_of(JSONLinesConnector(path))


class TestCompressed:
    lines = tuple(b'{"n": %d}\n' % number for number in range(8))
    records = tuple({"n": number} for number in range(8))

    def test_a_resume_reads_only_from_the_member_of_the_place(self, tmp_path: Path) -> None:
        members = [gzip.compress(b"".join(self.lines[place : place + 2])) for place in range(0, 8, 2)]
        path = write(tmp_path / "a.jsonl.gz", b"".join(members))
        connector = JSONLinesConnector(path)
        pages = pages_of(connector)
        for place, page in enumerate(pages):
            assert page.cursor["place"][4] == sum(map(len, members[: place // 2]))
            assert records_of(connector, page.cursor) == list(self.records[place + 1 :])
        write(path, b"".join([members[0], b"\0" * len(members[1]), *members[2:]]))
        with pytest.raises(CursorError, match="changed before the place"):
            connector.read(pages[4].cursor, 1)
        daring = JSONLinesConnector(path, if_moved="warn")
        assert records_of(daring, pages[4].cursor) == list(self.records[5:])

    def test_padding_and_members_that_came_since(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.jsonl.gz", gzip.compress(self.lines[0]) + b"\0" * 600_000)
        connector = JSONLinesConnector(path)
        (page,) = pages_of(connector)
        append(path, gzip.compress(b"".join(self.lines[1:3])))
        assert records_of(connector, page.cursor) == list(self.records[1:3])

    def test_an_unfinished_or_damaged_member(self, tmp_path: Path) -> None:
        whole, half = gzip.compress(self.lines[0]), gzip.compress(b"".join(self.lines))[:-9]
        for data, told in ((whole + half, "ends in the middle of its compressed data"), (whole + b"secret", "damaged")):
            pages = JSONLinesConnector(write(tmp_path / "a.jsonl.gz", data)).read(None, 1)
            next(pages)
            with pytest.raises(ValueError, match=told):
                list(pages)
        with pytest.raises(ValueError, match=r"'a.jsonl.gz' is damaged: .*; get it again"):
            pages_of(JSONLinesConnector(write(tmp_path / "a.jsonl.gz", b"plain\n")))

    def test_a_bomb_is_read_in_constant_memory(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.jsonl.gz", gzip.compress(b"1\n" + b" " * 50_000_000))
        pages = JSONLinesConnector(path, max_line_bytes=100_000).read(None, 1)
        next(pages)
        with pytest.raises(ValueError, match="more than 100000 bytes"):
            next(pages)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: JSONLinesConnector(7), "names no file"),  # type: ignore[arg-type]
        (lambda: JSONLinesConnector(""), "names no file"),
        (lambda: JSONLinesConnector("a", encoding="utf-9"), "no encoding of text"),
        (lambda: JSONLinesConnector("a", encoding="base64"), "no encoding of text"),
        (lambda: JSONLinesConnector("a", compression="zip"), "none of 'infer'"),  # type: ignore[arg-type]
        (lambda: JSONLinesConnector("a", storage_options={"key": "secret"}), "a local path; leave them out"),
        (lambda: JSONLinesConnector("a", if_moved="go"), "none of 'warn'"),  # type: ignore[arg-type]
        (lambda: JSONLinesConnector("a", max_line_bytes=0), "at least 1"),
        (lambda: CSVConnector("a", delimiter="ab"), "one character"),
        (lambda: CSVConnector("a", columns=[]), "no columns"),
        (lambda: CSVConnector("a", columns=["a", "a"]), "more than one column 'a'"),
    ],
)
def test_arguments_that_cannot_work(make: Callable[[], object], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told) as caught:
        make()
    assert "secret" not in str(caught.value)


def test_the_fingerprint_is_that_of_path_and_format(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    same: list[Any] = [CSVConnector(a), CSVConnector(str(a), encoding="UTF8"), CSVConnector(a, if_moved="warn")]
    assert all(one.fingerprint == same[0].fingerprint for one in same)
    other: list[Any] = [CSVConnector(b), CSVConnector(a, delimiter=";"), CSVConnector(a, encoding="utf-16")]
    other += [JSONLinesConnector(a), CSVConnector(a, columns=["a"]), CSVConnector(a, compression="gzip")]
    assert all(one.fingerprint != same[0].fingerprint for one in other)


def test_what_urls_need_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'resumable_sync\[files\]'"):
        pages_of(JSONLinesConnector("memory://a.jsonl"))
    monkeypatch.setitem(sys.modules, "backports", None)
    monkeypatch.setitem(sys.modules, "compression", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'resumable_sync\[files\]'"):
        pages_of(JSONLinesConnector(write(tmp_path / "a.jsonl.zst", b"")))
