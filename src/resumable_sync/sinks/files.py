"""`JSONLinesSink` and `CSVSink`: batches into a local file, every record exactly once."""

import contextlib
import csv
import gzip
import io
import os
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from typing_extensions import override

from resumable_sync._errors import ConfigurationError, StoreError
from resumable_sync._model import Batch, Checkpoint, Job, as_records
from resumable_sync._protocols import CheckpointingSink, Column, PreparingSink, Sink
from resumable_sync._zstd import zstd_module
from resumable_sync.sinks._appendix import Appendix, State
from resumable_sync.sinks._texts import check_delimiter, csv_text, json_lines

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["CSVSink", "JSONLinesSink"]

Mode = Literal["replace", "append"]


class _FileSink(Sink[Any], CheckpointingSink):
    """A file that takes whole batches, with a checkpoint beside it."""

    transactional = False
    idempotent = False

    def __init__(self, path: str | PathLike[str], mode: Mode) -> None:
        what: object = path
        given = os.fspath(what) if isinstance(what, (str, os.PathLike)) else None
        if not isinstance(given, str) or not given or "\0" in given or "://" in given:
            shown = given.partition("://")[0] + "://..." if isinstance(given, str) and "://" in given else repr(given)
            msg = f"the path {shown} is none of a local file, which alone can be cut back to a length; give one"
            raise ConfigurationError(msg)
        if mode not in ("replace", "append"):
            msg = f"mode={mode!r} is none of 'replace' and 'append'; give one of them"
            raise ConfigurationError(msg)
        # Another process may be in another folder, and what is behind a link is replaced, not the link.
        target = Path(os.path.realpath(os.path.expanduser(given)))  # noqa: PTH111 - of the text, as the rest
        self._file = Appendix(target, replaces=mode == "replace")
        self._mode = mode
        self._compress: Callable[[bytes], bytes] = _compressor(target.name)
        self._run_id: str | None = None
        self._token: int | None = None

    @abstractmethod
    def _encode(self, batch: Batch[Any], state: State) -> tuple[bytes, list[str] | None]:
        """Give the text of a batch, and the names of the columns if there are any."""

    def _beginning(self, state: State) -> bytes:
        """Give what the file must hold behind what it holds now, before any record."""
        if state.length == 0 or self._ends_with_break(state):
            return b""
        return self._compress(b"\n")

    def _ending(self, state: State) -> bytes:  # noqa: ARG002 - for those that override it
        """Give what a file that got no record must hold besides."""
        return b""

    @override
    def checkpoint(self, job: Job) -> Checkpoint | None:
        token = self._take_token(job)
        with self._file.locked() as known:
            state = self._file.claim(job, token, known)
            self._run_id = job.run_id
            return self._file.checkpoint_of(state, job)

    @override
    def begin(self, job: Job, connection: "Connection | None") -> None:
        token = self._take_token(job)
        with self._file.locked() as known:
            state = self._file.claim(job, token, known)
            self._run_id = job.run_id
            if self._file.checkpoint_of(state, job) is not None:
                self._begin_text(self._file.go_on(state))
                return
            if job.has_progress:
                msg = (
                    f"job {job.id!r}: {job.processed_records} records of run {job.run} were processed, but there is no "
                    f"checkpoint of that run beside {str(self._file.path)!r}: its folder was removed, or the run was "
                    "begun with another sink. Go on with that one, or start over with reset_job(job_id)"
                )
                raise StoreError(msg)
            self._begin_text(self._file.start(state, job))

    def _begin_text(self, state: State) -> None:
        # A process may have died between the start of the run and this.
        if state.batches == 0 and state.length == state.base and not state.finished:
            beginning = self._beginning(state)
            if beginning:
                self._file.add(state, beginning)

    @override
    def write(self, batch: Batch[Any], connection: "Connection | None") -> None:
        def encode(state: State) -> tuple[bytes, list[str] | None]:
            data, columns = self._encode(batch, state)
            return self._compress(data), columns

        with self._file.locked():
            self._file.write(batch, self._run_id, encode)
            self._token = batch.fencing_token

    @override
    def complete(self, job: Job, connection: "Connection | None") -> None:
        token = self._take_token(job)
        with self._file.locked() as known:
            state = self._file.claim(job, token, known)
            if self._file.checkpoint_of(state, job) is None:
                msg = f"job {job.id!r}: its run was not begun in {str(self._file.path)!r}; call begin(job) first"
                raise StoreError(msg)
            ending = self._ending(state)
            self._file.finish(self._file.add(state, ending) if ending and not state.finished else state)

    def _take_token(self, job: Job) -> int:
        # The job of `complete` is the one that is saved, without a lease.
        self._token = self._token if job.lease is None else job.lease.fencing_token
        if self._token is None:
            msg = f"job {job.id!r}: the sink needs the fencing token, but job.lease is None; get the lease first"
            raise ConfigurationError(msg)
        return self._token

    def _ends_with_break(self, state: State) -> bool:
        with self._content(state) as content:
            if self._compress is bytes:
                content.seek(-1, os.SEEK_END)
            last = b""
            while data := content.read(1 << 20):
                last = data[-1:]
        return last in (b"", b"\n")

    @contextlib.contextmanager
    def _content(self, state: State) -> Iterator[Any]:
        path = self._file.file_of(state)
        opened: Any = _opened(path)
        with opened as content:
            yield content

    @override
    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self._file.path)!r}, mode={self._mode!r})"

    @override
    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_run_id": None, "_token": None, "_compress": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._compress = _compressor(self._file.path.name)


