"""Batches as Arrow tables: by column, each value exactly, or not at all.

What does not fit the type of its column raises `ValueError` with the column's name and without the value.
"""

import datetime as dt
import ipaddress
import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from decimal import Decimal
from typing import Any, TypeAlias
from uuid import UUID

from resumable_sync._arrow.cast import cast_exactly, family_of
from resumable_sync._arrow.columns import pyarrow
from resumable_sync._errors import ConfigurationError
from resumable_sync._formats import ArrowRows, CopyText, Format
from resumable_sync._model import Batch
from resumable_sync._protocols import Column
from resumable_sync._python_values import FINER
from resumable_sync.sinks._adbc_arrow import AdbcReader
from resumable_sync.sinks._arrow_schema import base_of, inferred, type_of
from resumable_sync.sinks._copy_arrow import CopyReader, reads
from resumable_sync.sinks._kinds import MisfitError, decodes_json, time_of_day
from resumable_sync.sinks._texts import json_text

__all__ = ["Tables"]

Converter: TypeAlias = Callable[[Any], Any]


class Tables:
    """Makes tables of one schema of batches.

    Args:
        types: Arrow types of columns, by name; they come before all others.
        target: What has the columns, in messages.
        named: Whether the user can name types.
    """

    def __init__(
        self, types: Mapping[str, Any], target: str = "the files of this run hold", *, named: bool = True
    ) -> None:
        self._types = types
        self._target = target
        self._named = named
        self._columns: dict[str, Column] = {}
        self._documents: Collection[str] = ()

    def prepare(self, columns: Sequence[Column]) -> None:
        """Take the source's columns."""
        self._columns = {column.name: column for column in columns}
        # There a text is a JSON string, and elsewhere the text of a document.
        self._documents = {column.name for column in columns if decodes_json(column.type)}

    def known_schema(self) -> Any:
        """Give the schema of the source's columns; None if one of them is unknown."""
        pa = pyarrow()
        types = {name: self._types.get(name, type_of(column)) for name, column in self._columns.items()}
        if not types or None in types.values():
            return None
        return pa.schema(list(types.items()))

    def table(self, batch: Batch[Any], schema: Any) -> Any:
        """Give a batch as a table.

        Args:
            batch: Dicts, tuples with column names, or Arrow data.
            schema: That of the run; None at its first batch, which decides.

        Raises:
            ConfigurationError: If the records are something else.
            ValueError: If they do not fit.
        """
        if isinstance(batch.records, CopyText):
            return self._from_copy_text(batch.records, batch.columns or (), schema or self.known_schema())
        if isinstance(batch.records, ArrowRows):
            return self._from_rows(batch.records, schema or self.known_schema())
        if hasattr(batch.records, "to_pylist"):
            return self._from_arrow(batch.records, schema)
        names, columns = _by_column(batch, list(self._columns) or None, None if schema is None else schema.names)
        return self._from_columns(names, columns, schema)

    def takes(self, format_: Format, schema: Any) -> bool:
        """Whether batches may come in a form.

        Args:
            format_: The form.
            schema: That of the run; None before its first batch.
        """
        schema = schema or self.known_schema()
        return schema is not None and reads(format_, schema, self._documents)

    def _from_copy_text(self, records: CopyText, names: Sequence[str], schema: Any) -> Any:
        arrays = CopyReader(names, schema, self._array, self._documents).arrays(records)
        return pyarrow().table([arrays[name] for name in schema.names], schema=schema)

    def _from_rows(self, records: ArrowRows, schema: Any) -> Any:
        arrays = AdbcReader(schema, self._array, self._documents).arrays(records)
        return pyarrow().table([arrays[name] for name in schema.names], schema=schema)

    def _from_columns(self, names: Sequence[str], columns: Sequence[Sequence[Any]], schema: Any) -> Any:
        pa = pyarrow()
        schema = schema or pa.schema([
            (name, self._type(name, values)) for name, values in zip(names, columns, strict=True)
        ])
        length = len(columns[0]) if columns else 0
        found = dict(zip(names, columns, strict=True))
        arrays = [self._array(field, found.get(field.name, [None] * length)) for field in schema]
        return pa.table(arrays, schema=schema)

    def _type(self, name: str, values: Sequence[Any]) -> Any:
        known = self._types.get(name)
        if known is None and name in self._columns:
            known = type_of(self._columns[name])
        return inferred(name, values) if known is None else known

    def _array(self, field: Any, values: Sequence[Any]) -> Any:
        pa = pyarrow()
        try:
            made = pa.array(self._converted(field, values), type=field.type)
            _check_room(made, values)
        except (pa.ArrowException, TypeError, ValueError, ArithmeticError, UnicodeError) as error:
            # Arrow's own text holds the value.
            own = type(error) is MisfitError
            what = str(error) if own else f"holds a value that does not fit {field.type}"
        else:
            return made
        or_name = f", or name a type in types={{{field.name!r}: ...}}" if self._named else ""
        raise ValueError(f"column {field.name!r} {what}; convert it before{or_name}")

    def _converted(self, field: Any, values: Sequence[Any]) -> Sequence[Any]:
        family = family_of(field.type)
        convert = _document if field.name in self._documents and family == "string" else None
        plain = frozenset() if _step_of(field.type) else _PLAIN.get(family)
        kinds = set(map(type, values)) - {type(None)}
        if plain is None or (convert is None and kinds <= plain):
            return values
        converters = {kind: convert or _converter(family, kind, field.type) for kind in kinds}
        converters[type(None)] = _same
        return [converters[type(value)](value) for value in values]

    def _from_arrow(self, records: Any, schema: Any) -> Any:
        pa = pyarrow()
        table = pa.Table.from_batches([records]) if isinstance(records, pa.RecordBatch) else records
        if len(set(table.schema.names)) < len(table.schema.names):
            msg = "the records have two columns of the same name; give them other names"
            raise ValueError(msg)
        schema = schema or pa.schema([
            (field.name, self._types.get(field.name, _decoded(field.type))) for field in table.schema
        ])
        _check_names(table.schema.names, schema.names)
        arrays = [
            self._cast(table.column(field.name), field)
            if field.name in table.schema.names
            else pa.nulls(len(table), field.type)
            for field in schema
        ]
        return pa.table(arrays, schema=schema)

    def _cast(self, values: Any, field: Any) -> Any:
        # Where a type of few digits was named, it was asked for.
        made = cast_exactly(values, field.type, rounds=field.name in self._types)
        if made is None:
            or_name = f", or name that in types={{{field.name!r}: ...}}" if self._named else ""
            msg = (
                f"column {field.name!r} holds {values.type} where {self._target} {field.type}, which not all values of "
                f"it fit; give it one type{or_name}"
            )
            raise ValueError(msg)
        return made


