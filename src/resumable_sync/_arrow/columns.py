"""What the adapters that work with Arrow share: its columns as types of SQLAlchemy, and exact values of its drivers."""

import contextlib
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from resumable_sync._errors import MissingExtraError
from resumable_sync._protocols import Column

__all__ = ["columns_of", "decimals_of", "pyarrow", "stored", "uuid_texts"]

_SMALL, _MIDDLE = 16, 32
_DIGITS_OF_64_BITS = 20


def pyarrow() -> Any:
    """Give the package.

    Raises:
        MissingExtraError: If it is not installed.
    """
    try:
        import pyarrow as pa  # noqa: PLC0415 - the registry may look at adapters without it
    except ModuleNotFoundError:
        package, extra = "pyarrow", "parquet"
        raise MissingExtraError(package, extra) from None
    return pa


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


def decimals_of(column: Any, kind: Any) -> Any:
    """Give the decimals that texts stand for; None if Arrow cannot, or would lose the first digits of too many."""
    import pyarrow.compute as pc  # noqa: PLC0415 - an optional package

    point = pc.find_substring(column, ".")
    whole = pc.max(pc.if_else(pc.less(point, 0), pc.binary_length(column), point)).as_py()
    if pyarrow().types.is_decimal128(kind) and (whole is None or whole <= kind.precision - kind.scale):
        # What is no number, or has too many decimals, is told elsewhere, without the value.
        with contextlib.suppress(pyarrow().ArrowException):
            return column.cast(kind)
    return None


def stored(column: Any) -> Any:
    """Give what an extension type is made of."""
    pa = pyarrow()
    if not isinstance(column.type, pa.BaseExtensionType):
        return column
    return pa.chunked_array([chunk.storage for chunk in column.chunks], column.type.storage_type)


def uuid_texts(column: Any) -> list[str | None]:
    """Give the texts of UUIDs that are stored as their bytes."""
    return [None if value is None else str(UUID(bytes=value)) for value in column.to_pylist()]
