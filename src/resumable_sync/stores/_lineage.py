"""The lineage of attempts in a SQL database, written in the transactions that grant leases and give them back.

No checkpoint costs a statement more: how far an attempt is, and how it ended, stands in the row of its job until its
lease is given back or the next one is granted, which copies it. What that says of an attempt is worked out by the
database, whatever is in the row.
"""

from collections.abc import Mapping
from functools import cached_property

from sqlalchemy import Connection, TextClause, TextualSelect

from resumable_sync._model import AttemptRecord, JobStatus, Lease
from resumable_sync.stores._leases import KEPT_ATTEMPTS
from resumable_sync.stores._rows import Row, attempt_from_row
from resumable_sync.stores._sql_text import SQLText

__all__ = ["Lineage"]

_ENDED = ", ".join(f"'{status}'" for status in JobStatus if status not in {JobStatus.PENDING, JobStatus.RUNNING})

# What the row of the job says about its newest attempt, by column of the attempts; `job.` is that row. (`job.cursor`
# is a reserved word on MySQL, which need not be quoted after a point.)

_USED = f"({{attempts}}.fencing_token = job.saved_token AND job.status <> '{JobStatus.PENDING}')"
"""Whether the attempt has saved the job."""

# A replay of dead letters leaves the number and mostly the status as they were: they do not say that it ended.
_MOVED = f"({{attempts}}.run <> job.run OR {{attempts}}.attempt <> job.attempt OR job.status = '{JobStatus.COMPLETED}')"
_SAID = f"{_USED} AND job.status IN ({_ENDED}) AND {_MOVED}"
"""Whether the row says how the attempt ended."""

_REACHED = {
    "from_cursor": "CASE WHEN {attempts}.run <> job.run THEN NULL ELSE {attempts}.from_cursor END",
    "from_records": "CASE WHEN {attempts}.run <> job.run THEN 0 ELSE {attempts}.from_records END",
    "to_cursor": "CASE WHEN job.id IS NULL THEN {attempts}.from_cursor ELSE job.cursor END",
    "to_records": "COALESCE(job.processed_records, {attempts}.from_records)",
}
_NUMBERS = {
    "run": "COALESCE(job.run, {attempts}.run)",
    "attempt": "COALESCE(job.attempt, {attempts}.attempt)",
}
"""They come last: MySQL sets one column after the other, and then no longer knows what they were."""

_DIED = {
    **_REACHED,
    "outcome": f"CASE WHEN {_SAID} THEN job.status ELSE 'died' END",
    "error": f"CASE WHEN {_SAID} THEN job.error ELSE NULL END",
    "ended_at": f"CASE WHEN {_SAID} THEN COALESCE(job.finished_at, {{clock}}) ELSE {{clock}} END",
    **_NUMBERS,
}
_GAVE_BACK = {
    **_REACHED,
    "outcome": f"CASE WHEN job.status IN ({_ENDED}) THEN job.status ELSE 'interrupted' END",
    "error": "job.error",
    "ended_at": "{clock}",
    **_NUMBERS,
}
_ALIVE = "job.lease_owner IS NOT NULL AND job.lease_expires_at > {clock}"
_NOW = {
    **_REACHED,
    "outcome": f"CASE WHEN {_SAID} THEN job.status WHEN {_ALIVE} THEN 'running' ELSE 'died' END",
    "error": f"CASE WHEN {_SAID} THEN job.error ELSE NULL END",
    "ended_at": f"CASE WHEN {_SAID} THEN job.finished_at ELSE NULL END",
    **_NUMBERS,
}

_UNENDED = "job_id = :b_id AND outcome IS NULL"
_THIS = f"{_UNENDED} AND fencing_token = :b_token"


def _set(values: Mapping[str, str]) -> str:
    return ", ".join(f"{name} = {value}" for name, value in values.items())


