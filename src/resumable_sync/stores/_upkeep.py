"""Whether the tables of a `SQLJobStore` are there, and bringing them to this version."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy.exc import DBAPIError

from resumable_sync._database import scrub, use_wal
from resumable_sync._errors import StoreError, describe_error
from resumable_sync.stores import _schema
from resumable_sync.stores._connections import Connections

__all__ = ["Upkeep"]


class Upkeep:
    """Looks after the tables of one store.

    Args:
        names: The names of the tables.
        connections: Where they are.
        path: The file of a SQLite database, which looking must not make.
    """

    def __init__(self, names: _schema.Names, connections: Connections, path: Path | None) -> None:
        self._names = names
        self._connections = connections
        self._path = path
        self._ready = False

    def ddl(self) -> str:
        """Give the SQL that makes the tables."""
        statements = _schema.ddl(self._names, self._connections.engine.dialect)
        return "".join(f"{statement};\n" for statement in statements)

    def version(self) -> int | None:
        """Give the version of the tables; None if there are none. Changes nothing."""
        if self._ready:
            return _schema.SCHEMA_VERSION
        if self._path is not None and not self._path.exists():
            return None  # connecting would make the file
        with self._connections.read() as connection:
            version = _schema.stored_version(connection, self._names)
        self._ready = version == _schema.SCHEMA_VERSION
        return version

    def exists(self) -> bool:
        """Whether the tables are there; brings older ones up to date."""
        version = self.version()
        if version is None or version == _schema.SCHEMA_VERSION:
            return version is not None
        with (
            self._connections.plain() as connection,
            self._permitted(
                f"are of version {version} and must be brought to version {_schema.SCHEMA_VERSION}",
                "run any sync once with a role that may, such as the owner of the tables, then grant SELECT, INSERT, "
                f"UPDATE and DELETE on {self._names.attempts} and {self._names.history}",
            ),
        ):
            _schema.migrate(connection, self._names)
        self._ready = True
        return True

    def create(self) -> None:
        """Make the tables."""
        with self._connections.plain() as connection:
            use_wal(connection)
            with self._permitted(
                "do not exist",
                f"have a role run this that may, then grant SELECT, INSERT, UPDATE and DELETE:\n{self.ddl()}",
            ):
                _schema.create(connection, self._names)
        self._ready = True

    @contextmanager
    def _permitted(self, state: str, remedy: str) -> Iterator[None]:
        """Say what to do where the role may not make or change tables.

        Raises:
            DBAPIError: If something else is wrong.
            StoreError: If it may not.
        """
        try:
            yield
        except DBAPIError as error:
            if not _may_not_create(error):
                raise
            msg = f"the job store's tables {state}, and its role may not do that ({describe_error(error)}); {remedy}"
            raise StoreError(msg) from scrub(error)


def _may_not_create(error: DBAPIError) -> bool:
    origin = error.orig
    if getattr(origin, "sqlstate", getattr(origin, "pgcode", None)) == "42501":
        return True
    return bool(origin is not None and origin.args and origin.args[0] in (1044, 1142, 1227))
