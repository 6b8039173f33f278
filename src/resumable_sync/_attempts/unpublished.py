"""Rows that wait to be published: no other sink may end their run."""

from typing import TYPE_CHECKING

from resumable_sync._errors import ConfigurationError
from resumable_sync._model import Job

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["refuse_unpublished"]


def refuse_unpublished(job: Job, connection: "Connection") -> None:
    """Refuse to go on with a run, a part of whose rows is in a staging table that the sink has not taken over.

    Without that sink the job would be called completed while its target has the old rows. Call it in the transaction in
    which the sink began, which is rolled back then.

    Args:
        job: With its lease.
        connection: The transaction's.

    Raises:
        ConfigurationError: If there is such a table in the store's database.
    """
    if not job.has_progress:
        return  # what an earlier run has loaded is dropped by the next one of the same sink
    from resumable_sync.sinks._registry import unpublished  # noqa: PLC0415 - knows SQLAlchemy, which is loaded here already

    staging = unpublished(connection, job)
    if staging is not None:
        msg = (
            f"job {job.id!r}: records of run {job.run} are in the staging table {staging.name!r}, which is to replace "
            f"{staging.target!r}, and this sink would not publish them; go on with the sink that began the run, "
            f"SQLSink({staging.target!r}, mode='replace'), or start over with reset_job(job_id)"
        )
        raise ConfigurationError(msg)