class Lineage:
    """The attempts of one store. Whoever writes has locked the row of the job before.

    Parameters are named as those of `Statements`, and those of a job's row `b_job_` and the name of the column.
    """

    def __init__(self, sql: SQLText) -> None:
        self._sql = sql

    # Each is written when it is needed: what a process does not need it does not pay for at its start.

    @cached_property
    def _found(self) -> TextClause:
        return self._sql.write("""
            SELECT COUNT(*), SUM(CASE WHEN outcome IS NULL THEN 1 ELSE 0 END),
                SUM(CASE WHEN outcome IS NULL AND owner = :b_owner THEN 1 ELSE 0 END)
            FROM {attempts} WHERE job_id = :b_id
        """)

    @cached_property
    def _go_on(self) -> TextClause:
        return self._sql.write(
            f"UPDATE {{attempts}} SET fencing_token = :b_token WHERE {_UNENDED} AND owner = :b_owner"
        )

    @cached_property
    def _died(self) -> TextClause:
        # The row of the job is given, as parameters: to look it up for each column takes longer.
        given = _set(_DIED).replace("job.", ":b_job_")
        return self._sql.write(f"UPDATE {{attempts}} SET {given} WHERE {_UNENDED}")

    @cached_property
    def _gave_back(self) -> TextClause:
        job = "FROM {jobs} job WHERE job.id = {attempts}.job_id"
        looked_up = _set({name: f"(SELECT {value} {job})" for name, value in _GAVE_BACK.items()})
        return self._sql.write(f"UPDATE {{attempts}} SET {looked_up} WHERE {_THIS}")

    @cached_property
    def _drop_unused(self) -> TextClause:
        used = f"SELECT job.id FROM {{jobs}} job WHERE job.id = {{attempts}}.job_id AND {_USED}"
        return self._sql.write(f"DELETE FROM {{attempts}} WHERE {_THIS} AND NOT EXISTS ({used})")

    @cached_property
    def _begin(self) -> TextClause:
        return self._sql.write("""
            {insert} {attempts}
                (job_id, fencing_token, owner, from_cursor, from_records, started_at, run, attempt)
            SELECT job.id, job.fencing_token, job.lease_owner, job.cursor, job.processed_records, {clock}, job.run,
                job.attempt
            FROM {jobs} job WHERE job.id = :b_id {unless_there}
        """)

    @cached_property
    def _trim(self) -> TextClause:
        # A derived table, since MySQL does not delete from a table what it selects from it.
        return self._sql.write(f"""
            DELETE FROM {{attempts}} WHERE job_id = :b_id AND fencing_token < (
                SELECT fencing_token FROM (
                    SELECT fencing_token FROM {{attempts}} WHERE job_id = :b_id
                    ORDER BY fencing_token DESC LIMIT 1 OFFSET {KEPT_ATTEMPTS - 1}
                ) last_kept
            )
        """)

    @cached_property
    def _forget(self) -> TextClause:
        return self._sql.write("DELETE FROM {attempts} WHERE job_id = :b_id")

    @cached_property
    def _read(self) -> TextualSelect:
        now = ", ".join(
            f"CASE WHEN {{attempts}}.outcome IS NULL THEN {value} ELSE {{attempts}}.{name} END AS {name}"
            for name, value in _NOW.items()
        )
        # Without a job that it belongs to, an attempt that did not end got nowhere, as far as anybody knows.
        query = f"""
            SELECT {{attempts}}.job_id, {{attempts}}.fencing_token, {{attempts}}.owner, {{attempts}}.started_at, {now}
            FROM {{attempts}}
            LEFT JOIN {{jobs}} job ON job.id = {{attempts}}.job_id AND job.fencing_token = {{attempts}}.fencing_token
            WHERE {{attempts}}.job_id = :b_id ORDER BY {{attempts}}.fencing_token
        """
        return self._sql.query(query, "job_id", "owner")

    def granted(self, connection: Connection, job: Row) -> None:
        """Begin an attempt, and end the one before that gave nothing back; or go on with one under a new token.

        Args:
            connection: In the transaction of the grant.
            job: The row of the job since the grant.
        """
        parameters = {"b_id": job["id"], "b_owner": job["lease_owner"], "b_token": job["fencing_token"]}
        # To look first is cheaper than what mostly finds nothing to do.
        kept, unended, mine = connection.execute(self._found, parameters).one()
        if mine:
            connection.execute(self._go_on, parameters)
            return
        if unended:
            connection.execute(self._died, {"b_id": job["id"], **{f"b_job_{name}": job[name] for name in job}})
        connection.execute(self._begin, parameters)
        if kept >= KEPT_ATTEMPTS:
            connection.execute(self._trim, parameters)

    def given_back(self, connection: Connection, lease: Lease) -> None:
        """End the attempt of a lease that was just released, or drop it if it did nothing."""
        parameters = {"b_id": lease.job_id, "b_token": lease.fencing_token}
        for statement in (self._drop_unused, self._gave_back):
            connection.execute(statement, parameters)

    def forget(self, connection: Connection, job_id: str) -> None:
        """Remove all attempts of a job."""
        connection.execute(self._forget, {"b_id": job_id})

    def read(self, connection: Connection, job_id: str) -> list[AttemptRecord]:
        """Give the attempts of a job, the oldest first."""
        return [attempt_from_row(row) for row in connection.execute(self._read, {"b_id": job_id}).mappings()]
