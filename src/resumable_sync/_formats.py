"""Formats: forms other than Python values in which a connector gives records and a sink takes them.

Between two systems of one kind, records need not become Python values: a connector that can give them in a form of the
source's own, and a sink that can take that form, say so here, and the engine brings them together. Whatever the form, a
batch has a length, a cursor and a checkpoint.
"""

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, overload, runtime_checkable

import attrs
from typing_extensions import override

from resumable_sync._errors import ResumableSyncError
from resumable_sync._model import Job
from resumable_sync._protocols import Connector

__all__ = [
    "COPY_TEXT",
    "POSTGRESQL_ARROW",
    "RECORDS",
    "SQLITE_WINDOW",
    "WINDOW_SCHEMA",
    "ArrowRows",
    "CopyText",
    "Format",
    "FormattingConnector",
    "FormattingSink",
    "SQLiteWindow",
    "StaleRecordsError",
]

RECORDS = "records"
"""The name of no format: what a connector gives of itself, Python values or Arrow data."""

COPY_TEXT = "postgresql-copy-text"
"""PostgreSQL's COPY in its text form, in UTF-8, ISO dates and intervals of the style `postgres`: `CopyText`."""


POSTGRESQL_ARROW = "postgresql-arrow"
"""Arrow tables as ADBC's driver for PostgreSQL makes them: `ArrowRows`."""


SQLITE_WINDOW = "sqlite-window"
"""Rows of a table that stay in their SQLite file: `SQLiteWindow`."""

WINDOW_SCHEMA = "resumable_sync_source"
"""The name by which the statements of a `SQLiteWindow` know its file, attached."""


class StaleRecordsError(ResumableSyncError):
    """Records in a format that refers to them are not those any more that were read."""


@attrs.frozen(kw_only=True)
class Format:
    """A form of records.

    Attributes:
        name: Which one, such as `"postgresql-copy-text"`.
        columns: Names of the columns, in the order in which records hold them.
        types: The type of each column in the words of the source: `"bigint"`, `"timestamp with time zone"`.
        file: For a format that refers to the records of a file: its absolute path.
        filled: Columns of which it is known that no record has NULL in them, as far as that is known.
    """

    name: str
    columns: tuple[str, ...]
    types: tuple[str, ...]
    file: str | None = None
    filled: frozenset[str] = frozenset()


@runtime_checkable
class FormattingConnector(Protocol):
    """Optional: a connector that can give records in formats.

    Implementations must:

    - give the same pages in every format: the same records, cursors and columns;
    - give no format in which a record would be another one than as Python values.
    """

    def formats(self) -> Sequence[Format]:
        """Give the formats, the best one first. May ask the source."""
        ...

    def in_format(self, format_: Format, /) -> Connector[Any]:
        """Give a connector whose pages hold their records in one of `formats`."""
        ...


@runtime_checkable
class FormattingSink(Protocol):
    """Optional: a sink that takes records in formats.

    Implementations must:

    - take a format only if what is written is then the same as with Python values.

    `write` may raise `StaleRecordsError` for a batch that refers to records which are not those any more that were
    read: they are then read anew from the last checkpoint on, at the third time in a row as Python values.

    Attributes:
        known_formats: Optional: names of the formats that it may take; a plan tells the best one among them. All where
            it is missing.
    """

    def takes(self, format_: Format, job: Job, /) -> bool:
        """Whether batches of a job may come in a format; asked after `begin`, which has seen the target."""
        ...


@attrs.frozen
class CopyText(Sequence[bytes]):
    r"""Rows of PostgreSQL as COPY writes them: a line of text for each, columns between tabs, `\N` for NULL.

    Attributes:
        data: All lines, each with its line break.
        rows: How many there are.

    References:
        https://www.postgresql.org/docs/current/sql-copy.html, "Text Format"
    """

    data: bytes = attrs.field(repr=False)
    rows: int

    @override
    def __len__(self) -> int:
        return self.rows

    @overload
    def __getitem__(self, place: int) -> bytes: ...
    @overload
    def __getitem__(self, place: slice) -> list[bytes]: ...
    @override
    def __getitem__(self, place: int | slice) -> bytes | list[bytes]:
        return self.data.splitlines(keepends=True)[place]

    @override
    def __iter__(self) -> Iterator[bytes]:
        return iter(self.data.splitlines(keepends=True))


@attrs.frozen
class ArrowRows(Sequence[Any]):
    """Rows of PostgreSQL as ADBC's driver gives them: what Arrow has no type for is text, or an extension type of it.

    Numbers of type numeric are their text, with `nan`, `inf` and `-inf`; times and dates of an infinity are any of the
    times that Python has not.

    Attributes:
        table: A `pyarrow.Table`.

    References:
        https://arrow.apache.org/adbc/current/driver/postgresql.html, "Supported Types"
    """

    table: Any = attrs.field(repr=False)

    @override
    def __len__(self) -> int:
        return int(self.table.num_rows)

    @overload
    def __getitem__(self, place: int) -> Any: ...
    @overload
    def __getitem__(self, place: slice) -> list[Any]: ...
    @override
    def __getitem__(self, place: int | slice) -> Any:
        return self.table.to_pylist()[place]

    @override
    def __iter__(self) -> Iterator[Any]:
        return iter(self.table.to_pylist())


@attrs.frozen(kw_only=True)
class SQLiteWindow(Sequence[tuple[Any, ...]]):
    """Rows of a table that stay in their SQLite file, between two keys.

    The statements are for a connection to which the file is attached under the name `WINDOW_SCHEMA`.

    Attributes:
        uri: The file, read-only: `"file:///data/shop.db?mode=ro"`.
        select: Gives the rows, in the order of the key: `"SELECT id, total FROM resumable_sync_source.orders ..."`.
        counted: Gives their number.
        parameters: Parameters of both.
        last: Gives the last row.
        last_parameters: Its parameters.
        digest: The digest of the last row when it was read; None if there is none.
        rows: How many there are.
    """

    uri: str
    select: str = attrs.field(repr=False)
    counted: str = attrs.field(repr=False)
    parameters: tuple[Any, ...] = attrs.field(repr=False)
    last: str = attrs.field(repr=False)
    last_parameters: tuple[Any, ...] = attrs.field(repr=False)
    digest: str | None
    rows: int

    @override
    def __len__(self) -> int:
        return self.rows

    @overload
    def __getitem__(self, place: int) -> tuple[Any, ...]: ...
    @overload
    def __getitem__(self, place: slice) -> list[tuple[Any, ...]]: ...
    @override
    def __getitem__(self, place: int | slice) -> Any:
        return self._read()[place]

    @override
    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return iter(self._read())

    def _read(self) -> list[tuple[Any, ...]]:
        with contextlib.closing(sqlite3.connect(":memory:", uri=True)) as connection:
            connection.execute(f"ATTACH ? AS {WINDOW_SCHEMA}", (self.uri,))
            return connection.execute(self.select, self.parameters).fetchall()
