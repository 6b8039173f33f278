"""The lineage of attempts in a SQL database, written in the transactions that grant leases and give them back.

No checkpoint costs a statement more: how far an attempt is, and how it ended, stands in the row of its job until its
lease is given back or the next one is granted, which copies it. What that says of an attempt is worked out by the
database, whatever is in the row.
"""

from functools import cached_property
from types import SimpleNamespace
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Delete,
    Dialect,
    Executable,
    Insert,
    Select,
    Update,
    and_,
    bindparam,
    case,
    delete,
    exists,
    func,
    null,
    or_,
    select,
    update,
)

from resumable_sync._model import AttemptRecord, JobStatus, Lease
from resumable_sync.stores._leases import KEPT_ATTEMPTS
from resumable_sync.stores._rows import Row, attempt_from_row
from resumable_sync.stores._schema import IDENTIFIER, Clock, Tables
from resumable_sync.stores._statements import insert_if_missing

__all__ = ["Lineage"]

_AT_WORK = (JobStatus.PENDING, JobStatus.RUNNING)
_ENDED = [status.value for status in JobStatus if status not in _AT_WORK]


class Lineage:
    """The attempts of one store. Whoever writes has locked the row of the job before.

    Parameters are named as those of `Statements`.
    """

    def __init__(self, tables: Tables, dialect: Dialect) -> None:
        self._tables = tables
        self._dialect = dialect
        one = tables.attempts.c
        self._clock = Clock()
        self._job_id = bindparam("b_id", type_=IDENTIFIER)
        self._token = bindparam("b_token", type_=BigInteger())
        owner = bindparam("b_owner", type_=IDENTIFIER)
        self._this, self._unended = one.job_id == self._job_id, one.outcome.is_(None)
        self._mine = and_(self._unended, one.owner == owner)

    # To build a statement takes up to a millisecond, which counts at the start of a process: each when it is needed.

    @cached_property
    def _found(self) -> Executable:
        unended, mine = (func.sum(case((which, 1), else_=0)) for which in (self._unended, self._mine))
        return select(func.count(), unended, mine).where(self._this)

    @cached_property
    def _go_on(self) -> Update:
        return update(self._tables.attempts).where(self._this, self._mine).values(fencing_token=self._token)

    @cached_property
    def _died(self) -> Update:
        # The job is given, since SQLAlchemy takes 5 ms to write one subquery for each column.
        job: Any = SimpleNamespace(**{c.name: bindparam(f"b_job_{c.name}", type_=c.type) for c in self._tables.jobs.c})
        one, clock, said = self._tables.attempts.c, self._clock, self._said(job)
        state = self._state(
            job,
            outcome=case((said, job.status), else_="died"),
            error=case((said, job.error), else_=null()),
            ended_at=case((said, func.coalesce(job.finished_at, clock)), else_=clock),
        )
        values = [(one[name], value) for name, value in state.items()]
        return update(self._tables.attempts).ordered_values(*values).where(self._this, self._unended)

    @cached_property
    def _gave_back(self) -> Update:
        attempts, job = self._tables.attempts, self._tables.jobs.c
        state = self._state(
            job,
            outcome=case((job.status.in_(_ENDED), job.status), else_="interrupted"),
            error=job.error,
            ended_at=self._clock,
        )
        values = [
            (attempts.c[name], select(value).where(job.id == attempts.c.job_id).scalar_subquery())
            for name, value in state.items()
        ]
        ended = update(attempts).ordered_values(*values)
        return ended.where(self._this, self._unended, attempts.c.fencing_token == self._token)

    @cached_property
    def _drop_unused(self) -> Delete:
        attempts = self._tables.attempts
        job = self._tables.jobs.c
        in_use = exists().where(job.id == attempts.c.job_id, self._used(job))
        return delete(attempts).where(self._this, self._unended, attempts.c.fencing_token == self._token, ~in_use)

    @cached_property
    def _begin(self) -> Insert:
        job = self._tables.jobs.c
        begun = {
            "job_id": job.id,
            "fencing_token": job.fencing_token,
            "owner": job.lease_owner,
            "from_cursor": job.cursor,
            "from_records": job.processed_records,
            "started_at": self._clock,
            "run": job.run,
            "attempt": job.attempt,
        }
        source = select(*begun.values()).where(job.id == self._job_id)
        return insert_if_missing(self._tables.attempts, self._dialect).from_select(list(begun), source)

    @cached_property
    def _trim(self) -> Delete:
        one = self._tables.attempts.c
        newest = select(one.fencing_token).where(self._this).order_by(one.fencing_token.desc())
        # A derived table, since MySQL does not delete from a table what it selects from it.
        last = newest.limit(1).offset(KEPT_ATTEMPTS - 1).subquery("last_kept")
        older = one.fencing_token < select(last.c.fencing_token).scalar_subquery()
        return delete(self._tables.attempts).where(self._this, older)

    @cached_property
    def _forget(self) -> Delete:
        return delete(self._tables.attempts).where(self._this)

    @cached_property
    def _read(self) -> Select[Any]:
        attempts, jobs = self._tables.attempts, self._tables.jobs
        one, job = attempts.c, jobs.c
        said = self._said(job)
        alive = and_(job.lease_owner.is_not(None), job.lease_expires_at > self._clock)
        now = self._state(
            job,
            outcome=case((said, job.status), (alive, "running"), else_="died"),
            error=case((said, job.error), else_=null()),
            ended_at=case((said, job.finished_at), else_=null()),
        )
        shown = [case((self._unended, now[c.name]), else_=c).label(c.name) if c.name in now else c for c in one]
        # Without a job that it belongs to, an attempt that did not end got nowhere, as far as anybody knows.
        held = attempts.outerjoin(jobs, and_(job.id == one.job_id, job.fencing_token == one.fencing_token))
        return select(*shown).select_from(held).where(self._this).order_by(one.fencing_token)

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

    # What follows works with the columns of the jobs, or with parameters of their names.

    def _used(self, job: Any) -> ColumnElement[bool]:
        """Whether an attempt has saved the job."""
        token = self._tables.attempts.c.fencing_token
        return and_(token == job.saved_token, job.status != JobStatus.PENDING.value)

    def _said(self, job: Any) -> ColumnElement[bool]:
        """Whether the row of the job says how an attempt ended."""
        one = self._tables.attempts.c
        # A replay of dead letters leaves the number and mostly the status as they were: they do not say that it ended.
        moved = or_(one.run != job.run, one.attempt != job.attempt, job.status == JobStatus.COMPLETED.value)
        return and_(self._used(job), job.status.in_(_ENDED), moved)

    def _state(self, job: Any, **end: ColumnElement[Any]) -> dict[str, ColumnElement[Any]]:
        """Give what the row of the job says about the newest attempt, by column of the attempts.

        Run and attempt come last: MySQL sets one column after the other, and then no longer knows what they were.
        """
        one = self._tables.attempts.c
        begun = one.run != job.run
        return {
            "from_cursor": case((begun, null()), else_=one.from_cursor),
            "from_records": case((begun, 0), else_=one.from_records),
            "to_cursor": case((job.id.is_(None), one.from_cursor), else_=job.cursor),
            "to_records": func.coalesce(job.processed_records, one.from_records),
            **end,
            "run": func.coalesce(job.run, one.run),
            "attempt": func.coalesce(job.attempt, one.attempt),
        }
