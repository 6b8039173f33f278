"""The staging table of `SQLSink(mode="replace")`: from the run's beginning to the swap, over all its attempts."""

from collections.abc import Callable, Sequence

import attrs
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from resumable_sync._database import scrub
from resumable_sync._errors import ConfigurationError, StoreError, describe_error
from resumable_sync._model import Job
from resumable_sync.sinks._registry import Registry, Staging, run_id_of, staging_name
from resumable_sync.sinks._swap import Swapper
from resumable_sync.sinks._tables import NOT_ALLOWED, error_codes
from resumable_sync.sinks._target import quote, reflect, verbatim

__all__ = ["Make", "Place", "StagedReplacement", "drop_table", "dropped", "find", "refuse_unknown"]

Make = Callable[[Connection, str | None, str], None]
"""Makes a table from the connector's columns: connection, schema, name."""


@attrs.frozen
class Place:
    """Where the rows of a run go.

    Attributes:
        name: The table.
        schema: Its schema.
        staged: Whether it is a staging table; else it is the target, into which that was swapped already.
    """

    name: str
    schema: str | None
    staged: bool


@attrs.frozen
class StagedReplacement:
    """Replaces a target on a database whose DDL is part of the transaction.

    What happens to tables and what the register says commits together, and with it the checkpoint or the end of the
    job. So there is one staging table for a run, which is there exactly when the register says that it is loading,
    unless somebody dropped it.

    Args:
        swapper: What the database needs.
        target: Name of the target.
        schema: Its schema, as the user named it.
    """

    swapper: Swapper
    target: str
    schema: str | None

    def begin(self, connection: Connection, job: Job, token: int, make: Make) -> Place:
        """Make the staging table of a run that is new, or find that of one that is not.

        Raises:
            ConfigurationError: If the target cannot be replaced, or a table stands in the way.
            StoreError: If the staging table of a run with progress is gone.
        """
        schema = self.swapper.locate(connection, self.target, self.schema)
        registry = Registry(connection, schema)
        registry.create()
        known = registry.of(job.id, self.target)
        current = find(known, job, self.target) if job.has_progress else None
        if current is None or current.state == "loading":
            self.swapper.check(connection, self.target, schema)
        for staging in known:
            if staging is not current:
                if staging.state == "loading":
                    drop_table(connection, schema, staging.name)
                registry.remove(staging)
        if current is None:
            return self._start(registry, job, token, make)
        if current.state == "loading" and reflect(connection, current.name, schema) is None:
            raise StoreError(dropped(job.id, self.target, current.name))
        staged = current.state == "loading"
        if staged:
            registry.take_over(current, token)
            self.swapper.follow(connection, self.target, schema, current.name)
        return Place(current.name if staged else self.target, schema, staged)

    def _start(self, registry: Registry, job: Job, token: int, make: Make) -> Place:
        connection, schema = registry.connection, registry.schema
        name = staging_name(job, self.target)
        refuse_unknown(registry, name)
        registry.add(Staging(name, self.target, job.id, run_id_of(job), token))
        if reflect(connection, self.target, schema) is None:
            make(connection, schema, name)
        else:
            self.swapper.create_like(connection, self.target, schema, name)
        return Place(name, schema, staged=True)

    def complete(self, connection: Connection, job: Job, _token: int) -> None:
        """Put the staging table into the target's place, unless that was done.

        Raises:
            ConfigurationError: If the target cannot be replaced any more.
            StoreError: If the staging table is gone.
        """
        schema = self.swapper.locate(connection, self.target, self.schema)
        registry = Registry(connection, schema)
        current = find(registry.of(job.id, self.target), job, self.target)
        if current.state == "swapped":
            return
        if reflect(connection, current.name, schema) is None:
            raise StoreError(dropped(job.id, self.target, current.name))
        self.swapper.swap(connection, self.target, schema, current.name)
        registry.swapped(current)


def find(known: Sequence[Staging], job: Job, target: str) -> Staging:
    """Give the staging table of a job's run.

    Raises:
        StoreError: If there is none, or it was the target and has been replaced since.
    """
    of_run = [staging for staging in known if staging.run_id == run_id_of(job)]
    found = next((staging for staging in of_run if staging.state == "swapped"), of_run[-1] if of_run else None)
    if found is None:
        msg = (
            f"job {job.id!r}: {job.processed_records} records of run {job.run} were processed, but there is no staging "
            f"table of that run for the target {target!r}: it was restored, or the run was begun with another sink. Go "
            "on with that one, or start over with reset_job(job_id)"
        )
        raise StoreError(msg)
    if found.state == "superseded":
        msg = (
            f"job {job.id!r}: run {job.run} was swapped into the target {target!r}, which another job has replaced "
            "since, so that its further records have no place; start a new run"
        )
        raise StoreError(msg)
    return found


def refuse_unknown(registry: Registry, name: str) -> None:
    """Refuse to take over a table that is not in the register.

    Raises:
        ConfigurationError: If there is one of that name.
    """
    if not registry.knows(name) and reflect(registry.connection, name, registry.schema) is not None:
        msg = (
            f"there is a table {name!r}, the name of a staging table, that was not made by this library; look what it "
            "holds, and rename or drop it"
        )
        raise ConfigurationError(msg)


def drop_table(connection: Connection, schema: str | None, name: str) -> None:
    """Drop a table of the library's own, if it is there.

    Raises:
        ConfigurationError: If this role must not.
        DBAPIError: If it fails otherwise.
    """
    try:
        connection.exec_driver_sql(verbatim(connection, f"DROP TABLE IF EXISTS {quote(connection, name, schema)}"))
    except DBAPIError as error:
        if not error_codes(error) & NOT_ALLOWED:
            raise
        msg = (
            f"the table {name!r}, which this library made, has to be dropped, and this role must not do that "
            f"({describe_error(error)}); run under the role that made it, or have its owner drop it"
        )
        raise ConfigurationError(msg) from scrub(error)


def dropped(job_id: str, target: str, staging: str) -> str:
    """Say that a staging table is gone."""
    return (
        f"job {job_id!r}: the staging table {staging!r}, with the rows of this run for the target {target!r}, was "
        "dropped; start over with reset_job(job_id)"
    )
