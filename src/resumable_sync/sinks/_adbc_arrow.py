"""What ADBC's driver for PostgreSQL gives, as Arrow arrays of the types that files have."""

import json
from collections.abc import Collection
from typing import Any

from resumable_sync._arrow.columns import decimals_of, pyarrow, stored, uuid_texts
from resumable_sync._formats import ArrowRows
from resumable_sync._python_values import check_times
from resumable_sync.sinks._copy_arrow import Convert

__all__ = ["AdbcReader"]


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
        return {field.name: self._array(field, stored(records.table[field.name])) for field in self._fields}

    def _array(self, field: Any, column: Any) -> Any:
        types, kind = pyarrow().types, field.type
        if types.is_decimal(kind):
            numbers = decimals_of(column, kind)
            return self._convert(field, column.to_pylist()) if numbers is None else numbers
        if types.is_string(kind) and types.is_fixed_size_binary(column.type):
            return pyarrow().array(uuid_texts(column), kind)
        if field.name in self._documents:
            return self._convert(field, [None if text is None else json.loads(text) for text in column.to_pylist()])
        if types.is_temporal(kind):
            check_times(field.name, column)
        if column.type == kind:
            return column
        try:
            return column.cast(kind)
        except pyarrow().ArrowException:
            pass
        return self._convert(field, column.to_pylist())
