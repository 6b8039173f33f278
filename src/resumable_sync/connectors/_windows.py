"""Pages of a SQLite table as windows of it: two keys and a count, and the rows stay in the file."""

import contextlib
import sqlite3
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import ColumnElement, Connection, Dialect, Select
from sqlalchemy.exc import DBAPIError

from resumable_sync._database import sqlite_path
from resumable_sync._errors import TransientError
from resumable_sync._formats import SQLITE_WINDOW, WINDOW_SCHEMA, Format, SQLiteWindow
from resumable_sync.connectors._keyset import Side, after_key, equals_key, key_order, up_to_key
from resumable_sync.connectors._plan import Key, KeysetPlan
from resumable_sync.connectors._source_engine import SourceEngine
from resumable_sync.connectors._split import Probes, Span
from resumable_sync.connectors._statements import Statement, compile_statement

__all__ = ["WindowPages", "window_format"]

_TRIES = 5
_AFTER, _UPTO = "resumable_sync_after_{}", "resumable_sync_upto_{}"
_TABLE = "SELECT rootpage FROM main.sqlite_master WHERE type = 'table' AND name = ? COLLATE NOCASE"


def window_format(database: SourceEngine, connection: Connection, plan: KeysetPlan) -> Format | None:
    """Give the format of a source; None if another connection might not read the same from its file.

    Args:
        database: The source's engine.
        connection: To the source.
        plan: How it is read.
    """
    url, table = database.engine.url, plan.source.selectable
    path = sqlite_path(url) if database.as_driven and not url.query else None
    if path is None or not isinstance(table, sa.TableClause) or table.schema not in (None, "main"):
        return None
    if len(plan.places) < len(plan.key):
        return None
    # A view may see another table there, and a virtual table may be one of a module that is not loaded.
    found = connection.exec_driver_sql(_TABLE, (table.name,)).first()
    if found is None or not found[0]:
        return None
    statements = _Statements(plan, table.name, database.engine.dialect)
    if not _readable(path, statements):
        return None
    return Format(
        name=SQLITE_WINDOW,
        columns=plan.columns,
        types=tuple(str(column.type) for column in plan.source.columns.values()),
        file=str(path),
        filled=_filled(plan),
    )


def _filled(plan: KeysetPlan) -> frozenset[str]:
    # No comparison holds for NULL, so that a key of one column has none in any page.
    key = {part.name for part in plan.key} if len(plan.key) == 1 else set()
    return frozenset(key | {name for name in plan.columns if not plan.source.nullable.get(name, True)})


def _readable(path: Path, statements: "_Statements") -> bool:
    """Whether a connection that knows nothing of ours, of UTF-8, can read the file without writing to it."""
    try:
        with contextlib.closing(sqlite3.connect(":memory:", uri=True)) as own:
            own.execute(f"ATTACH ? AS {WINDOW_SCHEMA}", (_uri(path),))
            for statement in (*statements.first, *statements.next):
                own.execute(f"EXPLAIN {statement.text}", [None] * len(statement.names or ())).fetchall()
            own.execute(f"PRAGMA {WINDOW_SCHEMA}.schema_version").fetchall()
    except sqlite3.Error:
        return False
    return True


def _uri(path: Path) -> str:
    return f"{path.as_uri()}?mode=ro"


class _Statements:
    """The statements of windows, on the file under the name that it is attached by."""

    def __init__(self, plan: KeysetPlan, name: str, dialect: Dialect) -> None:
        table = sa.table(name, *(sa.column(column) for column in plan.columns), schema=WINDOW_SCHEMA)
        sides = [Side(table.c[part.name], part.descending) for part in plan.key]
        self.after = [_AFTER.format(place) for place in range(len(sides))]
        self.upto = [_UPTO.format(place) for place in range(len(sides))]
        rows, count = sa.select(*table.c), sa.select(sa.func.count()).select_from(table)
        upto, after = up_to_key(sides, self.upto, rows=True), after_key(sides, self.after, rows=True)

        def compiled(select: Select[Any], *conditions: ColumnElement[bool]) -> Statement:
            return compile_statement(select.where(*conditions), dialect)

        # With the parameters of the one goes the other.
        ordered = rows.order_by(*key_order(sides))
        self.first = compiled(ordered, upto), compiled(count, upto)
        self.next = compiled(ordered, upto, after), compiled(count, upto, after)
        self.last = compiled(rows, equals_key(sides, self.upto))


class WindowPages:
    """Fetches pages as `SQLiteWindow`.

    Which rows there are is found out by the key alone, along its index. Until they are written others may come and go:
    whoever writes them looks whether they are still so many, and the last of them as it was.

    Args:
        database: The source's engine.
        plan: How it is read.
    """

    def __init__(self, database: SourceEngine, plan: KeysetPlan) -> None:
        path, table = sqlite_path(database.engine.url), plan.source.selectable
        assert path is not None  # noqa: S101 - `window_format` gave a format
        assert isinstance(table, sa.TableClause)  # noqa: S101
        self._plan = plan
        self._uri = _uri(path)
        self._probes = Probes(plan, database.engine)
        self._statements = _Statements(plan, table.name, database.engine.dialect)

    def fetch(
        self, connection: Connection, after: Key | None, upper: Key, limit: int
    ) -> tuple[SQLiteWindow, Key, str | None] | None:
        """Find the rows after `after` and up to `upper`, at most `limit`, with key and digest of the last one.

        Raises:
            TransientError: If they go faster than they can be counted.
        """
        span = Span(after, upper)
        for _ in range(_TRIES):
            rows, key = limit, self._probes.key_at(connection, span, limit - 1)
            if key is None:
                rows = min(self._probes.count(connection, span), limit)
                if rows == 0:
                    return None
                key = self._probes.key_at(connection, span, rows - 1)
            there, digest = self._digest(connection, key) if key is not None else (False, None)
            if key is not None and there:
                return self._window(after, key, rows, digest), key, digest
        msg = f"the rows of {self._plan.source.label} go faster than they can be counted"
        raise TransientError(msg)

    def _digest(self, connection: Connection, key: Key) -> tuple[bool, str | None]:
        """Say whether there is a row of a key, and give its digest; None if it holds text that is not UTF-8.

        Raises:
            OperationalError: If it cannot be read; in SQLAlchemy's form a DBAPIError.
            DBAPIError: See above.
        """
        try:
            digest = self._plan.anchor_at(connection, key)
        except (sqlite3.OperationalError, DBAPIError) as error:
            if "decode" not in str(error):
                raise
            return True, None
        return digest is not None, digest

    def _window(self, after: Key | None, key: Key, rows: int, digest: str | None) -> SQLiteWindow:
        statements = self._statements
        upto = dict(zip(statements.upto, key, strict=True))
        values = upto if after is None else {**upto, **dict(zip(statements.after, after, strict=True))}
        rows_between, count = statements.first if after is None else statements.next
        return SQLiteWindow(
            uri=self._uri,
            select=rows_between.text,
            counted=count.text,
            parameters=rows_between.parameters(values),
            last=statements.last.text,
            last_parameters=statements.last.parameters(upto),
            digest=digest,
            rows=rows,
        )
