"""What ADBC's drivers give, as tables of the same exact types page after page, or not at all.

PostgreSQL's driver gives numbers of type numeric as their text and UUIDs as bytes; SQLite's takes the types of a page
from its values, makes text of a number beside a text, and a double of a whole number beside a fraction.
"""

import datetime as dt
from collections.abc import Callable, Collection, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

import attrs
import sqlalchemy as sa

from resumable_sync._arrow.columns import decimals_of, pyarrow, stored, uuid_texts
from resumable_sync._errors import ConfigurationError
from resumable_sync._python_values import FINER, check_times

__all__ = ["Exact", "given_types", "postgresql_types", "sqlite_types"]

MOST_DIGITS, FREE_SCALE = 38, 18
"""Digits of a decimal128, and decimals of a number that is declared without any: with 20 digits before the point."""

_BIGGEST_WHOLE = 2.0**53
"""Up to it every whole number is a double, so that one which was made a double is the same one."""

_TEXTS = {"text", "integer"}
"""What SQLite's driver makes texts of without a loss; it cuts fractions beside a text to seven digits."""

_PG_TYPE, _PG_MOD = b"POSTGRESQL:type", b"POSTGRESQL:typmod"

Convert = Callable[[str, Any], Any]
"""Makes of a column what it shall be, by its name; raises `ValueError` for a value that does not fit."""


@attrs.frozen(kw_only=True)
class Exact:
    """How a column of the driver's becomes one of a page.

    Attributes:
        kind: The Arrow type that it gets.
        convert: Makes it that.
        storage: Of SQLite: the storage classes that values may have, where the driver's type does not tell; else None.
        document: Whether it holds JSON.
    """

    kind: Any
    convert: Convert
    storage: Collection[str] | None = None
    document: bool = False

    def of(self, name: str, column: Any) -> Any:
        """Give the column of a page.

        Raises:
            ValueError: If a value does not fit; without the value.
        """
        if column.null_count == len(column):
            return pyarrow().nulls(len(column), self.kind)
        return self.convert(name, column)


def given_types(schema: Any) -> dict[str, Exact]:
    """Give the columns of a driver that tells the types of its database, as they are."""
    return {field.name: Exact(kind=stored_type(field.type), convert=_stored) for field in schema}


def stored_type(kind: Any) -> Any:
    """Give what an extension type is made of."""
    return kind.storage_type if isinstance(kind, pyarrow().BaseExtensionType) else kind


def postgresql_types(schema: Any) -> dict[str, Exact]:
    """Give the columns of PostgreSQL's driver.

    Raises:
        ConfigurationError: If it gives one only in a form that nobody else reads.
    """
    return {field.name: _postgresql(field) for field in schema}


def _postgresql(field: Any) -> Exact:
    pa, kind = pyarrow(), field.type
    facts: Mapping[bytes, bytes] = field.metadata or {}
    declared = facts.get(_PG_TYPE, b"").decode("utf-8", "replace")
    plain = stored_type(kind)
    if declared == "numeric":
        number = _numeric(int(facts.get(_PG_MOD, b"-1")))
        return Exact(kind=number, convert=_decimal(number))
    if declared == "uuid":
        return Exact(kind=pa.string(), convert=lambda _, column: pa.array(uuid_texts(stored(column)), pa.string()))
    if pa.types.is_temporal(kind) and not pa.types.is_interval(kind):
        return Exact(kind=kind, convert=_times)
    if declared == "interval":
        return Exact(kind=pa.duration("us"), convert=_durations)
    if pa.types.is_list(kind):
        return _postgresql_list(field)
    # Of 32 bits, though they have no sign (oid); of cents or of other units (money).
    vague = declared == "money" or (pa.types.is_int32(plain) and declared != "int4")
    if vague or (_is_bytes(plain) and declared != "bytea"):
        raise ConfigurationError(
            f"column {field.name!r} is of PostgreSQL's type {declared or kind}, which ADBC's driver does not give in a "
            "form that others read; read a query with it cast to text, or use SQLConnector"
        )
    return Exact(kind=plain, convert=_stored, document=declared in ("json", "jsonb"))


def _is_bytes(kind: Any) -> bool:
    types = pyarrow().types
    return bool(types.is_binary(kind) or types.is_fixed_size_binary(kind))


