"""The columns of Arrow data, as types of SQLAlchemy."""

from typing import Any

import sqlalchemy as sa

from resumable_sync._protocols import Column

__all__ = ["columns_of"]

_SMALL, _MIDDLE = 16, 32
_DIGITS_OF_64_BITS = 20


def columns_of(schema: Any) -> list[Column]:
    """Give the columns of an Arrow schema.

    What SQL has no type for (lists, structs, maps) is JSON, as the sinks write it.
    """
    return [Column(name=field.name, type=_type(field.type), nullable=field.nullable) for field in schema]


def _type(kind: Any) -> Any:  # noqa: PLR0911 - a return per kind
    from pyarrow import types  # noqa: PLC0415 - only who has Arrow data has pyarrow

    if types.is_dictionary(kind):
        return _type(kind.value_type)
    if types.is_integer(kind):
        return _integer(kind, signed=types.is_signed_integer(kind))
    if types.is_floating(kind):
        return sa.Double() if kind.bit_width > _MIDDLE else sa.Float()
    if types.is_decimal(kind):
        return sa.Numeric(max(kind.precision, kind.scale), max(kind.scale, 0))
    if types.is_timestamp(kind):
        return sa.DateTime(timezone=kind.tz is not None)
    for is_kind, make in (
        (types.is_boolean, sa.Boolean),
        (types.is_date, sa.Date),
        (types.is_time, sa.Time),
        (types.is_duration, sa.Interval),
        (types.is_nested, sa.JSON),
        (_is_binary, sa.LargeBinary),
    ):
        if is_kind(kind):
            made: Any = make()
            return made
    return sa.Text()


def _is_binary(kind: Any) -> bool:
    from pyarrow import types  # noqa: PLC0415 - as above

    return bool(types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind))


def _integer(kind: Any, *, signed: bool) -> Any:
    # Half of the unsigned numbers do not fit into the signed type of the same width.
    width = kind.bit_width if signed else 2 * kind.bit_width
    if width <= _SMALL:
        return sa.SmallInteger()
    if width <= _MIDDLE:
        return sa.Integer()
    return sa.BigInteger() if width <= 2 * _MIDDLE else sa.Numeric(_DIGITS_OF_64_BITS, 0)
