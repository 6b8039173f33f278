"""What ADBC's driver for PostgreSQL gives, as Arrow arrays of the types that files have."""

import datetime as dt
import json
from collections.abc import Collection
from typing import Any
from uuid import UUID

from resumable_sync._formats import ArrowRows
from resumable_sync.sinks._arrow_schema import pyarrow
from resumable_sync.sinks._copy_arrow import Convert, decimals_of

__all__ = ["AdbcReader"]

_UUID_BYTES = 16


class AdbcReader:
    """Makes arrays of the driver's.

    Args:
        fields: The columns of the files.
        convert: Makes an array for a column of a file of Python values.
        documents: Names of the columns of JSON.
    """

    def __init__(self, fields: Any, convert: Convert, documents: Collection[str]) -> None:
        self._fields = fields
        self._convert = convert
        self._documents = documents

    def arrays(self, records: ArrowRows) -> dict[str, Any]:
        """Give the values of a batch by column.

        Raises:
            ValueError: If one does not fit.
        """
        return {field.name: self._array(field, _stored(records.table[field.name])) for field in self._fields}

    def _array(self, field: Any, column: Any) -> Any:
        types, kind = pyarrow().types, field.type
        if types.is_decimal(kind):
            numbers = decimals_of(column, kind)
            return self._convert(field, column.to_pylist()) if numbers is None else numbers
        if types.is_string(kind) and types.is_fixed_size_binary(column.type):
            return pyarrow().array(_uuids(column), kind)
        if field.name in self._documents:
            return self._convert(field, [None if text is None else json.loads(text) for text in column.to_pylist()])
        if types.is_temporal(kind):
            _check_times(field, column)
        if column.type == kind:
            return column
        try:
            return column.cast(kind)
        except pyarrow().ArrowException:
            pass
        return self._convert(field, column.to_pylist())


def _stored(column: Any) -> Any:
    """Give what an extension type is made of."""
    pa = pyarrow()
    if not isinstance(column.type, pa.BaseExtensionType):
        return column
    return pa.chunked_array([chunk.storage for chunk in column.chunks], column.type.storage_type)


def _uuids(column: Any) -> list[str | None]:
    return [None if value is None else str(UUID(bytes=value)) for value in column.to_pylist()]


def _check_times(field: Any, column: Any) -> None:
    """See to it that there are only times that Python has, too; an infinity comes as any other.

    Raises:
        ValueError: If there is another one.
    """
    import pyarrow.compute as pc  # noqa: PLC0415 - an optional package

    pa = pyarrow()
    if pa.types.is_time(column.type):
        return
    first, last = dt.datetime(1, 1, 1, tzinfo=dt.UTC), dt.datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=dt.UTC)
    naive = pa.timestamp("us") if pa.types.is_timestamp(column.type) else column.type
    bounds = [pa.scalar(each.replace(tzinfo=None), naive).cast(column.type) for each in (first, last)]
    ends = pc.min_max(column)
    if ends["min"].is_valid and (pc.less(ends["min"], bounds[0]).as_py() or pc.greater(ends["max"], bounds[1]).as_py()):
        msg = f"column {field.name!r} holds times that Python has not (infinity, before year 1); leave them out"
        raise ValueError(msg)