def _postgresql_list(field: Any) -> Exact:
    pa = pyarrow()
    inner = field.type.value_field
    declared = (field.metadata or {}).get(_PG_TYPE, b"").decode("utf-8", "replace")
    item = _postgresql(pa.field(field.name, inner.type, metadata={_PG_TYPE: declared.removeprefix("_")}))
    if item.kind == inner.type and item.convert is not _times:
        return Exact(kind=field.type, convert=_same)
    kind = pa.list_(item.kind)

    def convert(name: str, column: Any) -> Any:
        whole = column.combine_chunks()
        whole = whole.chunk(0) if isinstance(whole, pa.ChunkedArray) else whole
        values = item.of(name, pa.chunked_array([whole.flatten()]))
        values = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
        offsets = pa.array([0, *_running(whole)], pa.int32())
        return pa.ListArray.from_arrays(offsets, values, mask=whole.is_null()).cast(kind)

    return Exact(kind=kind, convert=convert)


def _running(lists: Any) -> list[int]:
    import pyarrow.compute as pc  # noqa: PLC0415 - an optional package

    ends: list[int] = pc.cumulative_sum(pc.fill_null(pc.list_value_length(lists), 0)).to_pylist()
    return ends


def _numeric(modifier: int) -> Any:
    pa = pyarrow()
    if modifier < 0:
        return pa.decimal128(MOST_DIGITS, FREE_SCALE)
    precision, scale = (modifier - 4) >> 16 & 0xFFFF, (modifier - 4) & 0x7FF
    # PostgreSQL has scales below zero, and larger than the precision.
    scale = scale - 0x800 if scale & 0x400 else scale
    return _room(max(precision, scale, precision - scale), max(scale, 0))


def _room(digits: int, decimals: int) -> Any:
    pa = pyarrow()
    if digits <= MOST_DIGITS:
        return pa.decimal128(max(digits, 1), decimals)
    return pa.decimal256(digits, decimals) if digits <= 2 * MOST_DIGITS else pa.decimal256(2 * MOST_DIGITS, MOST_DIGITS)


def sqlite_types(columns: Mapping[str, sa.types.TypeEngine[Any]], found: Any) -> dict[str, Exact]:
    """Give the columns of SQLite's driver.

    Args:
        columns: The declared types; NullType where none is known.
        found: The schema of the first rows, which decides there; a column of nothing but NULL counts as text.
    """
    return {name: _sqlite(kind, found.field(name).type) for name, kind in columns.items()}


def _sqlite(declared: Any, found: Any) -> Exact:
    pa = pyarrow()
    if isinstance(declared, sa.types.NullType):
        storage = {"string": {"text"}, "binary": {"blob"}}.get(str(found))
        return Exact(kind=found, convert=_only(found), storage=storage)
    if isinstance(declared, sa.JSON):
        return Exact(kind=pa.string(), convert=_text, storage=_TEXTS, document=True)
    if isinstance(declared, sa.Numeric) and not isinstance(declared, sa.Float):
        number = pa.decimal128(MOST_DIGITS, FREE_SCALE)
        if declared.precision is not None:
            number = _room(max(declared.precision, declared.scale or 0), declared.scale or 0)
        return Exact(kind=number, convert=_decimal(number), storage=_TEXTS)
    for kinds, kind, convert in (
        (sa.Boolean, pa.bool_(), _boolean),
        (sa.Integer, pa.int64(), _only(pa.int64())),
        (sa.Float, pa.float64(), _float),
        (sa.DateTime, pa.timestamp("us"), _parsed(pa.timestamp("us"), _moment)),
        (sa.Date, pa.date32(), _parsed(pa.date32(), dt.date.fromisoformat)),
        (sa.Time, pa.time64("us"), _parsed(pa.time64("us"), _time_of_day)),
    ):
        if isinstance(declared, kinds):
            return Exact(kind=kind, convert=convert)
    if isinstance(declared, sa.LargeBinary):
        return Exact(kind=pa.binary(), convert=_only(pa.binary()), storage={"blob"})
    return Exact(kind=pa.string(), convert=_text)


def _same(_name: str, column: Any) -> Any:
    return column


def _stored(_name: str, column: Any) -> Any:
    return stored(column)


def _only(kind: Any) -> Convert:
    """Give what takes columns of one type alone; of doubles only those that no whole number was made one of."""

    def convert(name: str, column: Any) -> Any:
        if column.type != kind:
            raise _misfit(name, column.type)
        if pyarrow().types.is_floating(kind):
            _check_merged(name, column)
        return column

    return convert


def _misfit(name: str, kind: object) -> ValueError:
    return ValueError(
        f"column {name!r} holds values that ADBC's driver gives as {kind}, with others or with another type than the "
        "column has; CAST them to one type in a query, or use SQLConnector"
    )


def _text(name: str, column: Any) -> Any:
    types = pyarrow().types
    if types.is_string(column.type):
        return column
    if types.is_int64(column.type):
        return column.cast(pyarrow().string())
    raise _misfit(name, column.type)


