"""Replacing a table on MySQL and MariaDB, where every DDL statement commits."""

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import attrs
from sqlalchemy import Connection, TextClause, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from resumable_sync._database import LOCK_TIMEOUT
from resumable_sync._errors import ConfigurationError, LeaseLostError, StoreError
from resumable_sync._model import Job
from resumable_sync.sinks._registry import Registry, Staging, run_id_of, staging_name
from resumable_sync.sinks._staging import Make, Place, drop_table, dropped, find, refuse_unknown
from resumable_sync.sinks._swap import altered
from resumable_sync.sinks._target import quote, verbatim

__all__ = ["MySQLReplacement"]

_NO_SUCH_TABLE = 1146
MAX_RACES = 10

# Where the server tells names apart by case, information_schema does not by itself.
_SAME = "(BINARY {0} = BINARY :name OR (@@lower_case_table_names <> 0 AND {0} = :name))"
_TABLES = text(f"""
    SELECT t.table_type, t.engine, e.transactions
    FROM information_schema.tables t LEFT JOIN information_schema.engines e ON e.engine = t.engine
    WHERE t.table_schema = COALESCE(:schema, DATABASE()) AND t.table_name = :name AND {_SAME.format("t.table_name")}
""")  # noqa: S608 - a constant
_FOREIGN_KEYS = text(f"""
    SELECT r.constraint_name, r.table_name FROM information_schema.referential_constraints r
    WHERE (r.constraint_schema = COALESCE(:schema, DATABASE()) AND {_SAME.format("r.table_name")})
        OR (r.unique_constraint_schema = COALESCE(:schema, DATABASE()) AND {_SAME.format("r.referenced_table_name")})
    ORDER BY r.constraint_name
""")  # noqa: S608 - a constant
_TRIGGERS = text(f"""
    SELECT g.trigger_name FROM information_schema.triggers g
    WHERE g.event_object_schema = COALESCE(:schema, DATABASE()) AND {_SAME.format("g.event_object_table")}
    ORDER BY g.trigger_name
""")  # noqa: S608 - a constant

T = TypeVar("T")


class _OvertakenError(Exception):
    """A table was renamed by another attempt between the look and the deed."""


@attrs.frozen
class MySQLReplacement:
    """Replaces a target by an atomic RENAME TABLE that may be done again after a death at any point.

    It works on a connection of its own, since DDL would commit the caller's transaction.

    - The name of a staging table ends with the fencing token of the attempt that fills it. An attempt that takes over
      renames it to a name of its own, so the statements of a zombie, its swap too, find no table. Without `url=` a
      zombie at the end of its run may still swap before its successor has begun: the rows are whole, and the successor
      sees that it was done.
    - `RENAME TABLE target TO ..._old, staging TO target` happens whole or not. That there is an `..._old` is what shows
      that it happened, until the register says so; only then it is dropped. Where there was no target, an empty table
      takes the part of the old one.
    - The register names every table before it is made. It may name one that is not there, never the other way round.
    - Triggers and foreign keys are seen as far as the role may see them.

    Args:
        target: Name of the target.
        schema: Its schema, as the user named it.
    """

    target: str
    schema: str | None

    def begin(self, connection: Connection, job: Job, token: int, make: Make) -> Place:
        """Make the staging table of a run that is new, or take over that of one that is not.

        Raises:
            ConfigurationError: If the target cannot be replaced, or a table stands in the way.
            LeaseLostError: If a newer attempt was here.
            StoreError: If the staging table of a run with progress is gone.
        """
        return self._work(connection, lambda tables: tables.begin(job, token, make))

    def complete(self, connection: Connection, job: Job, token: int) -> None:
        """Put the staging table into the target's place, unless that was done.

        Args:
            connection: To the target's database.
            job: The job.
            token: What `begin` was given.

        Raises:
            ConfigurationError: If the target cannot be replaced any more.
            LeaseLostError: If a newer attempt was here.
            StoreError: If the staging table is gone.
        """
        self._work(connection, lambda tables: tables.complete(job, token))

    def _work(self, connection: Connection, work: Callable[["_Tables"], T]) -> T:
        with connection.engine.connect() as own:
            # What others have done meanwhile is seen.
            own = own.execution_options(isolation_level="READ COMMITTED")  # noqa: PLW2901 - the same one
            tables = _Tables(own, self.target, self.schema)
            with _Bounded(own):
                for _ in range(MAX_RACES):
                    try:
                        return work(tables)
                    except _OvertakenError:
                        own.rollback()
        msg = f"the staging table of {self.target!r} was renamed again and again by other attempts; see who does that"
        raise StoreError(msg)


