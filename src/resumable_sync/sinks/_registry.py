"""The register of staging tables in the target's schema: the library drops what stands here, and nothing else."""

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal

import attrs
from sqlalchemy import BigInteger, Column, Connection, MetaData, Table, delete, insert, select, text, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql.elements import quoted_name

from resumable_sync._database import has_table, is_mysql
from resumable_sync._model import Job
from resumable_sync.sinks._tables import NOT_ALLOWED, OPTIONS, Name, create_own, error_codes, permitted

__all__ = ["STAGINGS", "Registry", "Staging", "run_id_of", "schemas_with_register", "staging_name", "unpublished"]

STAGINGS = "resumable_sync_staging"

State = Literal["loading", "swapped", "superseded"]


@attrs.frozen
class Staging:
    """A staging table.

    Attributes:
        name: Its name, without the schema.
        target: What it is to replace, without the schema.
        job_id: The job.
        run_id: The run whose rows it holds.
        token: The fencing token of the attempt that made it, or took it over.
        state: `"loading"`; `"swapped"` when it has become the target; `"superseded"` when another one has since.
    """

    name: str
    target: str
    job_id: str
    run_id: str
    token: int
    state: State = "loading"


@lru_cache
def _table(schema: str | None) -> Table:
    return Table(
        STAGINGS,
        MetaData(),
        Column("name", Name, primary_key=True),
        Column("target", Name, nullable=False),
        Column("job_id", Name, nullable=False),
        Column("run_id", Name, nullable=False),
        Column("token", BigInteger, nullable=False),
        Column("state", Name, nullable=False),
        schema=None if schema is None else quoted_name(schema, quote=True),
        **OPTIONS,
    )


@attrs.frozen
class Registry:
    """The register of one schema; every method runs in a transaction of the caller's.

    Where the role may not use it, that is a `ConfigurationError`.

    Args:
        connection: To the target's database.
        schema: The target's.
    """

    connection: Connection
    schema: str | None

    def create(self) -> None:
        """Make the table unless it exists.

        Raises:
            ConfigurationError: If it is missing and must not be made.
        """
        create_own(self.connection, _table(self.schema))

    def of(self, job_id: str, target: str) -> Sequence[Staging]:
        """Give the staging tables of a job and target, oldest first."""
        rows = _table(self.schema).c
        query = select(*rows).where(rows.job_id == job_id, rows.target == target).order_by(rows.token, rows.name)
        return [Staging(*row) for row in self._execute(query)]

    def loading(self, job: Job) -> Sequence[Staging]:
        """Give the tables that hold rows of a job's run until the swap.

        There are none where there is no register, or one that this role may not read.

        Raises:
            DBAPIError: If looking fails otherwise.
        """
        rows = _table(self.schema).c
        of_run = rows.job_id == job.id, rows.run_id == run_id_of(job), rows.state == "loading"
        try:
            if not has_table(self.connection, STAGINGS, self.schema):
                return []
            with self.connection.begin_nested():
                return [Staging(*row) for row in self.connection.execute(select(*rows).where(*of_run))]
        except DBAPIError as error:
            if error_codes(error) & NOT_ALLOWED:
                return []
            raise

    def knows(self, name: str) -> bool:
        """Whether a table of this name is one of the library's."""
        rows = _table(self.schema).c
        return self._execute(select(rows.name).where(rows.name == name)).first() is not None

    def add(self, staging: Staging) -> None:
        """Note a table that is about to be made."""
        self._execute(insert(_table(self.schema)).values(attrs.asdict(staging)))

    def take_over(self, staging: Staging, token: int) -> None:
        """Note that the attempt with this token goes on with a table."""
        table = _table(self.schema)
        self._execute(update(table).where(table.c.name == staging.name).values(token=token))

    def remove(self, staging: Staging) -> None:
        """Forget a table that is gone. Removing it again is fine."""
        table = _table(self.schema)
        self._execute(delete(table).where(table.c.name == staging.name))

    def swapped(self, staging: Staging) -> None:
        """Note that a table has become the target, in place of every other one; noting it again changes nothing."""
        table = _table(self.schema)
        rows = table.c
        here = update(table).where(rows.name == staging.name, rows.state == "loading").values(state="swapped")
        # Noted by a zombie a second time, it might supersede what has come since.
        if self._execute(here).rowcount:
            others = update(table).where(
                rows.target == staging.target, rows.state == "swapped", rows.name != staging.name
            )
            self._execute(others.values(state="superseded"))

    def _execute(self, statement: Any) -> Any:
        with permitted(self.connection, _table(self.schema)):
            return self.connection.execute(statement)


_SCHEMAS = {
    "postgresql": text(
        "SELECT n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relname = :name"
    ),
    "mysql": text("SELECT table_schema FROM information_schema.tables WHERE table_name = :name"),
    "sqlite": text("SELECT name FROM pragma_database_list WHERE :name <> ''"),
}


def schemas_with_register(connection: Connection) -> Sequence[str]:
    """Give the schemas that hold a register; on SQLite those that may."""
    asked = _SCHEMAS.get("mysql" if is_mysql(connection.dialect) else connection.dialect.name)
    return [] if asked is None else connection.execute(asked, {"name": STAGINGS}).scalars().all()


def unpublished(connection: object, job: Job) -> Staging | None:
    """Find rows of a job's run that nobody would publish: the attempt that began has not taken their table over.

    Args:
        connection: In the transaction in which the attempt's sink began, wherever the target is in its database.
        job: With its lease.
    """
    if not isinstance(connection, Connection) or job.lease is None:
        return None
    for schema in schemas_with_register(connection):
        for staging in Registry(connection, schema).loading(job):
            if staging.token != job.lease.fencing_token:
                return staging
    return None


def run_id_of(job: Job) -> str:
    """Give the id of a job's run, also where the store keeps none."""
    return job.run_id or f"run {job.run}"


def staging_name(job: Job, target: str) -> str:
    """Give the name of the staging table of a job's run and target."""
    parts = "\0".join([job.id, target, run_id_of(job)])
    digest = hashlib.blake2b(parts.encode("utf-8", "surrogatepass"), digest_size=10).hexdigest()
    return f"resumable_sync_{digest}"
