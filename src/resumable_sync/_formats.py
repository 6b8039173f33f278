"""Formats: forms other than Python values in which a connector gives records and a sink takes them.

Between two systems of one kind, records need not become Python values: a connector that can give them in a form of the
source's own, and a sink that can take that form, say so here, and the engine brings them together. Whatever the form, a
batch has a length, a cursor and a checkpoint.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, overload, runtime_checkable

import attrs
from typing_extensions import override

from resumable_sync._model import Job
from resumable_sync._protocols import Connector

__all__ = [
    "COPY_TEXT",
    "POSTGRESQL_ARROW",
    "RECORDS",
    "ArrowRows",
    "CopyText",
    "Format",
    "FormattingConnector",
    "FormattingSink",
]

RECORDS = "records"
"""The name of no format: Python values."""

COPY_TEXT = "postgresql-copy-text"
"""PostgreSQL's COPY in its text form, in UTF-8, ISO dates and intervals of the style `postgres`: `CopyText`."""


POSTGRESQL_ARROW = "postgresql-arrow"
"""Arrow tables as ADBC's driver for PostgreSQL makes them: `ArrowRows`."""


@attrs.frozen(kw_only=True)
class Format:
    """A form of records.

    Attributes:
        name: Which one, such as `"postgresql-copy-text"`.
        columns: Names of the columns, in the order in which records hold them.
        types: The type of each column in the words of the source: `"bigint"`, `"timestamp with time zone"`.
    """

    name: str
    columns: tuple[str, ...]
    types: tuple[str, ...]


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