class _Bounded:
    """Bounds the waits for locks of an engine of the caller's, until the block ends.

    By default RENAME waits a day for the transaction of a reader, and every other reader waits behind it.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._seconds = int(connection.exec_driver_sql("SELECT @@SESSION.lock_wait_timeout").scalar_one())

    def __enter__(self) -> None:
        self._set(min(self._seconds, LOCK_TIMEOUT))

    def __exit__(self, *_: object) -> None:
        with suppress(SQLAlchemyError):  # a broken one is not used again
            self._set(self._seconds)

    def _set(self, seconds: int) -> None:
        if self._seconds > LOCK_TIMEOUT:
            self._connection.exec_driver_sql(f"SET SESSION lock_wait_timeout = {seconds}")


@attrs.frozen
class _Tables:
    """The tables around one target, and what is done to them."""

    connection: Connection
    target: str
    schema: str | None

    @property
    def _registry(self) -> Registry:
        return Registry(self.connection, self.schema)

    def begin(self, job: Job, token: int, make: Make) -> Place:
        self._registry.create()
        known = self._known(job, token)
        current = self._settle(job, known) if job.has_progress else None
        if current is None or current.state == "loading":
            _check(self.connection, self.target, self.schema)
        kept = None if current is None else self._take_over(current, job, token)
        for staging in known:
            if kept is None or staging.name != kept.name:
                self._drop(staging)
        if kept is not None and kept.state == "swapped":
            return Place(self.target, self.schema, staged=False)
        kept = kept or self._start(job, token, make)
        return Place(kept.name, self.schema, staged=True)

    def _known(self, job: Job, token: int) -> Sequence[Staging]:
        known = self._registry.of(job.id, self.target)
        self.connection.commit()
        if any(staging.token > token for staging in known):
            raise LeaseLostError(job.id, token)
        return known

    def _start(self, job: Job, token: int, make: Make) -> Staging:
        staging = self._own(job, token)
        self._note(staging)
        if self._exists(self.target):
            self._execute(f"CREATE TABLE {self._quoted(staging.name)} LIKE {self._quoted(self.target)}")
        else:
            make(self.connection, self.schema, staging.name)
            self.connection.commit()
        if not self._registry.knows(staging.name):
            # A newer attempt found nothing of that name, and forgot it.
            drop_table(self.connection, self.schema, staging.name)
            raise LeaseLostError(job.id, token)
        return staging

    def _take_over(self, current: Staging, job: Job, token: int) -> Staging:
        """Rename a staging table to a name of this attempt's own, which no earlier one knows."""
        own = self._own(job, token)
        if current.state == "swapped" or current.name == own.name:
            return current
        self._note(own)
        self._rename((current.name, own.name))
        return own

    def _settle(self, job: Job, known: Sequence[Staging]) -> Staging:
        """Find out what there is of a run, and finish a swap that was cut short.

        Returns:
            The staging table that is there, or the one that became the target.

        Raises:
            StoreError: If there is neither.
            _OvertakenError: If another attempt was at it meanwhile.
        """
        found = find(known, job, self.target)
        if found.state == "swapped":
            self._finish(found)
            return found
        of_run = [staging for staging in known if staging.run_id == run_id_of(job)]
        for staging in of_run:
            if self._exists(staging.name):
                self._restore(staging)
                return staging
        for staging in of_run:
            if self._exists(_old(staging)):
                self._finish(staging)
                return attrs.evolve(staging, state="swapped")
        # Somebody else may have been at it while we looked: what he did is in the register by now.
        again = self._registry.of(job.id, self.target)
        self.connection.commit()
        if again != known:
            raise _OvertakenError
        raise StoreError(dropped(job.id, self.target, found.name))

    def complete(self, job: Job, token: int) -> None:
        known = self._known(job, token)
        current = self._settle(job, known)
        if current.state == "swapped":
            return
        _check(self.connection, self.target, self.schema)
        if self._exists(self.target):
            self._check_shape(current)
            self._keep_counting(current)
            self._rename((self.target, _old(current)), (current.name, self.target))
        else:
            self._execute(f"CREATE TABLE IF NOT EXISTS {self._quoted(_new(current))} LIKE {self._quoted(current.name)}")
            self._rename((_new(current), _old(current)), (current.name, self.target))
        self._finish(current)

    def _finish(self, staging: Staging) -> None:
        """Note that a table is the target now, and drop the one that was."""
        self._registry.swapped(staging)
        self.connection.commit()
        drop_table(self.connection, self.schema, _new(staging))
        if self._exists(self.target):
            drop_table(self.connection, self.schema, _old(staging))

    def _restore(self, staging: Staging) -> None:
        """Undo half a swap, which a server without atomic DDL may leave behind when it is killed."""
        if self._exists(_old(staging)) and not self._exists(self.target):
            self._rename((_old(staging), self.target))

    def _drop(self, staging: Staging) -> None:
        """Drop what is left of a run that will not go on; never a table that has become the target."""
        if staging.state == "loading":
            self._restore(staging)
            drop_table(self.connection, self.schema, staging.name)
            drop_table(self.connection, self.schema, _new(staging))
        if self._exists(self.target):
            drop_table(self.connection, self.schema, _old(staging))
        self._registry.remove(staging)
        self.connection.commit()

    def _own(self, job: Job, token: int) -> Staging:
        name = f"{staging_name(job, self.target)}_{token}"
        return Staging(name, self.target, job.id, run_id_of(job), token)

    def _note(self, staging: Staging) -> None:
        refuse_unknown(self._registry, staging.name)
        if not self._registry.knows(staging.name):
            self._registry.add(staging)
        self.connection.commit()

    def _rename(self, *pairs: tuple[str, str]) -> None:
        self._execute("RENAME TABLE " + ", ".join(f"{self._quoted(old)} TO {self._quoted(new)}" for old, new in pairs))

    def _keep_counting(self, staging: Staging) -> None:
        """Have AUTO_INCREMENT go on where the target stands: no number is given twice."""
        found = re.search(r"^\) .*?\bAUTO_INCREMENT=(\d+)", self._definition(self.target), re.MULTILINE)
        if found is not None:
            # A lower number than the rows need is raised to that.
            self._execute(f"ALTER TABLE {self._quoted(staging.name)} AUTO_INCREMENT = {found[1]}")

    def _check_shape(self, staging: Staging) -> None:
        """Refuse to undo what was done to the target's columns and indexes since the staging table was made.

        Raises:
            ConfigurationError: If something was.
        """
        loaded = set(_lines(self._definition(staging.name)))
        changed = [line for line in _lines(self._definition(self.target)) if line not in loaded]
        if changed:
            raise ConfigurationError(altered(self.target, changed, staging.name))

    def _definition(self, name: str) -> str:
        return str(self._execute(f"SHOW CREATE TABLE {self._quoted(name)}")[1])

    def _exists(self, name: str) -> bool:
        return bool(_select(self.connection, _TABLES, self.schema, name))

    def _quoted(self, name: str) -> str:
        return quote(self.connection, name, self.schema)

    def _execute(self, statement: str) -> Any:
        try:
            result = self.connection.exec_driver_sql(verbatim(self.connection, statement))
            row = result.first() if result.returns_rows else None
        except DBAPIError as error:
            if error.orig is not None and error.orig.args[:1] == (_NO_SUCH_TABLE,):
                raise _OvertakenError from error
            raise
        self.connection.commit()
        return row


