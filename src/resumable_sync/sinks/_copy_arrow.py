"""The text that PostgreSQL's COPY writes, as Arrow arrays, without making Python values of it."""

import codecs
import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from resumable_sync._arrow.columns import decimals_of, pyarrow
from resumable_sync._formats import COPY_TEXT, POSTGRESQL_ARROW, CopyText, Format
from resumable_sync.sinks._arrow_schema import MOST_DIGITS

__all__ = ["Convert", "CopyReader", "reads"]

_INTEGERS = frozenset({"int16", "int32", "int64"})
_NUMBERS = frozenset({"decimal128", "decimal256"})
# The types whose text means the same, in a column of such an Arrow type, as the Python value does.
_TYPES: dict[str, Collection[str]] = {
    **dict.fromkeys(("smallint", "integer", "bigint"), _INTEGERS),
    **dict.fromkeys(("real", "double precision"), ("double",)),
    "numeric": _NUMBERS,
    "boolean": ("bool",),
    **dict.fromkeys(("text", "character varying", "character", "uuid", "json", "jsonb"), ("string",)),
    "bytea": ("binary",),
    "timestamp without time zone": ("timestamp[us]",),
    "timestamp with time zone": ("timestamp[us, tz=UTC]",),
    "date": ("date32[day]",),
    "time without time zone": ("time64[us]",),
}
_NULL = "\\N"
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_OCTAL = re.compile(rb"\\(\\|[0-7]{3})")

Convert = Callable[[Any, Sequence[Any]], Any]


def reads(format_: Format, schema: Any, documents: Collection[str]) -> bool:
    """Whether what is written is the same as with Python values.

    Args:
        format_: The form.
        schema: That of the files.
        documents: Names of the columns of JSON.
    """
    if format_.name not in (COPY_TEXT, POSTGRESQL_ARROW) or set(format_.columns) != set(schema.names):
        return False
    # Of 32 bits, 0.1 is a text of PostgreSQL's and Python's, and no longer 0.1 in the 64 bits that Arrow makes of them.
    if format_.name == POSTGRESQL_ARROW and "real" in format_.types:
        return False
    kinds = {name: str(schema.field(name).type).partition("(")[0] for name in format_.columns}
    return all(
        kinds[name] in _TYPES.get(kind, ()) and (kind in ("json", "jsonb")) == (name in documents)
        for name, kind in zip(format_.columns, format_.types, strict=True)
    )


class CopyReader:
    """Makes arrays of COPY's text.

    Args:
        names: Names of the columns, in the order of the text.
        fields: The columns of the files.
        convert: Makes an array for a column of a file of what its text holds, one value after the other.
        documents: Names of the columns of JSON.
    """

    def __init__(self, names: Sequence[str], fields: Any, convert: Convert, documents: Collection[str]) -> None:
        self._names = list(names)
        self._fields = {field.name: field for field in fields}
        self._convert = convert
        self._documents = documents

    def arrays(self, records: CopyText) -> dict[str, Any]:
        """Give the values of a batch by column.

        Raises:
            ValueError: If one does not fit.
        """
        pa = pyarrow()
        # As the columns' types, which nearly always goes well and is told fast; else as text, to find the column.
        try:
            wanted = {name: self._read_as(field.type) for name, field in self._fields.items()}
            table = _parsed(records, wanted, self._names)
        except pa.ArrowException:
            table = _parsed(records, dict.fromkeys(self._names, pa.string()), self._names)
        if table.num_rows != len(records):
            msg = f"COPY's text has {table.num_rows} rows, and {len(records)} were counted; read with fast_path=False"
            raise ValueError(msg)
        plain = records.data.count(b"\\") == records.data.count(_NULL.encode())
        return {name: self._array(self._fields[name], table[name], plain=plain) for name in self._names}

    def _read_as(self, kind: Any) -> Any:
        types = pyarrow().types
        if types.is_decimal(kind):
            # What has room for all digits, since Arrow does not see when it runs out of them.
            roomy = types.is_decimal128(kind) and kind.precision + kind.scale <= MOST_DIGITS
            return kind if roomy else pyarrow().string()
        return pyarrow().string() if types.is_binary(kind) else kind

    def _array(self, field: Any, column: Any, *, plain: bool) -> Any:
        pa = pyarrow()
        kind = field.type
        if column.type == kind and not pa.types.is_string(kind):
            if pa.types.is_decimal(kind) and not _fits(column, kind):
                return self._convert(field, column.cast(pa.string()).to_pylist())
            return column
        if pa.types.is_string(kind) and field.name not in self._documents:
            return column if plain or not _has_backslash(column) else _unescaped(column)
        if pa.types.is_decimal(kind) and (numbers := decimals_of(column, kind)) is not None:
            return numbers
        try:
            values = [_value(kind, text) for text in _unescaped(column).to_pylist()]
        except ValueError:
            values = None
        if values is None:
            # Without the value, which stands in the error's text.
            raise ValueError(f"column {field.name!r} holds a text that is no {kind}; read it with fast_path=False")
        return self._convert(field, values)


def _parsed(records: CopyText, types: Mapping[str, Any], names: Sequence[str]) -> Any:
    from pyarrow import csv  # noqa: PLC0415 - an optional package

    data = records.data
    if data.startswith(codecs.BOM_UTF8):
        data = codecs.BOM_UTF8 + data  # the parser skips one, and this is the first character of a value
    return csv.read_csv(
        pyarrow().BufferReader(data),
        read_options=csv.ReadOptions(column_names=names, block_size=len(data) + 1),
        # Line breaks and tabs in values are escaped, and nothing else is what it would be in CSV.
        parse_options=csv.ParseOptions(
            delimiter="\t", quote_char=False, double_quote=False, escape_char=False, ignore_empty_lines=False
        ),
        convert_options=csv.ConvertOptions(
            column_types=types,
            null_values=[_NULL],
            strings_can_be_null=True,
            true_values=["t"],
            false_values=["f"],
        ),
    )


def _fits(column: Any, kind: Any) -> bool:
    """Whether all values have no more digits than their type says, which the parser does not see to."""
    import pyarrow.compute as pc  # noqa: PLC0415 - an optional package

    ends = pc.min_max(column).as_py()
    bound = 10 ** (kind.precision - kind.scale)
    return all(end is None or -bound < end < bound for end in ends.values())


def _has_backslash(column: Any) -> bool:
    import pyarrow.compute as pc  # noqa: PLC0415 - an optional package

    return bool(pc.any(pc.match_substring(column, "\\")).as_py())


def _unescaped(column: Any) -> Any:
    texts = [
        text if text is None or "\\" not in text else _ESCAPED.sub(lambda found: _ESCAPES.get(found[1], found[1]), text)
        for text in column.to_pylist()
    ]
    return pyarrow().array(texts, pyarrow().string())


def _value(kind: Any, text: str | None) -> Any:
    """Give what the driver would have given; for times and decimals, and what is none, the text."""
    if text is None:
        return None
    types = pyarrow().types
    makes: list[tuple[Callable[[Any], bool], Callable[[str], Any]]] = [
        (types.is_integer, int),
        (types.is_floating, float),
        (types.is_boolean, "t".__eq__),
        (types.is_binary, _bytes),
        (types.is_string, json.loads),
    ]
    return next((make(text) for is_kind, make in makes if is_kind(kind)), text)


def _bytes(text: str) -> bytes:
    if text.startswith("\\x"):
        return bytes.fromhex(text[2:])
    # Of a database with the setting bytea_output = 'escape'.
    return _OCTAL.sub(lambda found: b"\\" if found[1] == b"\\" else bytes([int(found[1], 8)]), text.encode())
