"""Ends of parts of a large table of PostgreSQL, from a sample of its rows instead of a pass along the index.

The table is cut into stretches of equally many pages, and of one page in each stretch one row of so many is fetched by
its address, which costs nothing for the rows between. Where rows lie in the order of the key, each part gets its share
of stretches to within one; where they lie in no order, the sample is as good as any of rows.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import sqlalchemy as sa
from sqlalchemy import ColumnElement, Connection, Select, TextClause
from sqlalchemy.exc import DBAPIError

from resumable_sync.connectors._keyset import after_key, key_order, up_to_key
from resumable_sync.connectors._plan import Key, KeysetPlan
from resumable_sync.connectors._statements import Fetched, compile_statement

__all__ = ["sampled_ends"]

_OURS = "resumable_sync_"

_ROWS_PER_PART = 512
_PAGES_PER_PART = 256
_LEAST_FRACTION = 32
"""Where more than one row of so many would be sampled, the index is as quick to pass."""

_PROBED_PAGES = 64
_ROW_BYTES = 24
"""A row takes more, so a page has no more rows than that many times fit into it."""

# Leaves of a partitioned table, or the table itself. A row is found by its address where the table is stored as
# PostgreSQL itself does it, and not somewhere else. Of a table that others inherit from their pages are not known here.
_PAGES = """
WITH leaves AS (
    SELECT c.oid, c.relkind, c.relhassubclass, a.amname
    FROM pg_catalog.pg_class AS c LEFT JOIN pg_catalog.pg_am AS a ON a.oid = c.relam
    WHERE c.oid = CAST(%(name)s AS regclass)
        OR c.oid IN (SELECT relid FROM pg_catalog.pg_partition_tree(CAST(%(name)s AS regclass)) WHERE isleaf)
)
SELECT
    bool_and(amname = 'heap' AND relkind IN ('r', 'm') AND NOT relhassubclass),
    CAST(current_setting('block_size') AS bigint),
    max(pg_catalog.pg_relation_size(oid)),
    CAST(sum(pg_catalog.pg_relation_size(oid)) AS bigint)
FROM leaves WHERE relkind <> 'p'
"""

# The addresses of one page in each stretch, and of one row in each run of so many of that page. Which one a hash says:
# whatever repeats in the table does not repeat in step with the sample, and the same table has the same sample.
_ADDRESSES = """
ctid = ANY(ARRAY(
    SELECT CAST('(' || page || ',' || run + (pg_catalog.hashint8(page * 1000 + run) & 65535)
        * :resumable_sync_every / 65536 || ')' AS tid)
    FROM (
        SELECT number * :resumable_sync_stretch
            + (pg_catalog.hashint8(number) & 1048575) * :resumable_sync_stretch / 1048576 AS page
        FROM generate_series(0, :resumable_sync_stretches - 1) AS number
    ) AS pages, generate_series(1, :resumable_sync_rows, :resumable_sync_every) AS run
))
"""

# Of each run of so many rows the last one: where the number of the part changes behind it.
_IS_END = """
resumable_sync_total >= :resumable_sync_least AND resumable_sync_number < resumable_sync_total
AND resumable_sync_number * :resumable_sync_parts / resumable_sync_total
    > (resumable_sync_number - 1) * :resumable_sync_parts / resumable_sync_total
"""


# Also of a partition that is so small that reading it seems quicker.
_BY_ADDRESS = """
SELECT set_config('enable_tidscan', 'on', true), set_config('enable_seqscan', 'off', true),
    set_config('enable_bitmapscan', 'off', true), set_config('enable_indexscan', 'off', true),
    set_config('enable_indexonlyscan', 'off', true)
