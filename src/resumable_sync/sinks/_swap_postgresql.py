"""Replacing a table on PostgreSQL: a staging table takes on all that the target is, then its name.

Making the staging table and putting it in place use one comparison: the structure of both tables is taken apart, and
what the staging table lacks is made. So whatever somebody changes in the target while a run loads for days is carried
over too, or the swap says that it cannot.

What decides which rows are accepted is there from the start, the indexes too: the swap writes no row, and reads none
but for statistics and for a foreign key of the table onto itself, which can only hold when all rows are there. Triggers
are put on at the swap and see nothing of the load. Nobody but the owner may read the staging table.

One reader can still see less than a whole table, as after a TRUNCATE: a transaction of REPEATABLE READ or SERIALIZABLE
that began before the last batch was committed, and looks at the table for the first time after the swap. It finds the
new table, in which its snapshot shows only the earlier batches.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from typing_extensions import override

from resumable_sync._database import LOCK_TIMEOUT, scrub
from resumable_sync._errors import ConfigurationError, TransientError, describe_error
from resumable_sync.sinks._catalog_postgresql import (
    Piece,
    Table,
    find,
    grants,
    not_null_names,
    obstacles,
    pieces,
    trimmings,
)
from resumable_sync.sinks._rights_postgresql import follow_sequences, foreign_owner, grant_statements, hide, owner_of
from resumable_sync.sinks._structure_postgresql import interim, is_renamed, run, settle
from resumable_sync.sinks._swap import Swapper
from resumable_sync.sinks._target import quote

__all__ = ["PostgreSQLSwapper"]

LOCK_TRY = 2.0
"""Seconds to wait for a lock in one go: new readers wait behind, but an autovacuum gives way after one second only."""

POLITE_TRY = 0.02
"""The same where a table that the target refers to by a foreign key has to be locked too, as it is when the target is
dropped. Whoever reads both may hold one and wait for the other, and after one second the server would end one of them:
so all is given back and tried again, for half of the time."""

MAX_NAME = 63
"""Bytes of a name."""

_LOCK_NOT_AVAILABLE = {"55P03", "40P01"}
_INSUFFICIENT_PRIVILEGE = "42501"
# A process that is frozen while it holds the lock must not keep readers out for as long as it may be idle otherwise.
_LIMIT_IDLE = text("""
    SELECT set_config(name, CAST(:seconds AS text) || 's', true) FROM pg_settings
    WHERE name = 'idle_in_transaction_session_timeout' AND CAST(setting AS int) NOT BETWEEN 1 AND 1000 * :seconds