def _old(staging: Staging) -> str:
    return f"{staging.name}_old"


def _new(staging: Staging) -> str:
    return f"{staging.name}_new"


def _select(connection: Connection, query: TextClause, schema: str | None, name: str) -> Sequence[Any]:
    return connection.execute(query, {"schema": schema, "name": name}).all()


def _lines(definition: str) -> list[str]:
    """Give columns and indexes of a SHOW CREATE TABLE; MySQL names the checks of every table anew."""
    lines = [line.strip().removesuffix(",") for line in definition.split("\n") if line.startswith("  ")]
    return [line for line in lines if not line.startswith("CONSTRAINT")]


def _check(connection: Connection, target: str, schema: str | None) -> None:
    """Refuse a target that cannot be replaced, or whose foreign keys or triggers would be lost; none is fine.

    Raises:
        ConfigurationError: If that is so.
    """
    found = _select(connection, _TABLES, schema, target)
    if not found:
        return
    kind, engine, transactions = found[0]
    if kind != "BASE TABLE":
        msg = f"{target!r} is no plain table ({kind}), and mode='replace' replaces tables; name the table behind it"
        raise ConfigurationError(f"{msg}, or another one")
    if transactions != "YES":
        msg = (
            f"the rows of table {target!r} would not commit together with their checkpoint, since its engine {engine} "
            "has no transactions; ALTER TABLE ... ENGINE=InnoDB first"
        )
        raise ConfigurationError(msg)
    keys = _select(connection, _FOREIGN_KEYS, schema, target)
    if keys:
        shown = ", ".join(f"{row[0]!r} of {row[1]!r}" for row in keys)
        msg = f"table {target!r} cannot be replaced without breaking the foreign keys {shown}; drop them"
        raise ConfigurationError(f"{msg} and add them again afterwards, or use mode='upsert'")
    triggers = _select(connection, _TRIGGERS, schema, target)
    if triggers:
        shown = ", ".join(repr(row[0]) for row in triggers)
        msg = f"table {target!r} would lose its triggers {shown} when it is replaced; drop them"
        raise ConfigurationError(f"{msg} and create them again afterwards, or use mode='upsert'")
