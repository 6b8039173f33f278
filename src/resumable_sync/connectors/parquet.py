"""`ParquetConnector`: Parquet files, by path, glob pattern or URL."""

import io
import json
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from os import PathLike
from typing import Any, BinaryIO, Self, TypeVar

from typing_extensions import override

from resumable_sync._arrow.columns import columns_of
from resumable_sync._errors import ConfigurationError, CursorError, MissingExtraError
from resumable_sync._protocols import Column, DescribingConnector, IfMoved
from resumable_sync.connectors._file_parts import Edge
from resumable_sync.connectors._file_source import FileSource, Records

__all__ = ["ParquetConnector"]

T = TypeVar("T")

BUFFER = 1 << 16
"""Bytes that are read at once of a column."""

_PLACE_FIELDS = 3
_TAIL = 8
"""Bytes behind the footer: its length, and the magic."""


class ParquetConnector(FileSource[Any], DescribingConnector):
    """Reads Parquet files (extra `parquet`), and goes on in the row group and at the row where it stopped.

    A page holds a pyarrow `RecordBatch`, which `SQLSink` and the sinks on files take as it is, and whose records
    `batch.dicts()` gives as dicts.

    The cursor is that of `JSONLinesConnector`, but for the place: number of the row group, number of the last row in
    it, and a CRC-32 of the file's footer, such as `"place": [12, 40000, 3735928559]`. A resume decodes that row group
    up to the row. At a resume a file whose size or version is another is compared by its footer, which holds place,
    size and statistics of every column of every row group: one that was copied goes on, one that was written anew has
    moved (see `if_moved`). Which files there are, and in which order, is as there.

    `split` gives parts that begin where a row group does, also within a file.

    All files of a pattern must have the same columns; where their order or types differ, they become those of the first
    file, and a value that does not fit is refused.
    Memory is that of a page and of a buffer for each column, as far as the file's own pages are small.

    Args:
        path: A path, a glob pattern, or any URL that fsspec has a filesystem for (extra `files`).
        columns: Names of the columns to read, in order; None: all.
        storage_options: Arguments of the filesystem of a URL, such as keys; they are shown nowhere.
        if_moved: What to do at a resume when the files are not as they were: `"raise"` (default) refuses with
            `SourceChangedError`, `"rerun"` starts a new run, `"warn"` goes on at the same place all the same.

    Raises:
        ConfigurationError: If the arguments do not fit together. Whether the files exist is seen when reading.
        MissingExtraError: If pyarrow is not installed.

    Attributes:
        fingerprint: Path, format and names of columns.

    Examples:
        >>> ParquetConnector("/lake/orders/*.parquet", columns=["id", "total"])
        ParquetConnector('/lake/orders/*.parquet')
    """

    def __init__(
        self,
        path: str | PathLike[str],
        *,
        columns: Sequence[str] | None = None,
        storage_options: Mapping[str, Any] | None = None,
        if_moved: IfMoved = "raise",
    ) -> None:
        _pyarrow()
        names = None if columns is None else list(columns)
        if names is not None and (not names or len(set(names)) < len(names)):
            msg = f"columns={columns!r} are no columns; name each once"
            raise ConfigurationError(msg)
        parts = {"paging": "parquet by row group and row", "format": json.dumps(names)}
        super().__init__(path, storage_options, if_moved, parts)
        self._wanted = names

    _has_groups = True

    @override
    def count(self) -> int:
        """Add up what the footers of the files say."""
        return sum(rows for _, rows in self._pieces(self._files()))

    @override
    def split(self, parts: int) -> Sequence[Self]:
        """Give parts that begin where a row group does, with about equal numbers of rows.

        All footers are read for it. A file in which one part ends and another one begins must stay as it is until both
        are done; the last part has whatever files sort behind by then. There are no more parts than row groups.
        """
        return super().split(parts)

    @override
    def _pieces(self, names: Sequence[str]) -> Sequence[tuple[Edge, int]]:
        pieces: list[tuple[Edge, int]] = []
        for name in names:
            with closing(self._file(name)) as file:
                rows = file.rows
                first, stop = self._groups(file)
                for group in range(first, len(rows) if stop is None else stop):
                    last = group + 1 == len(rows)
                    pieces.append((Edge(name) if last else Edge(name, group + 1, file.checksum), rows[group]))
        return pieces

    def _groups(self, file: "_File") -> tuple[int, int | None]:
        """Give the first row group of a file to read, and the first one behind those; None: all are read.

        Raises:
            CursorError: If a part begins or ends in it, and it is not the file that was split.
        """
        if self._range is None:
            return 0, None
        if any(edge.file == file.name and edge.checksum != file.checksum for edge in self._range.halved):
            msg = f"the file {file.name!r} was written anew since it was split into parts; put it back, or start over"
            raise CursorError(f"{msg} with reset_job(job_id)")
        return self._range.groups(file.name)

    @override
    def columns(self) -> Sequence[Column]:
        """Give names and types of the columns, as the first file has them; lists, structs and maps are JSON."""
        with closing(self._file(self._storage.names()[0])) as file:
            found = columns_of(file.parquet.schema_arrow)
        by_name = {column.name: column for column in found}
        return found if self._wanted is None else [by_name[name] for name in self._wanted if name in by_name]

    def _file(self, name: str) -> "_File":
        file, facts = self._storage.open(name)
        try:
            return _File(name, file, facts)
        except BaseException:
            file.close()
            raise

    @override
    def _open(self, name: str, place: Sequence[int] | None) -> Records:
        file = self._file(name)
        try:
            first, stop = self._groups(file)
            return _Groups(file, self._wanted, [first, 0] if place is None else place, stop)
        except BaseException:
            file.close()
            raise

    @override
    def _check_place(self, place: Sequence[int]) -> bool:
        return len(place) == _PLACE_FIELDS

    @override
    def _rewritten(self, name: str, place: Sequence[int]) -> str | None:
        with closing(self._file(name)) as file:
            return None if file.checksum == place[2] else "was written anew"


