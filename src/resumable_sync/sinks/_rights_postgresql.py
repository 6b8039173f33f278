"""Who may do what with a table on PostgreSQL, and the sequences that its columns own, carried over to another table."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, text

from resumable_sync.sinks._catalog_postgresql import Grant, OwnedSequence, Table, grants, sequences
from resumable_sync.sinks._structure_postgresql import run
from resumable_sync.sinks._target import quote

__all__ = ["follow_sequences", "foreign_owner", "grant_statements", "hide", "owner_of"]


def hide(connection: Connection, table: Table) -> None:
    """Take everybody's rights away but the owner's: by default new tables of a role may come with some."""
    for grantee in {grant.grantee for grant in grants(connection, table.oid)} - {owner_of(connection, table)}:
        run(connection, f"REVOKE ALL ON {table.shown} FROM {grantee}")


def owner_of(connection: Connection, table: Table) -> str:
    """Give the owner of a table, quoted."""
    owner = text("SELECT quote_ident(pg_get_userbyid(relowner)) FROM pg_class WHERE oid = :table")
    return str(connection.execute(owner, {"table": table.oid}).scalar_one())


def foreign_owner(connection: Connection, table: Table) -> str | None:
    """Give the owner of a table, quoted, if this role may not act as it; else None."""
    owner = text(
        "SELECT quote_ident(pg_get_userbyid(relowner)) FROM pg_class "
        "WHERE oid = :table AND NOT pg_has_role(relowner, 'USAGE')"
    )
    found: str | None = connection.execute(owner, {"table": table.oid}).scalar_one_or_none()
    return found


def follow_sequences(connection: Connection, target: Table, staged: Table) -> list[str]:
    """Take the sequences of the target over.

    Returns:
        Statements that finish it, for when the target is gone.
    """
    later = []
    own = {sequence.column: sequence for sequence in sequences(connection, staged) if sequence.identity}
    for sequence in sequences(connection, target):
        if sequence.identity:
            later += _replace_sequence(connection, target, sequence, own[sequence.column])
        else:
            column = f"{staged.shown}.{quote(connection, sequence.column)}"
            run(connection, f"ALTER SEQUENCE {sequence.shown} OWNED BY {column}")
    return later


def _replace_sequence(connection: Connection, target: Table, old: OwnedSequence, new: OwnedSequence) -> list[str]:
    def value(of: OwnedSequence) -> Any:
        return tuple(run(connection, f"SELECT last_value, is_called FROM {of.shown}").one())  # noqa: S608 - quoted

    run(connection, f"ALTER SEQUENCE {new.shown} {old.options}")
    # Whichever gave more: rows without a value for the column took theirs from the new one.
    further = max if old.rising else min
    last, called = further(value(old), value(new), key=lambda one: (one[0], one[1] is old.rising))
    run(connection, f"SELECT setval({_literal(new.shown)}::regclass, {last}, {str(called).lower()})")
    statements = [f"ALTER SEQUENCE {new.shown} RENAME TO {quote(connection, old.name)}"]
    statements += [old.comment] if old.comment else []
    rights = grant_statements(
        f"SEQUENCE {old.shown}", grants(connection, old.oid), grants(connection, new.oid), owner_of(connection, target)
    )
    return [*statements, *rights]


def _literal(shown: str) -> str:
    escaped = shown.replace("\\", "\\\\").replace("'", "''")
    return f"E'{escaped}'"


def grant_statements(what: str, wanted: Sequence[Grant], present: Sequence[Grant], owner: str) -> list[str]:
    """Give the statements that leave certain rights and no others.

    Args:
        what: `"TABLE"` or `"SEQUENCE"`, and its name, quoted.
        wanted: The rights.
        present: Those that are there.
        owner: The owner, quoted.
    """
    if set(wanted) == set(present):
        return []
    statements = [f"REVOKE ALL ON {what} FROM {grantee} CASCADE" for grantee in {grant.grantee for grant in present}]
    able, left = {owner, None}, list(wanted)
    while left:
        # Whoever gave a right must have got it before.
        ready = [grant for grant in left if grant.grantor in able] or left
        able |= {grant.grantee for grant in ready if grant.option}
        left = [grant for grant in left if grant not in ready]
        for grant in ready:
            column = f" ({grant.column})" if grant.column else ""
            option = " WITH GRANT OPTION" if grant.option else ""
            statement = f"GRANT {grant.privilege}{column} ON {what} TO {grant.grantee}{option}"
            statements += [statement] if grant.grantor is None else _as(grant.grantor, statement)
    return statements


def _as(role: str, statement: str) -> list[str]:
    return [
        "SELECT set_config('resumable_sync.role', current_setting('role'), true)",
        f"SET LOCAL ROLE {role}",
        statement,
        "SELECT set_config('role', current_setting('resumable_sync.role'), true)",
    ]
