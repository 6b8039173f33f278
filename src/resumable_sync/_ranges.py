"""The ability of a connector to read ranges of a key, which `verify_full_sync` compares two sides by."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

import attrs

__all__ = ["ColumnKind", "Key", "KeyPage", "KeyRanges", "KeySpec", "RangeConnector"]

Key: TypeAlias = Sequence[Any]
"""One value for each column of a key."""

KeySpec: TypeAlias = str | Sequence[str | tuple[str, str]]
"""The columns of a key: `"id"`, `"-created_at"` (descending), `["region", ("at", "desc")]`."""


@attrs.frozen
class ColumnKind:
    """What a column holds, as far as it matters for comparing values of two databases.

    Attributes:
        name: `"boolean"`, `"integer"`, `"decimal"`, `"float"`, `"single"` (of 32 bits), `"text"`, `"char"` (padded with
            blanks), `"bytes"`, `"uuid"`, `"json"` (given decoded), `"jsontext"` (given as text), `"array"`,
            `"datetime"`, `"instant"` (with a time zone), `"date"`, `"time"`, `"timetz"`, `"interval"`, `"other"`, or
            `"unknown"`.
        digits: Digits after the point, or of a fraction of a second, that the column keeps; of a `"single"` the digits
            that are given. None: all.
        truncates: Whether further digits of a time are cut off instead of rounded.
    """

    name: str
    digits: int | None = None
    truncates: bool = False


@attrs.frozen
class KeyPage:
    """Rows in key order.

    Attributes:
        rows: Tuples of the chosen columns.
        last: The key of the last row, of the types of the cursor codec; None if there is no row.
    """

    rows: list[tuple[Any, ...]]
    last: Key | None


class KeyRanges(Protocol):
    """A source as seen by a key: which rows lie between two keys, which have these keys.

    Implementations must:

    - compare keys by the database alone, and take keys as any other connector gives them (a UUID or its text, say);
    - take a key that no row can have (NULL; text, where it is a number) for one that comes before every row;
    - hold nothing open between two calls, and leave the source as it is.

    Attributes:
        key: Name and direction (`"asc"` or `"desc"`) of each column of the key.
        kinds: What its columns hold, in the order of the rows.
        digests: How `digest` computes; two sides that say the same compute the same for equal rows in columns of the
            same kinds. None: not at all.
    """

    key: Sequence[tuple[str, str]]
    kinds: Mapping[str, ColumnKind]
    digests: str | None

    def only(self, columns: Sequence[str]) -> "KeyRanges":
        """Give the same with rows of these columns, in this order."""
        ...

    def check(self, *, unique: bool) -> None:
        """See to it that the key is never NULL, which no range holds, and unique where `unique` asks for it.

        Raises:
            ConfigurationError: If it is not.
        """
        ...

    def page(self, after: Key | None, upto: Key | None, limit: int | None) -> KeyPage:
        """Give the first rows after `after` and up to `upto` (None: without a bound), all of them or `limit`."""
        ...

    def key_at(self, after: Key | None, offset: int) -> Key | None:
        """Give the key of the row that is `offset` rows behind the first one after `after`; None if there is none."""
        ...

    def having(self, keys: Sequence[Key]) -> list[tuple[Any, ...]]:
        """Give the rows that have one of these keys; perhaps more, where the database takes other keys for equal."""
        ...

    def digest(self, after: Key | None, upto: Key | None) -> tuple[int, str] | None:
        """Have the database count the rows of a range, and compute a checksum that no order of rows changes.

        Returns:
            The count, and the checksum together with every setting that it depends on; None if it cannot be relied on.
        """
        ...


@runtime_checkable
class RangeConnector(Protocol):
    """A connector that can read ranges of a key: what `verify_full_sync` needs of its target."""

    def ranges(self, key: KeySpec | None = None) -> KeyRanges:
        """Look at the source by a key, which need not be unique; None: the connector's own.

        Raises:
            ConfigurationError: If there is no such key.
        """
        ...