class _File:
    """A Parquet file, opened.

    Args:
        name: Its name.
        raw: Its bytes.
        facts: Its state.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is no Parquet file.
    """

    def __init__(self, name: str, raw: BinaryIO, facts: Any) -> None:
        self.name = name
        self.facts = facts
        buffered: Any = raw
        self._buffered = io.BufferedReader(buffered, BUFFER)
        self.checksum, self.parquet = self.guarded(self._opened)

    def _opened(self) -> tuple[int, Any]:
        checksum = _footer_checksum(self._buffered)
        return checksum, _pyarrow()[1].ParquetFile(self._buffered, buffer_size=BUFFER, pre_buffer=False)

    @property
    def rows(self) -> Sequence[int]:
        """How many rows each row group has."""
        footer = self.parquet.metadata
        return [footer.row_group(group).num_rows for group in range(footer.num_row_groups)]

    def guarded(self, work: Callable[[], T]) -> T:
        """Do work; what pyarrow says of a damaged file names it.

        Raises:
            OSError: If it cannot be read.
            ValueError: If it is damaged.
        """
        try:
            return work()
        except OSError as error:
            if error.errno is not None:
                raise
            kind = type(error).__name__
        except (_pyarrow()[0].ArrowException, EOFError) as error:
            kind = type(error).__name__
        msg = f"the file {self.name!r} is no Parquet file, or damaged ({kind}); get it again"
        raise ValueError(msg)

    def close(self) -> None:
        """Close it."""
        self.parquet.close(force=True)
        self._buffered.close()


class _Groups(Records):
    """The rows of a file, one row group after the other.

    Args:
        file: It, opened.
        wanted: Names of the columns to read; None: all.
        place: Row group and row to begin at.
        stop: The row group to end before; None: the end of the file.

    Raises:
        CursorError: If there is no such place.
        ValueError: If the file lacks columns that are to be read.
    """

    def __init__(self, file: _File, wanted: Sequence[str] | None, place: Sequence[int], stop: int | None) -> None:
        names = list(file.parquet.schema_arrow.names)
        missing = [] if wanted is None else [name for name in wanted if name not in names]
        if missing:
            msg = f"the file {file.name!r} has no column {missing[0]!r}; correct columns="
            raise ValueError(msg)
        if len(set(names)) < len(names):
            msg = f"the file {file.name!r} has two columns of the same name; write it with other names"
            raise ValueError(msg)
        self.facts = file.facts
        self.columns: Sequence[str] | None = names if wanted is None else list(wanted)
        # A column of nothing but null has the type of whatever comes.
        self.types = {one.name: one.type for one in file.parquet.schema_arrow if str(one.type) != "null"}
        self._file = file
        self._group, self._row = place[0], place[1]
        rows = file.rows[:stop]
        if (self._group or self._row) and not (self._group < len(rows) and self._row <= rows[self._group]):
            msg = f"the file {file.name!r} has no such row as the cursor says; start over with reset_job(job_id)"
            raise CursorError(msg)
        self._rows = rows
        self._batches: Iterator[Any] | None = None
        self._size = 0
        self._left: Any = None

    @property
    @override
    def place(self) -> list[int]:
        return [self._group, self._row, self._file.checksum]

    @override
    def take(self, most: int) -> Any:
        taken: Any = ()
        while len(taken) == 0:
            if self._left is None:
                if not self._next(most):
                    return ()
                continue
            # Nothing is kept where nothing is left: even an empty slice would hold all of what it was cut from.
            left = self._left.slice(most) if len(self._left) > most else None
            taken, self._left = self._left.slice(0, most), left
            self._row += len(taken)
        return taken

    def _next(self, size: int) -> bool:
        """Decode on; give whether there was anything left."""
        if self._batches is None:
            while self._group < len(self._rows) and self._row == self._rows[self._group]:
                if self._group + 1 == len(self._rows):
                    return False
                self._group, self._row = self._group + 1, 0
            if self._group == len(self._rows):
                return False
            self._batches = self._decoded(size)
        batches = self._batches
        self._left = self._file.guarded(lambda: next(batches, None))
        if self._left is None:
            self._batches = None
        return True

    def _decoded(self, size: int) -> Iterator[Any]:
        """Decode a row group from the row in hand on.

        Yields:
            Record batches.
        """
        passed, skip = 0, self._row
        columns = list(self.columns or ())
        for batch in self._file.parquet.iter_batches(size, row_groups=[self._group], columns=columns):
            begun = max(0, skip - passed)
            passed += len(batch)
            if begun < len(batch):
                yield batch.slice(begun).select(columns)

    @override
    def close(self) -> None:
        self._batches = self._left = None
        self._file.close()


def _footer_checksum(file: io.BufferedReader) -> int:
    """Give the CRC-32 of the footer.

    Raises:
        EOFError: If there is none.
    """
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - _TAIL))
    tail = file.read(_TAIL)
    length = struct.unpack("<I", tail[:4])[0] if len(tail) == _TAIL else size
    if length > size - _TAIL:
        msg = "the footer is longer than the file"
        raise EOFError(msg)
    file.seek(size - _TAIL - length)
    return zlib.crc32(file.read(length))


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow as pa  # noqa: PLC0415 - the registry may look at this module without it
        from pyarrow import parquet  # noqa: PLC0415
    except ModuleNotFoundError:
        package, extra = "pyarrow", "parquet"
        raise MissingExtraError(package, extra) from None
    return pa, parquet