""")


class PostgreSQLSwapper(Swapper):
    """Replaces tables on PostgreSQL 15 and later."""

    @override
    def locate(self, connection: Connection, name: str, schema: str | None) -> str | None:
        if schema is not None:
            return schema
        table = find(connection, quote(connection, name))
        if table is not None:
            return table.schema
        current: str | None = connection.execute(text("SELECT current_schema()")).scalar_one()
        return current

    @override
    def check(self, connection: Connection, name: str, schema: str | None) -> None:
        table = find(connection, quote(connection, name, schema))
        if table is not None:
            _check(connection, table)

    @override
    def create_like(self, connection: Connection, name: str, schema: str | None, staging: str) -> None:
        table = _existing(connection, name, schema)
        shown = quote(connection, staging, table.schema)
        try:
            run(
                connection,
                f"CREATE {'UNLOGGED ' if table.unlogged else ''}TABLE {shown} (LIKE {table.shown} INCLUDING GENERATED "
                f"INCLUDING IDENTITY INCLUDING COMPRESSION){f' USING {table.method}' if table.method else ''}",
            )
            staged = _existing(connection, staging, table.schema)
            settle(connection, table, staged, complete=False)
            hide(connection, staged)
        except DBAPIError as error:
            if _code(error) != _INSUFFICIENT_PRIVILEGE:
                raise
            msg = (
                f"a staging table like {_name(name, schema)!r} cannot be made: {describe_error(error)}; give this role "
                "the right to it, or use mode='upsert'"
            )
            raise ConfigurationError(msg) from scrub(error)

    @override
    def follow(self, connection: Connection, name: str, schema: str | None, staging: str) -> None:
        target = find(connection, quote(connection, name, schema))
        staged = _existing(connection, staging, target.schema if target else schema)
        _check_owner(connection, staged)
        if target is not None:
            with _bounded(connection):
                settle(connection, target, staged, complete=False)

    @override
    def swap(self, connection: Connection, name: str, schema: str | None, staging: str) -> None:
        target = find(connection, quote(connection, name, schema))
        staged = _existing(connection, staging, target.schema if target else schema)
        # Rows that were written in this transaction, of a replay, may have deferred checks, which forbid any ALTER.
        run(connection, "SET CONSTRAINTS ALL IMMEDIATE")
        with _bounded(connection):
            # Only an autovacuum may be at it.
            run(connection, f"LOCK TABLE {staged.shown} IN ACCESS EXCLUSIVE MODE")
            if not staged.analyzed:
                # Readers would get plans for a table of which nothing is known.
                run(connection, f"ANALYZE {staged.shown}")
            if target is None:
                _adopt(connection, staged, name)
                return
            _check(connection, target)
            # Everything that takes time, before anybody is locked out.
            settle(connection, target, staged, complete=True)
        _patiently(connection, target, lambda: _exchange(connection, _existing(connection, name, schema), staged))


def _check(connection: Connection, table: Table) -> None:
    found = obstacles(connection, table)
    if not found:
        return
    rights = [obstacle for obstacle in found if _is_of_rights(obstacle)]
    things = [obstacle for obstacle in found if obstacle not in rights]
    told, ways = [], []
    if things:
        told.append(f"because of {'; '.join(things)}: a new table in its place would lose or break that")
        ways.append("drop what stands against it before the sync and create it again afterwards")
    if rights:
        told.append(f"because of {'; '.join(rights)}")
        ways.append("have this role given what it lacks, or run as the owner")
    shown = f"table {table.schema}.{table.name}"
    msg = f"{shown} cannot be replaced, {'; and '.join(told)}. Either {', and '.join(ways)}, or use mode='upsert'"
    raise ConfigurationError(msg)


def _is_of_rights(obstacle: str) -> bool:
    return obstacle.startswith("its owner ") or obstacle.endswith("whose function this role may not execute")


def _check_owner(connection: Connection, staged: Table) -> None:
    """Refuse a staging table that an attempt under another role has made.

    Raises:
        ConfigurationError: If this role is no member of that.
    """
    owner = foreign_owner(connection, staged)
    if owner is not None:
        msg = (
            f"the staging table {staged.name!r} belongs to the role {owner}, under which this run was loaded so far, "
            "and this role is no member of it; go on under that role, or have it granted to this one"
        )
        raise ConfigurationError(msg)


def _existing(connection: Connection, name: str, schema: str | None) -> Table:
    table = find(connection, quote(connection, name, schema))
    if table is None:
        msg = f"table {_name(name, schema)!r} is gone: somebody dropped it; start over with reset_job(job_id)"
        raise ConfigurationError(msg)
    return table


def _name(name: str, schema: str | None) -> str:
    return f"{schema}.{name}" if schema else name


def _code(error: DBAPIError) -> str:
    return str(getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None) or "")


@contextmanager
def _bounded(connection: Connection) -> Iterator[None]:
    """Give an engine of the caller's, that may wait for locks for ever, our bound until the block ends."""
    old = _lock_timeout(connection)
    if old == "0":
        _set_lock_timeout(connection, f"{LOCK_TIMEOUT}s")
    yield
    _set_lock_timeout(connection, old)


def _lock_timeout(connection: Connection) -> str:
    return str(connection.execute(text("SELECT current_setting('lock_timeout')")).scalar_one())


def _set_lock_timeout(connection: Connection, value: str) -> None:
    connection.execute(text("SELECT set_config('lock_timeout', :value, true)"), {"value": value})


