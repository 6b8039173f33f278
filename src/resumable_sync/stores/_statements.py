"""The statements that `SQLJobStore` sends, built once for a store."""

from typing import Any

from sqlalchemy import (
    BigInteger,
    BindParameter,
    Dialect,
    Insert,
    Table,
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

    Attributes:
        save_enlisted: Saves in a transaction of the caller's, which commits as he wants it.
        extended: Asks what `save` and `renew` made of the lease; None where they tell it themselves.
    """

    def __init__(
        self, tables: Tables, dialect: Dialect, version: int = SCHEMA_VERSION, *, relaxed: bool = False
    ) -> None:
        jobs, meta = tables.jobs, tables.meta
        columns, clock = jobs.c, Clock()
        # They get the types of the columns that they are compared with or added to.
        job_id: BindParameter[str] = bindparam("b_id")
        owner: BindParameter[str] = bindparam("b_owner")
        ttl: BindParameter[int] = bindparam("b_ttl")
        token: BindParameter[int] = bindparam("b_token")
        this, newest = columns.id == job_id, columns.fencing_token == token
        newest_deleted = select(meta.c.value).where(meta.c.name == "newest_deleted_token").scalar_subquery()
        free = or_(columns.lease_owner.is_(None), columns.lease_owner == owner, columns.lease_expires_at <= clock)
        lease = columns.fencing_token, columns.lease_owner, columns.lease_expires_at, columns.stop_requested

        there = (column for column in columns if JOB_COLUMN_SINCE.get(column.name, 1) <= version)
        every = select(*there, clock.label("now"))
        self.jobs = every.order_by(columns.id)
        self.load = every.where(this)
        self.lease = select(*lease).where(this)
        self.held_batches = select(columns.processed_batches).where(this, newest, columns.lease_ttl.is_not(None))
        self.create = insert_if_missing(jobs, dialect).values(**_new_job(clock))
        grant = update(jobs).ordered_values(
            # First, since on MySQL what follows sees the new owner.
            (columns.stop_requested, case((columns.lease_owner == owner, columns.stop_requested), else_=0)),
            (columns.fencing_token, Greatest(columns.fencing_token + 1, clock, func.coalesce(newest_deleted, 0) + 1)),
            (columns.lease_owner, owner),
            (columns.lease_ttl, ttl),
            (columns.lease_expires_at, clock + ttl),
        )
        self.grant = grant.where(this, free)
        self.replace = grant.where(this, newest)
        # A released lease has no ttl: what its owner still sends is refused.
        held = update(jobs).where(this, newest, columns.lease_ttl.is_not(None))
        save: Any = held.values(lease_expires_at=clock + columns.lease_ttl, saved_token=columns.fencing_token)
        renew: Any = held.values(lease_expires_at=clock + ttl, lease_ttl=ttl)
        enlisted = save
        extended = columns.lease_expires_at, columns.stop_requested
        self.extended: Prepared | None = None
        if dialect.update_returning:
            limit: list[Any] = [literal_column(_LIMIT_IDLE)] if dialect.name == "postgresql" else []
            if relaxed:
                save = save.where(columns.processed_batches.between(bindparam("b_least"), bindparam("b_most")))
            enlisted = save.returning(*extended, *limit)
            save = save.returning(*extended, *limit, *([literal_column(_RELAX)] if relaxed else []))
            renew = renew.returning(*extended)
        else:
            self.extended = Prepared(select(*extended).where(this), dialect)
        self.save = Prepared(save, dialect, JOB_COLUMNS)
        self.save_enlisted = Prepared(enlisted, dialect, JOB_COLUMNS) if relaxed else self.save
        self.renew = Prepared(renew, dialect)
        self.release = (
            update(jobs)
            .where(this, newest)
            .values(lease_owner=None, lease_ttl=None, lease_expires_at=None, stop_requested=0)
        )
        self.request_stop = update(jobs).where(this, columns.lease_expires_at > clock).values(stop_requested=1)
        self.token_to_delete = select(columns.fencing_token).where(this).with_for_update()
        self.note_deleted = (
            update(meta)
            .where(meta.c.name == "newest_deleted_token")
            .values(value=Greatest(meta.c.value, bindparam("b_token", type_=BigInteger())))
        )
        self.delete = delete(jobs).where(this)
        self._build_dead_letters(tables.dead_letters, clock)

    def _build_dead_letters(self, letters: Table, clock: Clock) -> None:
        this = letters.c.job_id == bindparam("b_id")
        created_at = func.coalesce(bindparam("b_created_at", type_=BigInteger()), clock)
        self.add_letter = insert(letters).values(created_at=created_at)
        self.letters = select(letters).where(this).order_by(letters.c.id)
        self.remove_letter = delete(letters).where(this, letters.c.id == bindparam("b_letter"))
        self.purge_letters = delete(letters).where(this)


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