def _decoded(kind: Any) -> Any:
    return kind.value_type if pyarrow().types.is_dictionary(kind) else kind


def _by_column(
    batch: Batch[Any], known: Sequence[str] | None, fixed: Sequence[str] | None
) -> tuple[Sequence[str], Sequence[Sequence[Any]]]:
    """Give names and values of columns.

    Raises:
        ConfigurationError: If the records have no columns.
        ValueError: If they have not the same.
    """
    records = batch.records
    if records and all(isinstance(record, Mapping) for record in records):
        names = fixed or list(dict.fromkeys([*(known or ()), *(name for record in records for name in record)]))
        _check_names({name for record in records for name in record}, names)
        return names, [[record.get(name) for record in records] for name in names]
    given = batch.columns if batch.columns is not None else known
    others: Sequence[Any] = records
    if given is None or not all(isinstance(one, Sequence) and not isinstance(one, str | bytes) for one in others):
        msg = (
            f"job {batch.job_id!r}: a Parquet file takes dicts, tuples with column names, or Arrow data; give one of "
            "them, with the names in Page(columns=...)"
        )
        raise ConfigurationError(msg)
    _check_names(given, given if fixed is None else fixed)
    if len(set(given)) < len(given):
        msg = "the records have two columns of the same name; give them other names"
        raise ValueError(msg)
    if any(len(record) != len(given) for record in records):
        msg = f"a record has not {len(given)} values, as there are columns; give one for each"
        raise ValueError(msg)
    return given, list(zip(*records, strict=True))


def _check_names(names: Collection[Any], known: Collection[str]) -> None:
    """See to it that all columns have a place.

    Raises:
        ValueError: If not.
    """
    nameless = next((name for name in names if not isinstance(name, str)), None)
    if nameless is not None:
        msg = f"a record has a column whose name is a {type(nameless).__name__}; name columns by texts"
        raise ValueError(msg)
    other = set(names) - set(known)
    if other:
        name = min(map(str, other))
        msg = f"a record has the column {name!r}, which the files of this run lack; have the first batch hold it too"
        raise ValueError(msg)


def _same(value: Any) -> Any:
    return value


# Of exactly these types values go as they are. Times are looked at for their zone.
_PLAIN: dict[str, frozenset[type]] = {
    "bool": frozenset({bool}),
    "int": frozenset({int}),
    "float": frozenset({float, int}),
    "decimal": frozenset({Decimal, int}),
    "string": frozenset({str}),
    "bytes": frozenset({bytes, bytearray, memoryview}),
    "instant": frozenset(),
    "datetime": frozenset(),
    "date": frozenset({dt.date}),
    "time": frozenset(),
    "duration": frozenset({dt.timedelta}),
}


_STEPS = {"s": 1_000_000, "ms": 1_000}


def _step_of(arrow_type: Any) -> int | None:
    """Give how many microseconds are the shortest time that a type tells, if that is more than one."""
    return _STEPS.get(getattr(arrow_type, "unit", ""))


