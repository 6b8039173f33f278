"""`CSVConnector` and `JSONLinesConnector`: files, by path, glob pattern or URL."""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from os import PathLike
from typing import Any, Literal

from typing_extensions import override

from resumable_sync._errors import ConfigurationError
from resumable_sync._protocols import Column, DescribingConnector, IfMoved
from resumable_sync.connectors._file_source import Records
from resumable_sync.connectors._lines import encoding_of
from resumable_sync.connectors._members import compression_of
from resumable_sync.connectors._text_records import MAX_LINE_BYTES, TextFile, TextRecords, TextSource

__all__ = ["CSVConnector", "JSONLinesConnector"]

Compressed = Literal["infer", "gzip", "zstd"] | None


class JSONLinesConnector(TextSource):
    r"""Reads files with a JSON value in each line, and goes on at the very byte where it stopped.

        JSONLinesConnector("events-2026-*.jsonl.gz")
        JSONLinesConnector("s3://bucket/events/*.jsonl", storage_options={"anon": True})

    Records are what `json.loads` makes of the lines, mostly dicts; empty lines are passed over. Whatever is no JSON
    raises `ValueError` with its place, and without the line.

    **Files.** A path with `*`, `**`, `?` or `[...]` stands for all files that match, one after the other in the order
    of the characters of their names. They are listed at the start of an attempt: a file that came since is read if it
    sorts behind the one in hand, so let names grow with time. One that sorts before it would be left out, and is
    noticed at the next resume, as a vanished one is; not what is added to a file after it was read to its end. A page
    holds records of one file. No file at all is a `FileNotFoundError`, in place of a sync of nothing.

    **Place.** The cursor holds the file's name, the offset behind the last record, its number, a CRC-32 of all bytes
    before it, and whether the last line lacked its break; then size and version of the file, and how many files come
    before it under which names:

        {"file": "events-2026-01.jsonl", "place": [1048576, 17000, 3735928559, 0],
         "size": 2147483648, "version": "5f0c31e9a1b2c3d4", "before": [0, "2c5ea4c0e9c1a111"]}

    A resume jumps to that offset. In a compressed file it jumps to the gzip member or zstd frame that holds it, and
    decompresses that one up to the place: files of one single member, as `gzip` writes them, are decompressed again
    from the beginning; `bgzip`, `pzstd` and our own sinks write many.

    **Files that change.** At a resume the file is compared with what was read. If size and version (local: inode,
    modification and change time; else ETag, checksum or modification time) are the same, so is the file. If they
    differ, everything before the place is read again and its checksum compared. A file that was appended to, touched or
    copied goes on; one that is gone, shorter than before, or other before the place has moved: see `if_moved`. One that
    grows while it is read is read up to the end that is met; of a last line without a break it is assumed that it was
    whole, and noticed at a resume if it went on. A checksum of 32 bits tells accidents, not forgeries.

    **Parts.** `split` gives parts that begin where a file does; a single file is one part. To each part its files are
    what all files are to the whole: where one came or was replaced in a part, that part alone notices.

    Memory is that of a page and a few buffers, whatever the files hold.

    Args:
        path: A path, a glob pattern, or any URL that fsspec has a filesystem for (extra `files`, and what the
            filesystem needs). What a URL holds of user, password and query is shown nowhere.
        encoding: Of the text. A byte order mark goes before any encoding of Unicode.
        compression: `"gzip"`, `"zstd"` (extra `files`), None, or by the ending of each name (`.gz`, `.zst`).
        storage_options: Arguments of the filesystem of a URL, such as keys; they are shown nowhere either.
        if_moved: What to do at a resume when the files are not as they were: `"raise"` (default) refuses with
            `SourceChangedError`, `"rerun"` starts a new run, `"warn"` goes on at the same offset all the same.
        max_line_bytes: Longest line that is taken into memory, if it is longer than 64 KiB.

    Raises:
        ConfigurationError: If the arguments do not fit together. Whether the files exist is seen when reading.

    Attributes:
        fingerprint: Path, format, encoding and compression.

    Examples:
        >>> JSONLinesConnector("https://user:secret@example.org/events.jsonl?sig=abc")
        JSONLinesConnector('https://example.org/events.jsonl')
    """

    def __init__(
        self,
        path: str | PathLike[str],
        *,
        encoding: str = "utf-8",
        compression: Compressed = "infer",
        storage_options: Mapping[str, Any] | None = None,
        if_moved: IfMoved = "raise",
        max_line_bytes: int = MAX_LINE_BYTES,
    ) -> None:
        parts = _checked(encoding, compression, max_line_bytes)
        super().__init__(path, storage_options, if_moved, {"paging": "json lines by byte", "format": json.dumps(parts)})
        self._encoding, self._compression, self._longest = encoding, compression, max_line_bytes

    @override
    def _open(self, name: str, place: Sequence[int] | None) -> Records:
        return _JSONRecords(self._text(name, place))


