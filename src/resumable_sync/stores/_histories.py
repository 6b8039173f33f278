"""The histories of jobs in a SQL database: one row for each, which the grant of a lease fences."""

from functools import cached_property

from sqlalchemy import Connection, TextClause

from resumable_sync._errors import LeaseLostError
from resumable_sync._history import History
from resumable_sync._model import Lease
from resumable_sync.stores._rows import history_from_text, text_of_history
from resumable_sync.stores._sql_text import SQLText

__all__ = ["Histories"]


class Histories:
    """The histories of one store. Parameters are named as those of `Statements`."""

    def __init__(self, sql: SQLText) -> None:
        self._sql = sql

    # Each is written when it is needed, as in `Statements`.

    @cached_property
    def _fence(self) -> TextClause:
        return self._sql.write("UPDATE {history} SET fencing_token = :b_token WHERE job_id = :b_id")

    @cached_property
    def _begin(self) -> TextClause:
        return self._sql.write("INSERT INTO {history} (job_id, fencing_token) VALUES (:b_id, :b_token)")

    @cached_property
    def _keep(self) -> TextClause:
        newest = "job_id = :b_id AND fencing_token = :b_token"
        return self._sql.write(f"UPDATE {{history}} SET samples = :samples WHERE {newest}")

    @cached_property
    def _read(self) -> TextClause:
        return self._sql.write("SELECT samples FROM {history} WHERE job_id = :b_id")

    @cached_property
    def _forget(self) -> TextClause:
        return self._sql.write("DELETE FROM {history} WHERE job_id = :b_id")

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
