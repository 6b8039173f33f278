"""Making a staging table on PostgreSQL what its target is, by taking both apart and comparing the pieces."""

import hashlib
from typing import Any

from sqlalchemy import Connection

from resumable_sync._errors import ConfigurationError
from resumable_sync.sinks._catalog_postgresql import Piece, Table, pieces
from resumable_sync.sinks._swap import altered
from resumable_sync.sinks._target import quote, verbatim

__all__ = ["interim", "is_renamed", "run", "settle"]

_PLACES = {
    kind: place
    for place, kind in enumerate([
        "table",
        "constraint",
        "index",
        "index setting",
        "statistics",
        "statistics setting",
        "foreign key",
        "self",
    ])
}
# What is made or dropped, not altered.
_THINGS = ("constraint", "index", "statistics", "self")
_Key = tuple[str, str, str]


def run(connection: Connection, statement: str) -> Any:
    """Run a statement without parameters, whatever it holds."""
    return connection.exec_driver_sql(verbatim(connection, statement))


def interim(staged: Table, name: str) -> str:
    """Give the name of an index or statistics until the target, which has those of that name, is gone."""
    digest = hashlib.blake2b(f"{staged.name} {name}".encode(), digest_size=12)
    return f"resumable_sync_{digest.hexdigest()}"


def is_renamed(piece: Piece) -> bool:
    """Whether its name is one of the schema, not of the table."""
    if piece.kind == "constraint":
        return piece.part in ("p", "u", "x")
    return piece.kind in ("index", "index setting", "statistics", "statistics setting")


def settle(connection: Connection, target: Table, staged: Table, *, complete: bool) -> None:
    """Make the staging table what the target is.

    Args:
        connection: To their database.
        target: The target.
        staged: The staging table.
        complete: Whether all rows are there, so that a foreign key of the table onto itself can hold.

    Raises:
        ConfigurationError: If the columns differ.
    """
    wanted = {}
    for piece in pieces(connection, target, staged.shown):
        name = interim(staged, piece.name) if is_renamed(piece) else piece.name
        if complete or piece.kind != "self":
            wanted[piece.kind, name, piece.part] = piece
    present = _present(connection, staged)
    _compare_columns(target, staged, wanted, present)
    wrong = [
        key
        for key, piece in present.items()
        if key not in wanted or (key[0] in _THINGS and wanted[key].definition != piece.definition)
    ]
    for key in sorted(wrong, key=_place, reverse=True):
        _take_away(connection, staged, key, present[key])
    if wrong:
        present = _present(connection, staged)
    for key in sorted(wanted, key=_place):
        if key not in present or wanted[key].definition != present[key].definition:
            _add(connection, staged, key, wanted[key])


def _present(connection: Connection, staged: Table) -> dict[_Key, Piece]:
    return {(piece.kind, piece.name, piece.part): piece for piece in pieces(connection, staged, staged.shown)}


def _place(key: _Key) -> tuple[int, bool, _Key]:
    kind, name, part = key
    if kind == "column":
        return -1, False, key
    # Before anything else the owner, who then makes the rest; of constraints those that others build on.
    kind = "foreign key" if (kind, part) == ("constraint", "f") else kind
    return _PLACES[kind], (kind, name) != ("table", "owner"), key


def _compare_columns(target: Table, staged: Table, wanted: dict[_Key, Piece], present: dict[_Key, Piece]) -> None:
    different = [
        key[1]
        for key, piece in wanted.items()
        if key[0] == "column" and (key not in present or present[key].definition != piece.definition)
    ]
    if different:
        raise ConfigurationError(altered(f"{target.schema}.{target.name}", different, staged.name))


def _take_away(connection: Connection, staged: Table, key: _Key, piece: Piece) -> None:
    kind, name, part = key
    quoted = quote(connection, name)
    if kind in ("constraint", "self"):
        run(connection, f"ALTER TABLE {staged.shown} DROP CONSTRAINT {quoted}")
    elif kind in ("index", "statistics"):
        space = part if kind == "statistics" else staged.schema
        run(connection, f"DROP {kind} {quote(connection, name, space)}")
    elif piece.undo is not None:
        _alter(connection, staged, key, piece.undo)


def _add(connection: Connection, staged: Table, key: _Key, piece: Piece) -> None:
    kind, name, part = key
    quoted = quote(connection, name)
    if kind in ("constraint", "self"):
        run(connection, f"ALTER TABLE {staged.shown} ADD CONSTRAINT {quoted} {piece.definition}")
    elif kind == "index":
        run(connection, f"CREATE {part}INDEX {quoted} ON {staged.shown} {piece.definition}")
    elif kind == "statistics":
        statistics = quote(connection, name, part)
        run(connection, f"CREATE STATISTICS {statistics} {piece.definition} FROM {staged.shown}")
    elif kind != "column":
        _alter(connection, staged, key, piece.definition)


def _alter(connection: Connection, staged: Table, key: _Key, what: str) -> None:
    kind, name, part = key
    if kind == "table":
        run(connection, f"ALTER TABLE {staged.shown} {what}")
    elif kind == "index setting":
        run(connection, f"ALTER INDEX {quote(connection, name, staged.schema)} {what}")
    elif kind == "statistics setting":
        run(connection, f"ALTER STATISTICS {quote(connection, name, part)} {what}")