def _in_steps(convert: Converter, arrow_type: Any) -> Converter:
    """Give a converter that refuses what pyarrow would cut off of a time."""
    step = _step_of(arrow_type)
    if step is None:
        return convert

    def checked(value: Any) -> Any:
        moment = convert(value)
        if (moment.microseconds if isinstance(moment, dt.timedelta) else moment.microsecond) % step:
            raise MisfitError(f"was given a part of a second that {arrow_type} has no place for")
        return moment

    return checked


def _check_room(made: Any, values: Sequence[Any]) -> None:
    """See to it that no number has become an infinity, in a type of fewer bits than Python's.

    Raises:
        MisfitError: If one has.
    """
    types = pyarrow().types
    if not (types.is_float16(made.type) or types.is_float32(made.type)):
        return
    for number, value in zip(made.to_pylist(), values, strict=True):
        if number is not None and math.isinf(number) and not math.isinf(value):
            raise MisfitError(f"was given a number that {made.type} has no room for")


def _converter(family: str, kind: type, arrow_type: Any) -> Converter:
    base = base_of(kind)
    found = _CONVERTERS.get((family, base)) if base is not None else None
    if found is not None:
        return _in_steps(found, arrow_type)

    def refuse(_value: Any) -> Any:
        raise MisfitError(f"was given a {kind.__name__}, and is {arrow_type}")

    return refuse


def _document(value: Any) -> str:
    return json_text(value)


def _as_bool(value: int) -> bool:
    if value not in (0, 1):
        msg = "was given a number other than 0 and 1, and is bool"
        raise MisfitError(msg)
    return bool(value)


def _whole(value: Decimal) -> int:
    if not value.is_finite() or value != int(value):
        msg = "was given a number that is not whole"
        raise MisfitError(msg)
    return int(value)


def _exact(value: float | str) -> Decimal:
    # As it is written, not the nearest fraction of two.
    found = Decimal(str(value))
    if not found.is_finite():
        msg = "was given NaN or an infinity, which a decimal cannot be"
        raise MisfitError(msg)
    return found


def _aware(value: dt.datetime) -> dt.datetime:
    if value.tzinfo is None:
        msg = "was given a time without a zone, and has one"
        raise MisfitError(msg)
    return value


def _naive(value: dt.datetime) -> dt.datetime:
    if value.tzinfo is not None:
        msg = "was given a time with a zone, and has none"
        raise MisfitError(msg)
    return value


def _midnight(value: dt.datetime) -> dt.date:
    if value.tzinfo is not None or value.time() != dt.time():
        msg = "was given a time of a day, and is a date"
        raise MisfitError(msg)
    return value.date()


def _unzoned(value: dt.time) -> dt.time:
    if value.tzinfo is not None:
        msg = "was given a time of day with a zone, and has none"
        raise MisfitError(msg)
    return value


_FINER = re.compile(FINER)


def _of_six_decimals(text: str) -> str:
    if _FINER.search(text):
        msg = "was given a time of more than six decimals"
        raise MisfitError(msg)
    return text


def _iso(value: Any) -> str:
    return str(value.isoformat())


_CONVERTERS: dict[tuple[str, type], Converter] = {
    ("bool", bool): bool,
    ("bool", int): _as_bool,
    ("int", bool): int,
    ("int", int): int,
    ("int", Decimal): _whole,
    ("float", float): float,
    ("float", int): int,
    ("decimal", Decimal): _same,
    ("decimal", bool): int,
    ("decimal", int): int,
    # SQLite's numbers, which it keeps as what it likes.
    ("decimal", float): _exact,
    ("decimal", str): _exact,
    ("string", str): str.__str__,
    ("string", UUID): str,
    ("string", Decimal): str,
    ("string", bool): json_text,
    ("string", int): int.__str__,
    ("string", float): float.__str__,
    ("string", dt.datetime): _iso,
    ("string", dt.date): _iso,
    ("string", dt.time): _iso,
    ("string", ipaddress.IPv4Address): str,
    ("string", ipaddress.IPv4Network): str,
    ("string", dict): json_text,
    ("string", list): json_text,
    ("bytes", bytes): bytes,
    ("bytes", UUID): lambda value: value.bytes,
    ("instant", dt.datetime): _aware,
    ("instant", str): lambda value: _aware(dt.datetime.fromisoformat(_of_six_decimals(value))),
    ("datetime", dt.datetime): _naive,
    ("datetime", dt.date): lambda value: dt.datetime.combine(value, dt.time()),
    ("datetime", str): lambda value: _naive(dt.datetime.fromisoformat(_of_six_decimals(value))),
    ("date", dt.date): _same,
    ("date", dt.datetime): _midnight,
    ("date", str): dt.date.fromisoformat,
    ("time", dt.time): _unzoned,
    ("time", dt.timedelta): time_of_day,
    ("time", str): lambda value: _unzoned(dt.time.fromisoformat(_of_six_decimals(value))),
    ("duration", dt.timedelta): _same,
}
