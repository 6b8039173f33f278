"""Batches as the Arrow columns that an ADBC driver takes into a table: each value exactly, or not at all.

PostgreSQL's driver writes COPY's binary form by the type of the array and not by that of the column: the bytes of a
whole number would become any float. So every column is made exactly what the table's has.
"""

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import Connection
from typing_extensions import override

from resumable_sync._arrow.columns import pyarrow
from resumable_sync._database import driver_cursor
from resumable_sync._errors import ConfigurationError
from resumable_sync._model import Batch
from resumable_sync._protocols import Column
from resumable_sync._python_values import python_times, python_values
from resumable_sync.sinks._arrow_table import Tables
from resumable_sync.sinks._kinds import affinity
from resumable_sync.sinks._table_sink import BatchWriter
from resumable_sync.sinks._target import Target, TargetColumn, verbatim
from resumable_sync.sinks._texts import json_text
from resumable_sync.sinks._values import exact_number
from resumable_sync.sinks._zombies import Zombies

__all__ = ["Ingest"]

MOST_DIGITS, FREE_SCALE = 38, 18
"""Digits of a decimal128, and decimals of a number that is declared without any."""

_PG_TYPE, _PG_MOD = b"POSTGRESQL:type", b"POSTGRESQL:typmod"
_PLAIN = {"int2", "int4", "int8", "float4", "float8", "bool", "text", "varchar", "bpchar", "name", "bytea", "date"}
_PLAIN |= {"timestamp", "timestamptz", "time"}

Make = Callable[[Any], Any]


class Ingest(BatchWriter):
    """Appends batches to a target by ADBC's ingestion.

    Args:
        connection: To the target's database.
        target: The target.
        columns: The connector's columns, where they are known.
        zombies: Those who may hold locks on the target.
    """

    def __init__(
        self,
        connection: Connection,
        target: Target,
        columns: Sequence[Column] | None,
        zombies: Zombies,
    ) -> None:
        self._target = target
        self._zombies = zombies
        self._names = None if columns is None else [column.name for column in columns]
        self._tables = Tables({}, f"table {target.name!r} holds", named=False)
        self._tables.prepare(columns or ())
        self._sqlite = connection.dialect.name == "sqlite"
        self._fields = {} if self._sqlite else {field.name: field for field in _schema_of(connection, target)}

    @override
    def write(self, connection: Connection, batch: Batch[Any]) -> None:
        names = self._columns_of(batch)
        if not len(batch):
            return
        if self._sqlite:
            table = self._tables.table(batch, None)
            made = {name: _for_sqlite(self._target.columns[name], table[name]) for name in names}
        else:
            fields = {name: self._field(name) for name in names}
            logical = pyarrow().schema([(name, field.kind(batch, name)) for name, field in fields.items()])
            table = self._tables.table(batch, logical)
            made = {name: field.make(table[name]) for name, field in fields.items()}
        if connection.dialect.name == "postgresql":
            mark = self._zombies.named(batch.job_id, batch.fencing_token)
            connection.exec_driver_sql("SELECT set_config('application_name', %(mark)s, true)", {"mark": mark}).all()
        with driver_cursor(connection) as cursor:
            name, schema = self._target.place
            cursor.ingest(name, pyarrow().table(made), schema)

    def _field(self, name: str) -> "_Field":
        try:
            return _Field(self._fields[name])
        except KeyError:
            msg = f"table {self._target.name!r} was changed while it is loaded: column {name!r} is new; run again"
            raise ConfigurationError(msg) from None

    def _columns_of(self, batch: Batch[Any]) -> list[str]:
        """Give the names of the columns of a batch.

        Raises:
            ConfigurationError: If the records are no rows, or the target lacks a column.
        """
        records: Any = batch.records
        if hasattr(records, "to_pylist"):
            names = list(records.schema.names)
        elif len(records) and all(isinstance(record, Mapping) for record in records):
            names = list(dict.fromkeys(name for record in records for name in record))
        else:
            names = list(batch.columns or self._names or ())
        unknown = [name for name in names if name not in self._target.columns]
        if unknown or (len(records) and not names):
            what = f"no column {', '.join(map(repr, unknown))}" if unknown else "columns, and the records tell none"
            msg = f"table {self._target.name!r} has {what}; the table has {', '.join(map(repr, self._target.columns))}"
            raise ConfigurationError(f"{msg}: give dicts, tuples with Page(columns=...) or Arrow data of those")
        return names


def _schema_of(connection: Connection, target: Target) -> Any:
    if connection.dialect.name != "postgresql":
        adbc: Any = connection.connection.driver_connection
        return adbc.table_schema(*target.place)
    with driver_cursor(connection) as cursor:
        nothing = verbatim(connection, f"SELECT * FROM {target.quoted} LIMIT 0")  # noqa: S608 - quoted
        return cursor.fetch_table(nothing, (), 1).schema