class JSONLinesSink(_FileSink):
    """Write records into a local file, one JSON value to a line, every one exactly once.

        JSONLinesSink("orders.jsonl")                       each run makes the file anew
        JSONLinesSink("orders.jsonl.gz", mode="append")     each run adds to it

    With `mode="replace"` a run is loaded beside the target, over as many attempts as it takes, and takes its place when
    it is complete, in one step: readers see the old file or the new one, never a part. With `mode="append"` each batch
    stands in the target as soon as it is accepted, and a run that is given up for a new one is cut off again.

    The sink keeps a checkpoint of its own, in the folder `.orders.jsonl.sync` beside the target: the engine goes on
    from there, so a record is written once, whatever dies when, and wherever the job's store is. A batch is on disk
    (fsync) before its checkpoint is, and that before the store's. At a resume the file is cut back to the length of the
    checkpoint, which removes a batch that was only half written. An attempt that lost its lease is refused; one that
    froze in the middle of a batch keeps its successor out for ten seconds, then writes into a file that nobody reads.

    Nobody else may write to the file while a run is at work, and of several jobs each needs its turn: the next is
    refused until the one before has completed. The folder stays when a run is complete. It may be removed then; removed
    before, the run cannot go on.

    Dates and times are written in their ISO form, Decimals and UUIDs as texts, bytes in base64, a timedelta as a text
    of seconds. NaN, infinities and values of other types raise `ValueError`, without the value.

    Args:
        path: The file. With the ending `.gz` or `.zst` (extra `files`) each batch is a gzip member or zstd frame.
        mode: `"replace"` (default) or `"append"`.

    Raises:
        ConfigurationError: If the path is none of a local file, or there is no such mode.

    Examples:
        >>> JSONLinesSink("/data/orders.jsonl")
        JSONLinesSink('/data/orders.jsonl', mode='replace')
    """

    def __init__(self, path: str | PathLike[str], mode: Mode = "replace") -> None:
        super().__init__(path, mode)

    @override
    def _encode(self, batch: Batch[Any], state: State) -> tuple[bytes, list[str] | None]:
        records = as_records(batch.records) if batch.columns is None else batch.dicts()
        return json_lines(records), None


