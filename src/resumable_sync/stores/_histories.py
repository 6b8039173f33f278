"""The histories of jobs in a SQL database: one row for each, which the grant of a lease fences."""

from sqlalchemy import BindParameter, Connection, bindparam, delete, insert, select, update

from resumable_sync._errors import LeaseLostError
from resumable_sync._history import History
from resumable_sync._model import Lease
from resumable_sync.stores._rows import history_from_text, text_of_history
from resumable_sync.stores._schema import Tables

__all__ = ["Histories"]


class Histories:
    """The histories of one store. Parameters are named as those of `Statements`."""

    def __init__(self, tables: Tables) -> None:
        history = tables.history
        # They get the types of their columns.
        job_id: BindParameter[str] = bindparam("b_id")
        token: BindParameter[int] = bindparam("b_token")
        this = history.c.job_id == job_id
        self._fence = update(history).where(this).values(fencing_token=token)
        self._begin = insert(history).values(job_id=job_id, fencing_token=token)
        self._keep = update(history).where(this, history.c.fencing_token == token)
        self._read = select(history.c.samples).where(this)
        self._forget = delete(history).where(this)

    def granted(self, connection: Connection, job_id: str, token: int) -> None:
        """Refuse what comes under older tokens from now on. The row of the job must be locked."""
        parameters = {"b_id": job_id, "b_token": token}
        if not connection.execute(self._fence, parameters).rowcount:
            connection.execute(self._begin, parameters)

    def keep(self, connection: Connection, history: History | None, lease: Lease) -> None:
        """Keep a history.

        Raises:
            LeaseLostError: If the lease's token is not the newest.
        """
        samples = None if history is None else text_of_history(history)
        parameters = {"b_id": lease.job_id, "b_token": lease.fencing_token, "samples": samples}
        if not connection.execute(self._keep, parameters).rowcount:
            raise LeaseLostError(lease.job_id, lease.fencing_token)

    def read(self, connection: Connection, job_id: str) -> History | None:
        """Give what was kept."""
        samples = connection.execute(self._read, {"b_id": job_id}).scalar_one_or_none()
        return None if samples is None else history_from_text(job_id, samples)

    def forget(self, connection: Connection, job_id: str) -> None:
        """Remove the history of a job."""
        connection.execute(self._forget, {"b_id": job_id})
