"""Keyset paging as expressions: which rows follow a key, in which order. Pure: nothing here talks to a database."""

from collections.abc import Sequence
from typing import Any

import attrs
from sqlalchemy import ColumnElement, and_, bindparam, cast, or_, tuple_, type_coerce
from sqlalchemy.sql import operators
from sqlalchemy.types import NullType, UserDefinedType
from typing_extensions import override

from resumable_sync._errors import ConfigurationError

__all__ = ["KeyPart", "KeySpec", "Side", "after_key", "equals_key", "key_order", "parse_key", "up_to_key"]

KeySpec = str | Sequence[str | tuple[str, str]]


@attrs.frozen
class KeyPart:
    """One column of a key.

    Attributes:
        name: Name of the column.
        descending: Whether the order is from large to small.
    """

    name: str
    descending: bool = False

    @override
    def __str__(self) -> str:
        return f"-{self.name}" if self.descending else self.name


@attrs.frozen
class Side:
    """A column of a key in a statement.

    Attributes:
        column: The column's expression.
        descending: Whether the order is from large to small.
        cast: Name of the database type that its values are cast to, or None.
    """

    column: ColumnElement[Any]
    descending: bool = False
    cast: str | None = None

    @property
    def bare(self) -> ColumnElement[Any]:
        """The column without SQLAlchemy's ideas of how its type is compared."""
        return type_coerce(self.column, NullType())

    def value(self, name: str) -> ColumnElement[Any]:
        """Give the parameter of that name, cast to the column's type."""
        parameter = bindparam(name, None, type_=NullType())
        return parameter if self.cast is None else type_coerce(cast(parameter, _Named(self.cast)), NullType())

    def follows(self, name: str) -> ColumnElement[bool]:
        """Give the condition that the column comes after the parameter in its own order."""
        compare: Any = operators.lt if self.descending else operators.gt
        condition: ColumnElement[bool] = compare(self.bare, self.value(name))
        return condition

    def reached(self, name: str) -> ColumnElement[bool]:
        """Give the condition that the column comes after the parameter, or equals it."""
        compare: Any = operators.le if self.descending else operators.ge
        condition: ColumnElement[bool] = compare(self.bare, self.value(name))
        return condition

    def reversed(self) -> "Side":
        """Give the same column in the opposite order."""
        return attrs.evolve(self, descending=not self.descending)


class _Named(UserDefinedType[Any]):
    """A database type by its name."""

    cache_ok = True

    def __init__(self, name: str) -> None:
        self.name = name

    @override
    def get_col_spec(self, **_: Any) -> str:
        return self.name


def parse_key(key: KeySpec) -> tuple[KeyPart, ...]:
    """Read a key as the caller writes it: `"id"`, `"-created_at"`, `("a", "b")`, `[("a", "desc"), "b"]`.

    Raises:
        ConfigurationError: If it is none of these forms, empty, or names a column twice.
    """
    items: Any = (key,) if isinstance(key, str) else key
    if not isinstance(items, list | tuple) or not items:
        raise ConfigurationError(_bad_key(key))
    parts = tuple(_parse_part(item, key) for item in items)
    if len({part.name for part in parts}) < len(parts):
        msg = f"the key {key!r} names a column twice; name each once"
        raise ConfigurationError(msg)
    return parts


def _parse_part(item: Any, key: KeySpec) -> KeyPart:
    if isinstance(item, str) and item.strip("-"):
        return KeyPart(item.removeprefix("-"), descending=item.startswith("-"))
    if isinstance(item, tuple | list) and len(item) == 2 and all(isinstance(word, str) for word in item):  # noqa: PLR2004
        name, direction = item
        if name and direction.lower() in {"asc", "desc"}:
            return KeyPart(name, descending=direction.lower() == "desc")
    raise ConfigurationError(_bad_key(key))


def _bad_key(key: object) -> str:
    return (
        f"the key {key!r} cannot be read; write key='id', key='-created_at' for descending order, "
        "or key=['a', ('b', 'desc')] for several columns"
    )


def after_key(sides: Sequence[Side], names: Sequence[str], *, rows: bool) -> ColumnElement[bool]:
    """Give the condition that a row comes after a key.

    Args:
        sides: The columns of the key.
        names: Names of the parameters, one for each.
        rows: Whether the database plans `(a, b) > (x, y)` well. Else, and where directions differ, it is
            `a > x OR (a = x AND b > y)`, with `a >= x` beside it: redundant, but an index can be entered by it.
    """
    if len(sides) == 1:
        return sides[0].follows(names[0])
    if rows and len({side.descending for side in sides}) == 1:
        compare = operators.lt if sides[0].descending else operators.gt
        return _row_comparison(compare, sides, names)
    return and_(sides[0].reached(names[0]), _expanded(sides, names, last_included=False))


def up_to_key(sides: Sequence[Side], names: Sequence[str], *, rows: bool) -> ColumnElement[bool]:
    """Give the condition that a row comes before a key or has it; arguments as for `after_key`."""
    opposite = [side.reversed() for side in sides]
    if len(sides) == 1:
        return opposite[0].reached(names[0])
    if rows and len({side.descending for side in sides}) == 1:
        compare = operators.ge if sides[0].descending else operators.le
        return _row_comparison(compare, sides, names)
    return and_(opposite[0].reached(names[0]), _expanded(opposite, names, last_included=True))


def equals_key(sides: Sequence[Side], names: Sequence[str]) -> ColumnElement[bool]:
    """Give the condition that a row has a key."""
    return and_(*(operators.eq(side.bare, side.value(name)) for side, name in zip(sides, names, strict=True)))


def key_order(sides: Sequence[Side]) -> list[ColumnElement[Any]]:
    """Give the terms of ORDER BY."""
    return [side.column.desc() if side.descending else side.column.asc() for side in sides]


def _row_comparison(compare: Any, sides: Sequence[Side], names: Sequence[str]) -> ColumnElement[bool]:
    columns = tuple_(*(side.bare for side in sides))
    condition: ColumnElement[bool] = compare(
        columns, tuple_(*(side.value(name) for side, name in zip(sides, names, strict=True)))
    )
    return condition


def _expanded(sides: Sequence[Side], names: Sequence[str], *, last_included: bool) -> ColumnElement[bool]:
    side, name = sides[0], names[0]
    if len(sides) == 1:
        return side.reached(name) if last_included else side.follows(name)
    rest = _expanded(sides[1:], names[1:], last_included=last_included)
    return or_(side.follows(name), and_(operators.eq(side.bare, side.value(name)), rest))