def _patiently(connection: Connection, target: Table, work: Callable[[], None]) -> None:
    """Do work with the target locked against everybody, as soon as nobody uses it.

    Raises:
        TransientError: If it is in use for too long.
        DBAPIError: If the work fails.
    """
    old = _lock_timeout(connection)
    begun = time.monotonic()
    while True:
        passed = (time.monotonic() - begun) / LOCK_TIMEOUT
        seconds = POLITE_TRY if target.refers and passed < 1 / 2 else LOCK_TRY
        try:
            with connection.begin_nested():
                connection.execute(_LIMIT_IDLE, {"seconds": LOCK_TIMEOUT})
                _set_lock_timeout(connection, f"{int(1000 * seconds)}ms")
                run(connection, f"LOCK TABLE {target.shown} IN ACCESS EXCLUSIVE MODE")
                work()
                _set_lock_timeout(connection, old)
        except DBAPIError as error:
            if _code(error) not in _LOCK_NOT_AVAILABLE:
                raise
            if passed > 1:
                msg = (
                    f"table {target.schema}.{target.name}, or one to which it has a foreign key, was in use for "
                    f"{LOCK_TIMEOUT} s, and it could not be replaced: end the transactions that use them, then run "
                    "again; what was loaded is kept"
                )
                raise TransientError(msg) from scrub(error)
        else:
            return
        # Who waited behind us goes first.
        time.sleep(POLITE_TRY * 2)


def _exchange(connection: Connection, target: Table, staged: Table) -> None:
    # Nobody can change the target now.
    _check(connection, target)
    settle(connection, target, staged, complete=True)
    names = [piece for piece in pieces(connection, target, staged.shown) if is_renamed(piece)]
    not_nulls = not_null_names(connection, target)
    rights = grants(connection, target.oid), grants(connection, staged.oid)
    later = [
        *trimmings(connection, target),
        *follow_sequences(connection, target, staged),
        *grant_statements(f"TABLE {target.shown}", *rights, owner_of(connection, target)),
    ]
    # Without CASCADE: what depends on it and was not seen makes this fail.
    run(connection, f"DROP TABLE {target.shown}")
    run(connection, f"ALTER TABLE {staged.shown} RENAME TO {quote(connection, target.name)}")
    for piece in names:
        _rename(connection, staged, piece)
    _name_not_nulls(connection, staged, target.shown, not_nulls)
    for statement in later:
        run(connection, statement)


def _rename(connection: Connection, staged: Table, piece: Piece) -> None:
    if piece.kind in ("index", "constraint", "statistics"):
        # A constraint takes its index's name.
        what, schema = ("STATISTICS", piece.part) if piece.kind == "statistics" else ("INDEX", staged.schema)
        old = quote(connection, interim(staged, piece.name), schema)
        run(connection, f"ALTER {what} {old} RENAME TO {quote(connection, piece.name)}")


def _name_not_nulls(connection: Connection, staged: Table, shown: str, wanted: dict[str, str]) -> None:
    for column, name in not_null_names(connection, staged).items():
        if wanted.get(column, name) != name:
            old, new = quote(connection, name), quote(connection, wanted[column])
            run(connection, f"ALTER TABLE {shown} RENAME CONSTRAINT {old} TO {new}")


def _adopt(connection: Connection, staged: Table, name: str) -> None:
    """Give a table that was made without a target its name, and its constraints names as if it had had it."""
    quoted = quote(connection, name)
    shown = quote(connection, name, staged.schema)
    columns = not_null_names(connection, staged)
    run(connection, f"ALTER TABLE {staged.shown} RENAME TO {quoted}")
    for piece in pieces(connection, staged, shown):
        if (piece.kind, piece.part) == ("constraint", "p"):
            _rename_constraint(connection, shown, piece.name, f"{name}_pkey")
    for column, old in columns.items():
        _rename_constraint(connection, shown, old, f"{name}_{column}_not_null")


def _rename_constraint(connection: Connection, shown: str, old: str, new: str) -> None:
    # One that is too long would be cut, and might be another's then.
    if len(new.encode()) <= MAX_NAME and new != old:
        run(connection, f"ALTER TABLE {shown} RENAME CONSTRAINT {quote(connection, old)} TO {quote(connection, new)}")