def _float(name: str, column: Any) -> Any:
    if not pyarrow().types.is_floating(column.type) and not pyarrow().types.is_int64(column.type):
        raise _misfit(name, column.type)
    column = column.cast(pyarrow().float64(), safe=False)
    _check_merged(name, column)
    return column


def _check_merged(name: str, column: Any) -> None:
    """See to it that no whole number became another one when the driver made a double of it.

    Raises:
        ValueError: If that may be.
    """
    import pyarrow.compute as pc  # noqa: PLC0415 - an optional package

    large = pc.and_(pc.greater_equal(pc.abs(column), _BIGGEST_WHOLE), pc.is_finite(column))
    if pc.any(large).as_py():
        raise ValueError(
            f"column {name!r} holds numbers of 2**53 and more beside fractions, and ADBC's driver makes doubles of "
            "both; CAST them to text in a query, or use SQLConnector"
        )


def _boolean(name: str, column: Any) -> Any:
    import pyarrow.compute as pc  # noqa: PLC0415 - an optional package

    if not pyarrow().types.is_int64(column.type) or pc.any(pc.not_equal(pc.bit_wise_or(column, 1), 1)).as_py():
        raise _misfit(name, column.type)
    return pc.equal(column, 1)


def _decimal(kind: Any) -> Convert:
    """Give what makes decimals: of texts, whole numbers, and doubles, which are what their shortest text says."""
    pa = pyarrow()

    def convert(name: str, column: Any) -> Any:
        column = stored(column)
        if pa.types.is_floating(column.type):
            _check_merged(name, column)
            texts: Any = pa.chunked_array([pa.array(map(_repr, column.to_pylist()), pa.string())])
        elif pa.types.is_integer(column.type) or pa.types.is_string(column.type):
            texts = column.cast(pa.string())
        else:
            raise _misfit(name, column.type)
        numbers = decimals_of(texts, kind)
        if numbers is not None:
            return numbers
        try:
            return pa.array([None if text is None else Decimal(text) for text in texts.to_pylist()], kind)
        except (pa.ArrowException, InvalidOperation, ValueError, TypeError):
            pass
        raise ValueError(
            f"column {name!r} holds a number that does not fit {kind}, or none (NaN); CAST it to text in a query"
        )

    return convert


def _repr(value: float | None) -> str | None:
    return None if value is None else repr(value)


def _times(name: str, column: Any) -> Any:
    check_times(name, column)
    return column


def _durations(name: str, column: Any) -> Any:
    values = column.to_pylist()
    if any(value is not None and value.months for value in values):
        raise ValueError(
            f"column {name!r} holds an interval of months, whose length nobody can tell; CAST it to text in a query"
        )
    return pyarrow().array([None if one is None else _microseconds(one) for one in values], pyarrow().duration("us"))


def _microseconds(value: Any) -> int:
    return int(value.days) * 86_400_000_000 + int(value.nanoseconds) // 1_000


def _parsed(kind: Any, parse: Callable[[str], Any]) -> Convert:
    """Give what reads times that are kept as text."""
    import pyarrow.compute as pc  # noqa: PLC0415 - an optional package

    pa = pyarrow()

    def convert(name: str, column: Any) -> Any:
        if not pa.types.is_string(column.type) or not _look_like_times(column, kind):
            raise _misfit(name, column.type)
        try:
            return column.cast(kind)
        except pa.ArrowException:
            pass
        if pc.any(pc.match_substring_regex(column, FINER)).as_py():
            raise ValueError(f"column {name!r} holds a time of more than six decimals; CAST it to text in a query")
        try:
            return pa.array([None if text is None else parse(text) for text in column.to_pylist()], kind)
        except (pa.ArrowException, ValueError, OverflowError):
            pass
        raise ValueError(f"column {name!r} holds a text that is no {kind}; CAST it in a query, or use SQLConnector")

    return convert


def _look_like_times(column: Any, kind: Any) -> bool:
    """Whether texts are none that the driver made of numbers, since 20260131 can be read as a date, too."""
    import pyarrow.compute as pc  # noqa: PLC0415 - an optional package

    sign, place = (":", 2) if pyarrow().types.is_time(kind) else ("-", 4)
    return bool(pc.all(pc.equal(pc.utf8_slice_codeunits(column, place, place + 1), sign)).as_py())


def _moment(text: str) -> dt.datetime:
    found = dt.datetime.fromisoformat(text)
    return found if found.tzinfo is None else found.astimezone(dt.UTC).replace(tzinfo=None)


def _time_of_day(text: str) -> dt.time:
    found = dt.time.fromisoformat(text)
    if found.tzinfo is not None:
        raise ValueError(text)
    return found
