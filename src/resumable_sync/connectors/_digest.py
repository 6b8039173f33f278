"""Checksums of rows, computed by the database: a sum of hashes, which no order of rows changes.

They are computed over the text of every column, with its length or in quotes, so that no two different rows have the
same; and they come with every setting that such texts depend on. Where a text does not tell all digits, there is none.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import ColumnElement, FromClause, Select
from sqlalchemy.dialects import mysql
from sqlalchemy.engine import Dialect

from resumable_sync._ranges import ColumnKind
from resumable_sync.connectors._statements import is_mysql

__all__ = ["digest_of", "digest_select", "digests_by"]

_POSTGRES_SINCE = (12,)
"""Before it a text of a float could tell fewer digits than the value has."""

_POSTGRES_SETTINGS = (
    "current_setting('server_encoding') || current_setting('DateStyle') || current_setting('IntervalStyle') || "
    "current_setting('TimeZone') || current_setting('bytea_output') || current_setting('lc_monetary') || "
    "current_setting('xmlbinary')"
)
_MYSQL_SETTINGS = "CONCAT(@@session.time_zone, ' ', @@system_time_zone, ' ', @@session.sql_mode)"


def digests_by(dialect: Dialect, kinds: Mapping[str, ColumnKind]) -> str | None:
    """Say how a database computes checksums of such columns; None if it does not."""
    if dialect.name == "postgresql" and (dialect.server_version_info or ()) >= _POSTGRES_SINCE:
        return "postgresql row text, hashtextextended"
    # FLOAT is made text of six digits, which would hide a difference.
    if is_mysql(dialect) and all(kind.name not in ("single", "other") for kind in kinds.values()):
        return f"{'mariadb' if getattr(dialect, 'is_mariadb', False) else 'mysql'} column texts, md5"
    return None


def digest_select(
    dialect: Dialect,
    selectable: FromClause,
    columns: Sequence[ColumnElement[Any]],
    kinds: Sequence[ColumnKind],
    condition: ColumnElement[bool],
) -> Select[Any]:
    """Give the statement that counts rows and sums up their hashes, for `digest_of` to read."""
    chosen: list[Any]
    if dialect.name == "postgresql":
        text = sa.collate(sa.cast(sa.func.row(*columns), sa.Text), "C")
        hashes = sa.func.sum(sa.func.hashtextextended(text, sa.literal_column("0")))
        count = sa.func.count()
        settings = [_POSTGRES_SETTINGS, "current_setting('extra_float_digits')"]
        chosen = [count, count, sa.cast(hashes, sa.Text), *map(sa.literal_column, settings)]
        return sa.select(*chosen).select_from(selectable).where(condition)
    texts = [_mysql_text(column, kind) for column, kind in zip(columns, kinds, strict=True)]
    rows = sa.select(sa.func.md5(sa.func.concat(*texts)).label("h")).select_from(selectable).where(condition).subquery()
    number = sa.cast(sa.func.conv(sa.func.left(rows.c.h, 16), 16, 10), mysql.BIGINT(unsigned=True))
    chosen = [
        sa.func.count(),
        sa.func.count(rows.c.h),  # a row too long for one packet has no hash
        sa.cast(sa.func.sum(number), sa.CHAR),
        *map(sa.literal_column, (_MYSQL_SETTINGS, "1")),
    ]
    return sa.select(*chosen).select_from(rows)


def _mysql_text(column: ColumnElement[Any], kind: ColumnKind) -> ColumnElement[Any]:
    # Without SQLAlchemy's ideas of what may be done with the column's type.
    bare: ColumnElement[Any] = sa.type_coerce(column, sa.types.NullType())
    plain = bare
    if kind.name in ("text", "char", "jsontext", "unknown"):
        plain = sa.func.convert(bare.op("USING")(sa.literal_column("utf8mb4")))
    value = sa.cast(plain, sa.BINARY)
    text = sa.func.concat(sa.func.length(value), sa.literal_column("':'"), value)
    return sa.func.if_(bare.is_(None), sa.literal_column("'-'"), text)


def digest_of(row: Sequence[Any]) -> tuple[int, str] | None:
    """Give count and checksum of what `digest_select` selects; None if they tell too little."""
    count, hashed, checksum, settings, float_digits = row
    if count != hashed or int(float_digits) < 1:
        return None
    return int(count), f"{checksum} {settings}"