class _JSONRecords(TextRecords):
    """A JSON value for each line."""

    def __init__(self, file: TextFile) -> None:
        super().__init__(file)
        self._lines: Iterator[str] = iter(file.lines)

    @override
    def parse(self, most: int) -> list[Any]:
        records: list[Any] = []
        loads = json.loads
        try:
            for line in self._lines:
                if line.isspace():
                    continue
                records.append(loads(line))
                if len(records) == most:
                    break
        except json.JSONDecodeError as error:
            problem = f"has a line that is not JSON: {error.msg} at character {error.pos}"
        except RecursionError:
            problem = "has a line that is nested too deeply"
        else:
            return records
        if self.file.lines.unterminated:
            problem += "; it is the last one and has no line break: its writer may not have finished it"
        raise ValueError(f"{problem}; mend it, then call again")


class CSVConnector(TextSource, DescribingConnector):
    r"""Reads CSV files, and goes on at the very byte where it stopped, also behind line breaks in quotes.

        CSVConnector("orders.csv")
        CSVConnector("export-*.csv.zst", delimiter=";", encoding="utf-16")
        CSVConnector("https://example.org/orders.csv", columns=["id", "total"])

    Records are tuples of texts, parsed by the `csv` module in its strict form: a quote that is never closed, or
    followed by anything but a delimiter, is an error, and so is a record of more or fewer values than there are
    columns. Empty lines are passed over. Line breaks are `\n` or `\r\n`. All errors are `ValueError` with the place,
    and without the record. A value of more than 131,072 characters needs `csv.field_size_limit`, which is one for the
    whole process.

    `columns()` tells texts that may be forms of other types: `SQLSink` makes columns of text of them, and in a table
    that exists the database reads them as its columns' types, where it can. An empty value is an empty text, which is
    no number or date; with `null=""` it is None.

    All files of a pattern must have the same columns; where their order differs, it becomes that of the first file.

    The rest is as with `JSONLinesConnector`: which files there are, what the cursor holds, what happens to files that
    change. The cursor differs in nothing.

    Args:
        path: A path, a glob pattern, or any URL that fsspec has a filesystem for.
        delimiter: Between values, one character.
        quotechar: Around values that hold delimiters, quotes (doubled) or line breaks, one character.
        columns: Names of the columns, for files without a header; None: the first record of each file names them.
        null: The text that stands for None, such as `""` or `r"\N"`, in quotes or not; None (default): there is none.
        encoding: As with `JSONLinesConnector`.
        compression: As with `JSONLinesConnector`.
        storage_options: As with `JSONLinesConnector`.
        if_moved: As with `JSONLinesConnector`.
        max_line_bytes: As with `JSONLinesConnector`.

    Raises:
        ConfigurationError: If the arguments do not fit together. Whether the files exist is seen when reading.

    Attributes:
        fingerprint: Path, format, delimiter, quotes, names of columns, encoding and compression.

    Examples:
        >>> CSVConnector("s3://key:secret@bucket/orders.csv")
        CSVConnector('s3://bucket/orders.csv')
    """

    def __init__(
        self,
        path: str | PathLike[str],
        *,
        delimiter: str = ",",
        quotechar: str = '"',
        columns: Sequence[str] | None = None,
        null: str | None = None,
        encoding: str = "utf-8",
        compression: Compressed = "infer",
        storage_options: Mapping[str, Any] | None = None,
        if_moved: IfMoved = "raise",
        max_line_bytes: int = MAX_LINE_BYTES,
    ) -> None:
        self._dialect: dict[str, Any] = {"delimiter": delimiter, "quotechar": quotechar}
        _check_dialect(self._dialect)
        self._names = None if columns is None else _checked_names(tuple(columns), "columns= names")
        parts = [*_checked(encoding, compression, max_line_bytes), delimiter, quotechar, self._names]
        super().__init__(path, storage_options, if_moved, {"paging": "csv by byte", "format": json.dumps(parts)})
        self._encoding, self._compression, self._longest = encoding, compression, max_line_bytes
        self._null = null

    @override
    def columns(self) -> Sequence[Column]:
        """Give the columns, which are all texts; none if all files are empty."""
        from sqlalchemy import Text  # noqa: PLC0415 - reading does not need it

        names = self._names or self._first_columns(self._storage.names()) or ()
        nullable = self._null is not None
        return [Column(name=name, type=Text(), nullable=nullable, exact=False) for name in names]

    @override
    def _open(self, name: str, place: Sequence[int] | None) -> Records:
        columns = self._names
        if columns is None and place is not None:
            with closing(self._records(name, None)) as beginning:
                columns = _header(beginning)
        records = self._records(name, place)
        try:
            records.columns = _header(records) if columns is None and place is None else columns
        except BaseException:
            records.close()
            raise
        return records

    def _records(self, name: str, place: Sequence[int] | None) -> "_CSVRecords":
        return _CSVRecords(self._text(name, place), self._dialect, self._null)


