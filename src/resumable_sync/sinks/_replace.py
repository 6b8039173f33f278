"""Replacing a target: the way of each database."""

import attrs
from sqlalchemy import Connection

from resumable_sync._database import is_mysql
from resumable_sync._errors import ConfigurationError, StoreError
from resumable_sync._model import Job
from resumable_sync.sinks._registry import Registry, schemas_with_register
from resumable_sync.sinks._staging import Make, Place, StagedReplacement
from resumable_sync.sinks._swap import Swapper
from resumable_sync.sinks._swap_mysql import MySQLReplacement
from resumable_sync.sinks._swap_postgresql import PostgreSQLSwapper
from resumable_sync.sinks._swap_sqlite import SQLiteSwapper
from resumable_sync.sinks._zombies import Zombies

__all__ = ["Replacement", "refuse_staged"]


@attrs.define
class Replacement:
    """What `SQLSink(mode="replace")` does at the begin and the end of a run, for any number of jobs.

    Args:
        target: Name of the target.
        schema: Its schema, as the user named it.
        whole: The job that these jobs are parts of: they fill the staging table of its run, and it swaps that in.
    """

    target: str
    schema: str | None
    whole: Job | None = None
    _tokens: dict[str, int] = attrs.field(factory=dict, init=False)

    def begin(self, connection: Connection, job: Job, make: Make) -> Place:
        """Make or find the table that the rows of a run go to.

        Args:
            connection: In a transaction.
            job: With its lease.
            make: Makes the staging table where there is no target.

        Raises:
            ConfigurationError: If the target cannot be replaced, or `job.lease` is None.
        """
        if job.lease is None:
            msg = (
                f"job {job.id!r}: SQLSink with mode='replace' needs the fencing token, but job.lease is None; get the "
                "lease first"
            )
            raise ConfigurationError(msg)
        token = job.lease.fencing_token
        if self.whole is not None:
            return self._joined(connection, job, self.whole)
        place = self._of(connection).begin(connection, job, token, make)
        self._tokens[job.id] = token
        return place

    def complete(self, connection: Connection, job: Job) -> None:
        """Put what was loaded into the target's place; doing so again is harmless.

        Raises:
            ConfigurationError: If the target cannot be replaced any more, or `begin` was not called.
        """
        if self.whole is not None:
            return
        token = self._tokens.get(job.id)
        if token is None:
            msg = f"job {job.id!r}: SQLSink with mode='replace' was completed before begin(job); call that first"
            raise ConfigurationError(msg)
        Zombies(self.target, self.schema).end(connection, job.id, token)
        self._of(connection).complete(connection, job, token)

    def _joined(self, connection: Connection, job: Job, whole: Job) -> Place:
        schema = self.schema
        if not is_mysql(connection.dialect):
            schema = _swapper(connection).locate(connection, self.target, schema)
        # The newest one: on MySQL and MariaDB a later attempt of the whole gives the table another name.
        known = [each for each in Registry(connection, schema).loading(whole) if each.target == self.target]
        if not known:
            msg = (
                f"job {job.id!r}: there is no staging table of run {whole.run} of job {whole.id!r} for the target "
                f"{self.target!r}: that run was published or begun anew; start the whole again"
            )
            raise StoreError(msg)
        return Place(max(known, key=lambda each: each.token).name, schema, staged=True)

    def _of(self, connection: Connection) -> MySQLReplacement | StagedReplacement:
        if is_mysql(connection.dialect):
            return MySQLReplacement(self.target, self.schema)
        return StagedReplacement(_swapper(connection), self.target, self.schema)


def refuse_staged(connection: Connection, job: Job, target: str, schema: str | None) -> None:
    """Refuse to go on in another mode with a run whose rows so far wait in a staging table: nothing would publish them.

    Raises:
        ConfigurationError: If that is so.
    """
    if connection.dialect.name == "adbc" or not schemas_with_register(connection):
        return  # nothing is replaced there
    if not is_mysql(connection.dialect):
        schema = _swapper(connection).locate(connection, target, schema)
    staging = next((each for each in Registry(connection, schema).loading(job) if each.target == target), None)
    if staging is not None:
        msg = (
            f"job {job.id!r}: records of run {job.run} go to the staging table {staging.name!r} of a sink with "
            "mode='replace', and no other sink would publish them; go on with that one, or start over with "
            "reset_job(job_id)"
        )
        raise ConfigurationError(msg)


def _swapper(connection: Connection) -> Swapper:
    return SQLiteSwapper() if connection.dialect.name == "sqlite" else PostgreSQLSwapper()
