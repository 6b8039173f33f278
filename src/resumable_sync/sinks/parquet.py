"""`ParquetSink`: batches into a folder of Parquet files, every record exactly once."""

import base64
import copy
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal

import attrs
from typing_extensions import override

from resumable_sync._arrow.columns import pyarrow
from resumable_sync._errors import ConfigurationError, StateCorruptError, StoreError
from resumable_sync._formats import COPY_TEXT, POSTGRESQL_ARROW, Format, FormattingSink
from resumable_sync._model import Batch, Checkpoint, Job
from resumable_sync._protocols import CheckpointingSink, Column, PreparingSink, Sink
from resumable_sync._split import PartitionableSink
from resumable_sync.sinks._arrow_schema import named_types
from resumable_sync.sinks._arrow_table import Tables
from resumable_sync.sinks._dataset import Dataset, DatasetState
from resumable_sync.sinks._places import open_place

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["ParquetSink"]

Mode = Literal["replace", "append"]

_SAMPLE = 1_000
"""How many values tell whether those of a column repeat."""

_COMPRESSIONS = ("snappy", "zstd", "gzip", "lz4", "none")


class ParquetSink(Sink[Any], PreparingSink, CheckpointingSink, FormattingSink, PartitionableSink):
    """Write records into a folder of Parquet files, a file for each batch, every record exactly once.

        ParquetSink("warehouse/orders")                     each run makes the content anew
        ParquetSink("s3://lake/orders", mode="append")      each run adds to it

    A file has its name from its place, such as `00003-5f3a9c2e-00000012.parquet`: number and digest of the run, number
    of the batch. It is written aside, synced to disk, and moved to its place. Its footer holds the job
    (`resumable_sync.job`), the run (`.run`, `.run_id`), the number of the batch and its key (`.batch`, `.key`), and no
    cursor. Columns whose values repeat have a dictionary. `_SUCCESS` stands in the folder while what is there is
    complete, with the number of files and records of the last run in it.

    With `mode="replace"` a run is loaded aside, in the folder `.sync` within, over as many attempts as it takes. When
    it is complete `_SUCCESS` goes, the new files come to stand in the folder, those of earlier runs go, and `_SUCCESS`
    is back: a reader that looks for it never takes a mixture for the whole. With `mode="append"` each batch stands in
    the folder as soon as it is accepted, and the files of a run that is given up for a new one are removed. Other files
    are never touched; Parquet files among them are refused with `"replace"`, which could not replace them.

    The sink keeps a checkpoint of its own, in `.sync`: the engine goes on from there, so a record is written once,
    whatever dies when, and wherever the job's store is. At a resume the files at or beyond that place are removed. An
    attempt that lost its lease can change nothing any more, however long it was frozen, since it finds no folder of its
    own to write into. Behind a URL there are no such folders: it looks before it moves a file, and between looking and
    moving it can still be overtaken. Of several jobs each needs its turn: the next is refused until the one before has
    completed. The parts of one job (`run_partitioned_sync`) fill the folder side by side, from a connector that tells
    its columns; the number of the part stands before that of the batch then.

    Every value arrives exactly, or is refused with `ValueError`, which names the column and not the value. The types
    are those of the source's columns: whole numbers int64, NUMERIC(12, 2) decimal128(12, 2), without digits
    decimal128(38, 18), never a float; times with a zone timestamp[us, UTC], without one timestamp[us]; dates, times of
    day, bytes, booleans, intervals and arrays what Parquet has for them; JSON the text of a document, UUIDs text. A
    time with a zone does not go into a column of times without one, nor a part of a second into one that is named as
    `timestamp[s]`; only in one that is named `float` or `halffloat` numbers are the nearest that these have. Where
    a connector tells no columns, the values of the first batch decide for the whole run, and None for text. What a
    source keeps otherwise is made into that: the texts of SQLite's dates, its numbers in a NUMERIC column.

    From PostgreSQL batches come as Arrow tables where ADBC is installed (extra `arrow`), else as the text that COPY
    writes, where that means the same in every column; no Python values are made (`fast_path=False` switches it off).

    Args:
        path: The folder, or any URL that fsspec has a filesystem for (extra `files`).
        mode: `"replace"` (default) or `"append"`.
        types: Types of columns by name, which come before those of the source: `"decimal(38, 6)"`,
            `"timestamp[us, UTC]"`, or pyarrow's names such as `"int32"`, `"double"`, `"string"`.
        compression: `"snappy"` (default), `"zstd"`, `"gzip"`, `"lz4"` or `"none"`.
        storage_options: Arguments of the filesystem of a URL, such as keys; they are shown nowhere.

    Raises:
        ConfigurationError: If the arguments do not fit together.
        MissingExtraError: If pyarrow is not installed (extra `parquet`).

    Examples:
        >>> ParquetSink("/data/orders", types={"total": "decimal(18, 4)"})
        ParquetSink('/data/orders', mode='replace')
    """

    transactional = False
    idempotent = False
    preferred_batch_size = 10_000
    known_formats = (POSTGRESQL_ARROW, COPY_TEXT)

    def __init__(
        self,
        path: str | PathLike[str],
        mode: Mode = "replace",
        *,
        types: Mapping[str, str] | None = None,
        compression: str = "snappy",
        storage_options: Mapping[str, Any] | None = None,
    ) -> None:
        pyarrow()
        if mode not in ("replace", "append"):
            msg = f"mode={mode!r} is none of 'replace' and 'append'; give one of them"
            raise ConfigurationError(msg)
        if compression not in _COMPRESSIONS:
            msg = f"compression={compression!r} is none of {', '.join(map(repr, _COMPRESSIONS))}; give one of them"
            raise ConfigurationError(msg)
        self._dataset = Dataset(open_place(path, storage_options), ".parquet", replaces=mode == "replace")
        self._mode = mode
        self._compression = compression
        self._types = named_types(types)
        self._tables = Tables(self._types)
        self._state: DatasetState | None = None

    @override
    def prepare(self, columns: Sequence[Column]) -> None:
        self._tables.prepare(columns)

    @override
    def part(self, job: Job) -> "ParquetSink":
        made = copy.copy(self)
        # The plan need not travel.
        made._dataset = self._dataset.part(attrs.evolve(job, cursor=None))  # noqa: SLF001 - our own
        made._tables, made._state = Tables(self._types), None  # noqa: SLF001
        return made

    @override
    def checkpoint(self, job: Job) -> Checkpoint | None:
        self._state = state = self._dataset.claim(job, self._token(job))
        return self._dataset.checkpoint_of(state, job)

    @override
    def begin(self, job: Job, connection: "Connection | None") -> None:
        state = self._dataset.claim(job, self._token(job))
        if self._dataset.checkpoint_of(state, job) is not None:
            self._dataset.go_on(state)
            self._state = state
            return
        if job.has_progress:
            msg = (
                f"job {job.id!r}: {job.processed_records} records of run {job.run} were processed, but there is no "
                f"checkpoint of that run in {self._dataset.place.shown!r}: the folder .sync in it was removed, or the "
                "run was begun with another sink. Go on with that one, or start over with reset_job(job_id)"
            )
            raise StoreError(msg)
        self._state = self._dataset.start(state, job)

    @override
    def takes(self, format_: Format, job: Job, /) -> bool:
        state = self._state
        # Whoever overrides `write` wants records.
        own = type(self).write is ParquetSink.write
        return own and state is not None and self._tables.takes(format_, _schema_of(state))

    @override
    def write(self, batch: Batch[Any], connection: "Connection | None") -> None:
        state = self._state
        if state is None or state.run_id is None:
            msg = f"job {batch.job_id!r}: the sink was given a batch before begin(job); call that first"
            raise ConfigurationError(msg)
        if not self._dataset.follows(state, batch):
            return
        table = self._tables.table(batch, self._schema(state, batch))
        if table.num_rows != len(batch):
            msg = f"job {batch.job_id!r}: the records have no columns, and a Parquet file holds nothing else; give some"
            raise ConfigurationError(msg)
        data = self._file(table, state, batch.run, {"batch": str(state.batches), "key": batch.key})
        self._state = self._dataset.add(state, batch, data, state.schema or _text_of(table.schema))

    @override
    def complete(self, job: Job, connection: "Connection | None") -> None:
        state = self._dataset.claim(job, self._token(job))
        if self._dataset.checkpoint_of(state, job) is None:
            msg = f"job {job.id!r}: its run was not begun in {self._dataset.place.shown!r}; call begin(job) first"
            raise StoreError(msg)
        schema = self._tables.known_schema() if state.batches == 0 else None
        empty = None if schema is None else self._file(schema.empty_table(), state, job.run, {})
        self._state = self._dataset.finish(state, job, empty)

    def _schema(self, state: DatasetState, batch: Batch[Any]) -> Any:
        """Give the schema of a run; None if its first batch decides.

        Raises:
            ConfigurationError: If a part would decide for itself alone.
        """
        schema = _schema_of(state)
        if schema is None and self._dataset.whole is not None and not hasattr(batch.records, "to_pylist"):
            schema = self._tables.known_schema()
            if schema is None:
                msg = (
                    f"job {batch.job_id!r}: the connector tells no columns, so that each part would find types of its "
                    "own for the same column; read it in one piece with run_full_sync"
                )
                raise ConfigurationError(msg)
        return schema

    def _token(self, job: Job) -> int:
        # The job of `complete` is the one that is saved, without a lease.
        if job.lease is not None:
            return job.lease.fencing_token
        if self._state is None:
            msg = f"job {job.id!r}: the sink needs the fencing token, but job.lease is None; get the lease first"
            raise ConfigurationError(msg)
        return self._state.token

    def _file(self, table: Any, state: DatasetState, run: int, more: Mapping[str, str]) -> Any:
        """Give the bytes of a file."""
        from pyarrow import parquet  # noqa: PLC0415 - an optional package

        facts = {"job": state.job_id, "run": str(run), "run_id": str(state.run_id), **more}
        described = table.replace_schema_metadata({f"resumable_sync.{name}": text for name, text in facts.items()})
        buffer = pyarrow().BufferOutputStream()
        parquet.write_table(described, buffer, compression=self._compression, use_dictionary=_repeating(table))
        return memoryview(buffer.getvalue())

    @override
    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._dataset.place.shown!r}, mode={self._mode!r})"

    @override
    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_state": None}


def _repeating(table: Any) -> list[str] | bool:
    """Name the columns that get a dictionary: those of which half of the first values or more came before.

    Of values that are all different it would hold every one, which takes half of the time that a file takes, and room.
    All get one, True, where there are columns whose values cannot be compared, such as arrays.
    """
    sample = table.slice(0, _SAMPLE)
    try:
        different = [len(column.unique()) for column in sample.columns]
    except pyarrow().ArrowNotImplementedError:
        return True
    return [name for name, count in zip(table.column_names, different, strict=True) if 2 * count <= sample.num_rows]


def _text_of(schema: Any) -> str:
    return base64.b64encode(schema.remove_metadata().serialize()).decode("ascii")


def _schema_of(state: DatasetState) -> Any:
    """Give the schema of a run; None before its first batch.

    Raises:
        StateCorruptError: If it is damaged.
    """
    if state.schema is None:
        return None
    pa = pyarrow()
    try:
        return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(state.schema)))
    except (ValueError, OSError, pa.ArrowException):
        pass
    raise StateCorruptError(state.job_id, "schema", "of the run is damaged")