class _CSVRecords(TextRecords):
    """A tuple of texts for each record."""

    def __init__(self, file: TextFile, dialect: Mapping[str, Any], null: str | None) -> None:
        super().__init__(file)
        self._null = null
        # The reader takes a line only when the record in hand goes on there.
        self._reader = csv.reader(iter(file.lines), strict=True, **dialect)

    @override
    def parse(self, most: int) -> list[Any]:
        try:
            return self._parsed(most)
        except csv.Error as error:
            problem = _csv_problem(str(error))
        raise ValueError(problem)

    def _parsed(self, most: int) -> list[Any]:
        width = len(self.columns or ())
        records: list[Any] = []
        for row in self._reader:
            if len(row) == width:
                records.append(tuple(row))
                if len(records) == most:
                    break
            elif row:
                msg = f"has a record of {len(row)} values for {width} columns; mend it, then call again"
                raise ValueError(msg)
        null = self._null
        if null is None:
            return records
        return [tuple([None if value == null else value for value in record]) for record in records]

    def first(self) -> tuple[str, ...] | None:
        """Give the first record that is no empty line; None at the end.

        Raises:
            ValueError: If it is no CSV.
        """
        try:
            return next((tuple(row) for row in self._reader if row), None)
        except csv.Error as error:
            problem = _csv_problem(str(error))
        raise ValueError(problem)


def _header(records: _CSVRecords) -> tuple[str, ...] | None:
    names = records.guarded(records.first)
    return None if names is None else _checked_names(names, f"the header of {records.file.name!r} names")


def _csv_problem(text: str) -> str:
    if "field limit" in text:
        return f"has a record that is too long: {text}; is a quote left open? Else raise csv.field_size_limit()"
    return f"has a record that is not CSV: {text}; mend it, or correct delimiter= and quotechar=, then call again"


def _check_dialect(dialect: Mapping[str, Any]) -> None:
    try:
        csv.reader((), strict=True, **dialect)
    except (TypeError, ValueError) as error:
        msg = f"{error}; give one character"
        raise ConfigurationError(msg) from None


def _checked_names(names: tuple[str, ...], what: str) -> tuple[str, ...]:
    given: tuple[object, ...] = names
    if not given or not all(isinstance(name, str) for name in given):
        msg = f"{what} no columns; give their names"
        raise ConfigurationError(msg)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        msg = f"{what} more than one column {twice[0]!r}; mend it, or name the columns in columns="
        raise ConfigurationError(msg)
    return names


def _checked(encoding: str, compression: object, longest: object) -> list[Any]:
    if type(longest) is not int or longest < 1:
        msg = f"max_line_bytes={longest!r} is not possible; give a whole number of bytes, at least 1"
        raise ConfigurationError(msg)
    compression_of("", compression)
    return [encoding_of(encoding).name, compression]