class _Field:
    """A column of a target: what values are made for it, and how these are handed to the driver."""

    def __init__(self, field: Any) -> None:
        self._field = field
        facts: Mapping[bytes, bytes] = field.metadata or {}
        self._declared = facts.get(_PG_TYPE, b"").decode("utf-8", "replace")
        self._modifier = int(facts.get(_PG_MOD, b"-1"))

    def kind(self, batch: Batch[Any], name: str) -> Any:  # noqa: PLR0911 - a return per kind
        """Give the type of Arrow that the values are made.

        Raises:
            ConfigurationError: If the driver does not write into such a column.
        """
        pa, kind = pyarrow(), self._field.type
        given: Any = batch.records
        source = given.schema.field(name).type if hasattr(given, "to_pylist") else None
        if self._declared in ("uuid", "json", "jsonb"):
            return pa.string()
        if self._declared == "numeric":
            if self._modifier < 0 and source is not None and pa.types.is_decimal(source):
                return source
            return pa.decimal128(MOST_DIGITS, FREE_SCALE) if self._modifier < 0 else _numeric(self._modifier)
        # The type of an enumeration is its name.
        if self._declared in _PLAIN or not self._declared or pa.types.is_string(kind):
            return kind
        if self._declared == "interval":
            return pa.duration("us")
        if self._declared.removeprefix("_") in _PLAIN:
            return kind
        if self._declared == "_numeric":
            return pa.list_(pa.decimal128(MOST_DIGITS, FREE_SCALE))
        msg = f"ADBC's driver does not write into column {self._field.name!r}, which is {self._declared}"
        raise ConfigurationError(f"{msg}: use SQLSink, or make it text")

    def make(self, column: Any) -> Any:
        """Give a column as the driver takes it.

        Raises:
            ValueError: If it holds a text that is no UUID.
        """
        pa = pyarrow()
        if self._declared == "jsonb":
            import pyarrow.compute as pc  # noqa: PLC0415 - an optional package

            # The version of its binary form.
            return pc.binary_join_element_wise(pa.scalar("\1"), column, pa.scalar(""))
        if self._declared == "uuid":
            try:
                values = [None if text is None else UUID(text).bytes for text in column.to_pylist()]
            except ValueError:
                values = None
            if values is None:
                raise ValueError(f"column {self._field.name!r} holds a text that is no UUID; make the column text")
            return pa.array(values, pa.binary(16))
        return column


def _numeric(modifier: int) -> Any:
    pa = pyarrow()
    precision, scale = (modifier - 4) >> 16 & 0xFFFF, (modifier - 4) & 0x7FF
    # PostgreSQL has scales below zero, and larger than the precision.
    scale = scale - 0x800 if scale & 0x400 else scale
    digits, decimals = max(precision, scale, precision - scale, 1), max(scale, 0)
    if digits <= MOST_DIGITS:
        return pa.decimal128(digits, decimals)
    return pa.decimal256(min(digits, 2 * MOST_DIGITS), min(decimals, MOST_DIGITS))


def _for_sqlite(target: TargetColumn, column: Any) -> Any:  # noqa: PLR0911 - a return per kind
    """Give a column as SQLite's driver takes it: whole numbers, doubles, texts and bytes, as `SQLSink` writes them.

    Raises:
        ValueError: If a value cannot be kept.
    """
    import pyarrow.compute as pc  # noqa: PLC0415 - an optional package

    pa = pyarrow()
    types, kind = pa.types, column.type
    if types.is_dictionary(kind):
        return _for_sqlite(target, column.cast(kind.value_type))
    if types.is_boolean(kind) or types.is_integer(kind):
        return _cast(target.name, column, pa.int64())
    if types.is_floating(kind):
        if pc.any(pc.is_nan(column)).as_py():
            msg = f"column {target.name!r} was given NaN, which SQLite stores as NULL; replace it"
            raise ValueError(msg)
        return column.cast(pa.float64())
    if types.is_decimal(kind):
        return _numbers(target, column)
    if types.is_timestamp(kind):
        naive = column.cast(pa.timestamp(kind.unit, "UTC")).cast(pa.timestamp(kind.unit)) if kind.tz else column
        return python_times(target.name, naive).cast(pa.string())
    if types.is_time(kind) or types.is_date(kind):
        return python_times(target.name, column).cast(pa.string())
    if types.is_duration(kind):
        return python_times(target.name, column).cast(pa.int64())
    if types.is_nested(kind):
        values = python_values(target.name, column)
        return pa.array([None if value is None else json_text(value) for value in values], pa.string())
    if types.is_null(kind) or types.is_string(kind) or types.is_large_string(kind):
        return column.cast(pa.string())
    return column.cast(pa.binary())


def _numbers(target: TargetColumn, column: Any) -> Any:
    pa = pyarrow()
    values: list[Decimal | None] = column.to_pylist()
    if affinity(target.declared) in ("TEXT", "BLOB"):
        return pa.array([None if value is None else str(value) for value in values], pa.string())
    try:
        numbers = [None if value is None else exact_number(value) for value in values]
    except ValueError as error:
        msg = f"column {target.name!r} {error}"
        raise ValueError(msg) from None
    whole = all(value is None or isinstance(value, int) for value in numbers)
    if not whole and any(isinstance(value, int) and abs(value) > 2**53 for value in numbers):
        msg = f"column {target.name!r} was given whole numbers beyond 2**53 beside fractions; declare the column TEXT"
        raise ValueError(msg)
    return pa.array(numbers, pa.int64() if whole else pa.float64())


def _cast(name: str, column: Any, kind: Any) -> Any:
    pa = pyarrow()
    try:
        return column.cast(kind)
    except pa.ArrowException:
        pass
    raise ValueError(f"column {name!r} holds a value that does not fit {kind}, as SQLite would keep it; convert it")
