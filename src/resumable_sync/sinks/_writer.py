"""Writing batches into a target that has been looked at."""

from collections.abc import Callable, Sequence
from typing import Any

import attrs
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from resumable_sync._database import is_mysql, run_bare
from resumable_sync._driver_rows import SQLITE_KINDS, DriverRows
from resumable_sync._errors import ConfigurationError
from resumable_sync._formats import COPY_TEXT, SQLITE_WINDOW, CopyText, Format, SQLiteWindow
from resumable_sync._model import Batch
from resumable_sync._protocols import Column
from resumable_sync.sinks._attach import Attaching, write_window
from resumable_sync.sinks._copy import Stage, copies, copy_statement, fits_copy_text, reads_copy_text, run_copy
from resumable_sync.sinks._kinds import decodes_json
from resumable_sync.sinks._records import tabulate
from resumable_sync.sinks._statements import conflict_clause, insert_statement
from resumable_sync.sinks._target import Target, quote
from resumable_sync.sinks._values import Rule, convert
from resumable_sync.sinks._zombies import Zombies

__all__ = ["Writer", "check_key"]

Rows = list[tuple[Any, ...]] | CopyText | SQLiteWindow
Run = Callable[[Connection, Rows, str], None]
"""Writes rows; the text is the mark of a COPY."""


@attrs.frozen
class _Plan:
    """How rows of certain columns are written."""

    rules: Sequence[Rule]
    key_places: Sequence[int]
    run: Run
    keeps: bool
    """Whether every value that SQLite's driver gives is written as it is."""


class Writer:
    """Writes batches into a target.

    Args:
        target: The target.
        key: Columns by which rows are replaced; none to add every row.
        source: The connector's columns, where they are known.
        zombies: Those who may hold locks on the target.
        connection: To the target.

    Raises:
        ConfigurationError: If the key or the source's columns do not fit the target.
    """

    def __init__(
        self,
        target: Target,
        key: Sequence[str],
        source: Sequence[Column] | None,
        zombies: Zombies,
        connection: Connection,
    ) -> None:
        mysql = is_mysql(connection.dialect)
        self.target = target
        self._dialect = connection.dialect
        self._reads_copy_text = reads_copy_text(connection)
        self._attaching = Attaching.of(connection)
        self._zombies = zombies
        self._key = tuple(key)
        self._source = source
        self._names = None if source is None else [column.name for column in source]
        self._plans: dict[tuple[str, ...], _Plan] = {}
        check_key(target, self._key, mysql=mysql)
        if self._names is not None:
            self._check(self._names, mysql=mysql)

    def rows(self, connection: Connection, batch: Batch[Any]) -> tuple[_Plan, Rows] | None:
        """Give the rows of a batch in the form of the target, and how they are written; None if there are none.

        Raises:
            ConfigurationError: If its columns do not fit the target.
            ValueError: If a value cannot be kept.
        """
        if isinstance(batch.records, CopyText | SQLiteWindow):
            return self._planned(connection, tuple(batch.columns or ())), batch.records
        columns, rows = tabulate(batch, self._names)
        if not rows:
            return None
        plan = self._planned(connection, columns)
        if not (plan.keeps and isinstance(rows, DriverRows)):
            rows = convert(rows, plan.rules)
        for place in plan.key_places:
            if any(row[place] is None for row in rows):
                msg = f"key column {columns[place]!r} was given None, which no unique index finds again"
                raise ValueError(msg)
        return plan, rows

    def takes(self, format_: Format) -> bool:
        """Whether batches may come in a format, and the same is written as with Python values."""
        if not set(format_.columns) <= set(self.target.columns):
            return False  # `write` says it
        # A key of NULL is refused, for which the values must be seen.
        if any(self.target.columns[name].nullable and name not in format_.filled for name in self._key):
            return False
        if format_.name == SQLITE_WINDOW:
            rules = self._rules(format_.columns)
            return self._attaching is not None and self._attaching.takes(format_.file or "") and _keep(rules)
        if format_.name != COPY_TEXT or not self._reads_copy_text or not (self._key or self.target.copyable):
            return False
        return fits_copy_text(format_, [self.target.columns[name] for name in format_.columns])

    def write(self, connection: Connection, batch: Batch[Any]) -> None:
        """Write a batch inside the connection's transaction.

        Raises:
            DBAPIError: If the database refuses it, or a lock was waited for too long.
        """
        prepared = self.rows(connection, batch)
        if prepared is None:
            return
        plan, rows = prepared
        of = batch.job_id, batch.fencing_token
        try:
            plan.run(connection, rows, self._zombies.mark(*of))
        except DBAPIError as error:
            self._zombies.end_if_blocking(error, connection, *of)
            raise

    def _check(self, columns: Sequence[str], *, mysql: bool) -> None:
        target = self.target
        unknown = [name for name in columns if name not in target.columns]
        if unknown:
            msg = (
                f"table {target.name!r} has no column {', '.join(map(repr, unknown))}; the records have "
                f"{', '.join(map(repr, columns))}, the table {', '.join(map(repr, target.columns))}; add the columns, "
                "or leave them out of the records"
            )
            raise ConfigurationError(msg)
        if len(set(columns)) != len(columns):
            msg = f"the records have a column twice: {', '.join(map(repr, columns))}; give each its own name"
            raise ConfigurationError(msg)
        missing = [name for name in self._key if name not in columns]
        if missing:
            msg = f"the records lack {', '.join(map(repr, missing))} of the key of table {target.name!r}; add them"
            raise ConfigurationError(msg)
        if mysql and self._key:
            for unique in target.unique:
                if set(unique) != set(self._key) and set(unique) <= set(columns):
                    raise ConfigurationError(_ambiguous(target, ", ".join(unique)))

    def _planned(self, connection: Connection, columns: tuple[str, ...]) -> _Plan:
        plan = self._plans.get(columns)
        if plan is None:
            self._check(columns, mysql=is_mysql(connection.dialect))
            plan = self._plans[columns] = self._plan(connection, columns)
        return plan

    def _plan(self, connection: Connection, columns: tuple[str, ...]) -> _Plan:
        rules = self._rules(columns)
        places = [columns.index(name) for name in self._key if self.target.columns[name].nullable]
        return _Plan(rules, places, self._runner(connection, columns), _keep(rules))

    def _rules(self, columns: Sequence[str]) -> list[Rule]:
        target, dialect = self.target, self._dialect
        encoding = {column.name for column in self._source or () if decodes_json(column.type)}
        return [Rule(target.columns[name], dialect, encodes_text=name in encoding, utc=target.utc) for name in columns]

    def _runner(self, connection: Connection, columns: tuple[str, ...]) -> Run:
        target = self.target
        if copies(connection) and self._key:
            return Stage(connection, target, columns, self._key).merge
        if copies(connection) and target.copyable:
            copy = copy_statement(connection, target.quoted, columns)
            return lambda to, rows, mark: run_copy(to, copy, rows, mark)
        statement = insert_statement(connection, target, columns, self._key)

        names = ", ".join(quote(connection, column) for column in columns)
        # Without its schema a table that is gone would be looked for in the window's file.
        into = f"INSERT INTO {target.qualified} ({names})"
        conflict = conflict_clause(connection, columns, self._key) if self._key else ""

        def insert(to: Connection, rows: Rows, _mark: str) -> None:
            if isinstance(rows, SQLiteWindow):
                write_window(to, rows, columns, into, conflict, counts=target.counted and not conflict)
                return
            run_bare(to, statement, rows, many=True)

        return insert