"""


@attrs.frozen
class _Storage:
    """Where the rows of a table lie.

    Attributes:
        rows: Most rows in a page.
        longest: Pages of its largest partition.
        pages: Pages of all.
    """

    rows: int
    longest: int
    pages: int

    def addresses(self, pages: int, every: int) -> dict[str, int]:
        """Give the parameters of `_ADDRESSES` for about so many pages, and every so many-th row of each."""
        stretch = max(1, self.pages // pages)
        return {
            "stretch": stretch,
            "stretches": -(-self.longest // stretch),
            "every": every,
            "rows": self.rows,
        }


def sampled_ends(
    connection: Connection, plan: KeysetPlan, after: Key | None, upto: Key, parts: int
) -> Sequence[Key] | None:
    """Give the last keys of all parts but the last, if a sample is worth it.

    Of a sample of n rows whose every k-th one ends a part, the share of a part is that between two order statistics
    k apart, whose distribution is Beta(k, n + 1 - k): mean k / n, and a standard deviation of 1 / sqrt(k) of that.
    With k = 512 it is 4.4 %, and 1.3 times the mean lies 6.8 of them away. Were all rows of a page neighbours in the
    key and the pages in no order, the 256 pages would count in place of the rows: 6.3 %, and 4.8 of them.

    Args:
        connection: To the source, in a transaction.
        plan: What is read, by which key.
        after: The key before the first row; None for the beginning of the source.
        upto: The last key.
        parts: Most parts, at least 1.

    Returns:
        Keys of rows, in order; None if the source is no table of PostgreSQL itself, or small.

    Raises:
        DBAPIError: If the connection broke.

    References:
        H. A. David, H. N. Nagaraja: Order Statistics. 3rd edition, Wiley, 2003, section 2.3, on the share between two
        of them.
    """
    if parts == 1 or not plan.source.is_table:
        return None
    try:
        savepoint = connection.begin_nested()
        try:
            connection.exec_driver_sql(_BY_ADDRESS)
            return _Sample(connection, plan, after, upto).ends(parts)
        finally:
            savepoint.rollback()  # of the settings
    except DBAPIError as error:  # rights for columns only, or a fork of the database that has no such addresses
        if error.connection_invalidated:
            raise
        return None


class _Sample:
    """The sample of one table."""

    def __init__(self, connection: Connection, plan: KeysetPlan, after: Key | None, upto: Key) -> None:
        self._connection, self._plan = connection, plan
        named = [("after", after), ("upto", upto)]
        self._values = {f"{_OURS}{side}_{at}": value for side, key in named for at, value in enumerate(key or ())}
        self._first = after is None

    def ends(self, parts: int) -> Sequence[Key] | None:
        """Give the last keys of all parts but the last; None if a sample is not worth it, or cannot be had."""
        storage = self._storage()
        if storage is None:
            return None
        wanted = parts * _ROWS_PER_PART
        few = storage.addresses(_PROBED_PAGES, 1)
        counted = self._run(self._rows(sa.func.count()), few)
        rows = int(counted.rows[0][0]) * few["stretch"] if counted is not None else 0
        if rows < wanted * _LEAST_FRACTION:
            return None
        # Of rows that are so wide that few fit into a page more pages are needed.
        many = storage.addresses(max(parts * _PAGES_PER_PART, wanted * storage.pages // rows), 1)
        many["every"] = max(1, rows // many["stretch"] // wanted)
        fetched = self._run(self._ends(), {**many, "parts": parts, "least": wanted // 2})
        if fetched is None or not fetched.rows:
            return None
        places = range(len(self._plan.sides))
        return [self._plan.codec.at(fetched, number, places) for number in range(len(fetched.rows))]

    def _storage(self) -> _Storage | None:
        table: Any = self._plan.source.selectable
        name = self._connection.dialect.identifier_preparer.format_table(table)
        known, page_bytes, longest, size = self._connection.exec_driver_sql(_PAGES, {"name": name}).one()
        if not known or not size:
            return None
        return _Storage(page_bytes // _ROW_BYTES, longest // page_bytes, size // page_bytes)

    def _rows(self, *columns: ColumnElement[Any]) -> Select[Any]:
        sides = self._plan.sides
        after, upto = ([f"{_OURS}{side}_{at}" for at in range(len(sides))] for side in ("after", "upto"))
        rows = sa.select(*columns).select_from(self._plan.source.selectable)
        rows = rows.where(_numbered(_ADDRESSES), up_to_key(sides, upto, rows=True))
        return rows if self._first else rows.where(after_key(sides, after, rows=True))

    def _ends(self) -> Select[Any]:
        """Select the last row of each part of the sample but the last, if that is large enough to tell."""
        sides = self._plan.sides
        keys = [side.column.label(f"{_OURS}key_{at}") for at, side in enumerate(sides)]
        number = sa.func.row_number().over(order_by=key_order(sides)).label(f"{_OURS}number")
        total = sa.func.count().over().label(f"{_OURS}total")
        rows = self._rows(*keys, number, total).subquery(f"{_OURS}sample")
        ends: Select[Any] = sa.select(*(rows.c[key.name] for key in keys))
        return ends.where(_numbered(_IS_END)).order_by(rows.c[number.name])

    def _run(self, select: Select[Any], values: Mapping[str, int]) -> Fetched | None:
        """Run a statement, if PostgreSQL would go to the addresses and not read everything."""
        statement = compile_statement(select, self._connection.dialect)
        given = {**self._values, **{f"{_OURS}{name}": value for name, value in values.items()}}
        explained = attrs.evolve(statement, text=f"EXPLAIN {statement.text}").run(self._connection, given).rows
        if any(" Seq Scan on " in line or " Index " in line for (line,) in explained):
            return None
        return statement.run(self._connection, given)


def _numbered(text: str) -> TextClause:
    """Give a condition whose parameters are numbers."""
    names = dict.fromkeys(re.findall(f":({_OURS}\\w+)", text))
    return sa.text(text).bindparams(*(sa.bindparam(name, None, type_=sa.BigInteger()) for name in names))
