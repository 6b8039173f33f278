"""The statements that `SQLJobStore` sends, built once for a store."""

from collections.abc import Iterable
from functools import cached_property
from typing import Any

from sqlalchemy import (
    BigInteger,
    BindParameter,
    ColumnElement,
    Delete,
    Dialect,
    Insert,
    Select,
    Table,
    Update,
    and_,
    bindparam,
    case,
    delete,
    func,
    insert,
    literal_column,
    or_,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from resumable_sync._database import is_mysql
from resumable_sync._model import JobStatus
from resumable_sync.stores._prepared import Prepared
from resumable_sync.stores._rows import JOB_COLUMNS
from resumable_sync.stores._schema import JOB_COLUMN_SINCE, SCHEMA_VERSION, Clock, Greatest, Tables

__all__ = ["Statements", "insert_if_missing"]

# Once the job is saved, the transaction holds its row, which a successor waits for: it may then be idle for as long as
# the lease lasts, but not longer. That it is set here costs no round trip.
_LIMIT_IDLE = (
    "set_config('idle_in_transaction_session_timeout', "
    "CAST(LEAST(GREATEST(lease_ttl / 1000, 10000), 2147483647) AS TEXT), true)"
)
# A job that ends must have ended: its caller is told so.
_RELAX = (
    "set_config('synchronous_commit', "
    f"CASE status WHEN '{JobStatus.RUNNING.value}' THEN 'off' ELSE current_setting('synchronous_commit') END, true)"
)


class Statements:
    """All statements on the tables of one store.

    Parameters are named `b_id`, `b_token`, `b_owner`, `b_ttl` (microseconds), and after the columns of a row.

    Args:
        tables: The tables.
        dialect: What they are in.
        version: Which version of them; of an older one `load` and `jobs` may be used, and nothing else.
        relaxed: Whether the commit of a save on PostgreSQL need not wait for the disk. Saves then need `b_least` and
            `b_most`, the numbers of batches that the job may have.
    """

    def __init__(
        self, tables: Tables, dialect: Dialect, version: int = SCHEMA_VERSION, *, relaxed: bool = False
    ) -> None:
        self._tables = tables
        self._dialect = dialect
        self._version = version
        self._relaxed = relaxed
        columns = tables.jobs.c
        self._clock = Clock()
        # They get the types of the columns that they are compared with or added to.
        self._owner: BindParameter[str] = bindparam("b_owner")
        self._ttl: BindParameter[int] = bindparam("b_ttl")
        job_id: BindParameter[str] = bindparam("b_id")
        token: BindParameter[int] = bindparam("b_token")
        self._this, self._newest = columns.id == job_id, columns.fencing_token == token
        # A released lease has no ttl: what its owner still sends is refused.
        self._held = and_(self._this, self._newest, columns.lease_ttl.is_not(None))
        self._extended = columns.lease_expires_at, columns.stop_requested

    # To build a statement takes up to a millisecond, which counts at the start of a process: each when it is needed.

    @cached_property
    def load(self) -> Select[Any]:
        return self._every.where(self._this)

    @cached_property
    def jobs(self) -> Select[Any]:
        return self._every.order_by(self._tables.jobs.c.id)

    @property
    def _every(self) -> Select[Any]:
        columns = self._tables.jobs.c
        there = (column for column in columns if JOB_COLUMN_SINCE.get(column.name, 1) <= self._version)
        return select(*there, self._clock.label("now"))

    @cached_property
    def held_batches(self) -> Select[Any]:
        return select(self._tables.jobs.c.processed_batches).where(self._held)

    @cached_property
    def create(self) -> Insert:
        return insert_if_missing(self._tables.jobs, self._dialect).values(**_new_job(self._clock))

    @cached_property
    def grant(self) -> Update:
        columns = self._tables.jobs.c
        free = or_(
            columns.lease_owner.is_(None), columns.lease_owner == self._owner, columns.lease_expires_at <= self._clock
        )
        return self._grant.where(self._this, free)

    @cached_property
    def replace(self) -> Update:
        return self._grant.where(self._this, self._newest)

    @property
    def _grant(self) -> Update:
        columns, meta, clock = self._tables.jobs.c, self._tables.meta.c, self._clock
        newest_deleted = select(meta.value).where(meta.name == "newest_deleted_token").scalar_subquery()
        return update(self._tables.jobs).ordered_values(
            # First, since on MySQL what follows sees the new owner.
            (columns.stop_requested, case((columns.lease_owner == self._owner, columns.stop_requested), else_=0)),
            (columns.fencing_token, Greatest(columns.fencing_token + 1, clock, func.coalesce(newest_deleted, 0) + 1)),
            (columns.lease_owner, self._owner),
            (columns.lease_ttl, self._ttl),
            (columns.lease_expires_at, clock + self._ttl),
        )

    @cached_property
    def save(self) -> Prepared:
        return self._save(literal_column(_RELAX)) if self._relaxed else self._save()

    @cached_property
    def save_enlisted(self) -> Prepared:
        """Saves in a transaction of the caller's, which commits as he wants it."""
        return self._save() if self._relaxed else self.save

    def _save(self, *also: Any) -> Prepared:
        columns = self._tables.jobs.c
        extended: Any = self._clock + columns.lease_ttl
        held = update(self._tables.jobs).where(self._held)
        saved = held.values(lease_expires_at=extended, saved_token=columns.fencing_token)
        if self._relaxed:
            saved = saved.where(columns.processed_batches.between(bindparam("b_least"), bindparam("b_most")))
        limit: tuple[Any, ...] = (literal_column(_LIMIT_IDLE),) if self._dialect.name == "postgresql" else ()
        return self._prepare(saved, *limit, *also, columns=JOB_COLUMNS)

    @cached_property
    def renew(self) -> Prepared:
        extended: Any = self._clock + self._ttl
        held = update(self._tables.jobs).where(self._held)
        return self._prepare(held.values(lease_expires_at=extended, lease_ttl=self._ttl))

    @cached_property
    def extended(self) -> Prepared | None:
        """Asks what `save` and `renew` made of the lease; None where they tell it themselves."""
        if self._dialect.update_returning:
            return None
        return Prepared(select(*self._extended).where(self._this), self._dialect)

    def _prepare(self, extending: Update, *also: Any, columns: Iterable[str] = ()) -> Prepared:
        told: Any = extending.returning(*self._extended, *also) if self._dialect.update_returning else extending
        return Prepared(told, self._dialect, columns)

    @cached_property
    def release(self) -> Update:
        ended = {"lease_owner": None, "lease_ttl": None, "lease_expires_at": None, "stop_requested": 0}
        return update(self._tables.jobs).where(self._this, self._newest).values(ended)

    @cached_property
    def request_stop(self) -> Update:
        jobs = self._tables.jobs
        return update(jobs).where(self._this, jobs.c.lease_expires_at > self._clock).values(stop_requested=1)

    @cached_property
    def token_to_delete(self) -> Select[Any]:
        return select(self._tables.jobs.c.fencing_token).where(self._this).with_for_update()

    @cached_property
    def note_deleted(self) -> Update:
        meta = self._tables.meta
        newest = Greatest(meta.c.value, bindparam("b_token", type_=BigInteger()))
        return update(meta).where(meta.c.name == "newest_deleted_token").values(value=newest)

    @cached_property
    def delete(self) -> Delete:
        return delete(self._tables.jobs).where(self._this)

    @cached_property
    def add_letter(self) -> Insert:
        created_at = func.coalesce(bindparam("b_created_at", type_=BigInteger()), self._clock)
        return insert(self._tables.dead_letters).values(created_at=created_at)

    @cached_property
    def letters(self) -> Select[Any]:
        letters = self._tables.dead_letters
        return select(letters).where(self._of_job).order_by(letters.c.id)

    @cached_property
    def remove_letter(self) -> Delete:
        letters = self._tables.dead_letters
        return delete(letters).where(self._of_job, letters.c.id == bindparam("b_letter"))

    @cached_property
    def purge_letters(self) -> Delete:
        return delete(self._tables.dead_letters).where(self._of_job)

    @property
    def _of_job(self) -> ColumnElement[bool]:
        return self._tables.dead_letters.c.job_id == bindparam("b_id")


def insert_if_missing(table: Table, dialect: Dialect) -> Insert:
    """Give an INSERT that leaves a row of the same key as it is."""
    if is_mysql(dialect):
        return insert(table).prefix_with("IGNORE")
    if dialect.name == "postgresql":
        return postgresql.insert(table).on_conflict_do_nothing()
    return sqlite.insert(table).on_conflict_do_nothing()


def _new_job(clock: Clock) -> dict[str, Any]:
    counts = ("run", "attempt", "processed_records", "processed_batches", "dead_letters", "stalled_attempts")
    return {
        "id": bindparam("b_id"),
        "status": JobStatus.PENDING.value,
        **dict.fromkeys(counts, 0),
        "created_at": clock,
        "fencing_token": 0,
        "stop_requested": 0,
    }