def _keep(rules: Sequence[Rule]) -> bool:
    """Whether all values that SQLite's driver gives are written as they are."""
    return all(rule.converter(kind) is None for rule in rules for kind in SQLITE_KINDS)


def check_key(target: Target, key: Sequence[str], *, mysql: bool) -> None:
    """See to it that rows can be replaced by a key; none is fine.

    Raises:
        ConfigurationError: If no unique index, or more than one, finds the row.
    """
    if not key:
        return
    unknown = [name for name in key if name not in target.columns]
    if unknown:
        msg = (
            f"table {target.name!r} has no key column {', '.join(map(repr, unknown))}; it has "
            f"{', '.join(map(repr, target.columns))}"
        )
        raise ConfigurationError(msg)
    if all(set(unique) != set(key) for unique in target.unique):
        msg = (
            f"table {target.name!r} has no primary key and no unique index on exactly ({', '.join(key)}), by which "
            "rows could be replaced; create one, or name the columns of one in key="
        )
        raise ConfigurationError(msg)
    if not mysql:
        return
    # ON DUPLICATE KEY UPDATE replaces the row that it meets by any unique index.
    if target.odd_unique:
        raise ConfigurationError(_ambiguous(target, target.odd_unique[0]))
    for unique in target.unique:
        counted = len(unique) == 1 and target.columns[unique[0]].generated
        if set(unique) != set(key) and not counted:
            raise ConfigurationError(_ambiguous(target, ", ".join(unique)))


def _ambiguous(target: Target, unique: str) -> str:
    return (
        f"table {target.name!r} has another unique index ({unique}), and MySQL and MariaDB would replace rows by that "
        "one too; drop it, make it the key=, or leave an auto-increment column out of the records"
    )