class CSVSink(_FileSink, PreparingSink):
    r"""Write records into a local CSV file with a header, every one exactly once.

        CSVSink("orders.csv")                               each run makes the file anew
        CSVSink("orders.csv", mode="append", delimiter=";") each run adds to it, under the same header

    Modes, checkpoint and guarantee are those of `JSONLinesSink`.

    The header is `columns=`, else the columns of the first batch; of dicts these are all keys in that batch, in the
    order in which they come. With `mode="append"` it is that of the file, if that has one. A column that a record lacks
    is left empty; one that the header lacks raises `ValueError`. A run without any record writes the header if the
    columns are known.

    None becomes an empty value, as does an empty text; true and false are written as such, lists and dicts as JSON, the
    rest as in `JSONLinesSink`. Text is UTF-8, lines end with `\n`.

    Args:
        path: The file. With the ending `.gz` or `.zst` (extra `files`) each batch is a gzip member or zstd frame.
        mode: `"replace"` (default) or `"append"`.
        columns: Names of the columns, in order; None: those of the first batch.
        delimiter: Between values, one character.

    Raises:
        ConfigurationError: If the arguments do not fit together.

    Examples:
        >>> CSVSink("/data/orders.csv", columns=["id", "total"])
        CSVSink('/data/orders.csv', mode='replace')
    """

    def __init__(
        self,
        path: str | PathLike[str],
        mode: Mode = "replace",
        *,
        columns: Sequence[str] | None = None,
        delimiter: str = ",",
    ) -> None:
        super().__init__(path, mode)
        check_delimiter(delimiter)
        self._names = None if columns is None else list(columns)
        if self._names is not None and (not self._names or len(set(self._names)) < len(self._names)):
            msg = f"columns={columns!r} are no columns; name each once"
            raise ConfigurationError(msg)
        self._delimiter = delimiter
        self._prepared: list[str] | None = None

    @override
    def prepare(self, columns: Sequence[Column]) -> None:
        self._prepared = [column.name for column in columns] or None

    @override
    def _beginning(self, state: State) -> bytes:
        found = self._header(state)
        if found is not None and self._names is not None and found != self._names:
            msg = (
                f"job {state.job_id!r}: the header of {str(self._file.path)!r} is not columns=: let it be that, or "
                "write to another file"
            )
            raise ConfigurationError(msg)
        return super()._beginning(state)

    @override
    def _encode(self, batch: Batch[Any], state: State) -> tuple[bytes, list[str] | None]:
        columns, header = state.columns, b""
        if columns is None:
            columns = self._header(state)
            if columns is None:
                columns = self._names or _columns_of(batch)
                header = csv_text([columns], self._delimiter)
        return header + csv_text(_rows(batch, columns), self._delimiter), columns

    @override
    def _ending(self, state: State) -> bytes:
        names = self._names or self._prepared
        if state.columns is not None or names is None or self._header(state) is not None:
            return b""
        return self._compress(csv_text([names], self._delimiter))

    def _header(self, state: State) -> list[str] | None:
        """Give the header of the file as it is; None if it has none."""
        if state.length == 0:
            return None
        with self._content(state) as content:
            text = io.TextIOWrapper(content, encoding="utf-8-sig", newline="")
            header = next((row for row in csv.reader(text, delimiter=self._delimiter) if row), None)
            text.detach()
        return header


def _columns_of(batch: Batch[Any]) -> list[str]:
    if batch.columns is not None:
        return list(batch.columns)
    return list(dict.fromkeys(name for record in batch.dicts() for name in record))


def _rows(batch: Batch[Any], columns: Sequence[str]) -> Iterator[Sequence[Any]]:
    known = set(columns)
    if batch.columns is not None and list(batch.columns) == list(columns):
        plain = [record for record in batch.records if not isinstance(record, Mapping)]
        if len(plain) == len(batch.records):
            yield from _checked_rows(plain, len(columns))
            return
    for record in batch.dicts():
        other = record.keys() - known
        if other:
            name = min(map(str, other))
            msg = f"a record has the column {name!r}, which the header lacks; name all columns in columns="
            raise ValueError(msg)
        yield [record.get(name) for name in columns]


def _checked_rows(rows: Sequence[Any], width: int) -> Iterator[Sequence[Any]]:
    for row in rows:
        if len(row) != width:
            msg = f"a record has {len(row)} values for {width} columns; give one for each"
            raise ValueError(msg)
        yield row


def _compressor(name: str) -> Any:
    if name.lower().endswith((".gz", ".gzip")):
        # Without the time, so that the same batch gives the same bytes.
        return lambda data: gzip.compress(data, mtime=0)
    if name.lower().endswith((".zst", ".zstd")):
        return zstd_module().compress
    return bytes


def _opened(path: Path) -> Any:
    name = path.name.lower()
    if name.endswith((".gz", ".gzip")):
        return gzip.open(path, "rb")
    if name.endswith((".zst", ".zstd")):
        return zstd_module().open(path, "rb")
    return path.open("rb")
