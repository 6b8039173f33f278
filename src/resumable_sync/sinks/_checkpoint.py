"""The checkpoint that `SQLSink` keeps beside its rows, in the target's database.

One row for each job and target. It is locked by the first statement of every batch's transaction, so whoever asks waits
for a commit in flight, and sees what became of it.
"""

from functools import lru_cache
from typing import Any

import attrs
from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    MetaData,
    SmallInteger,
    Table,
    Text,
    Update,
    bindparam,
    insert,
    literal,
    select,
    update,
)
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.dialects.mysql import MEDIUMTEXT
from sqlalchemy.sql.elements import quoted_name

from resumable_sync._cursor import decode_cursor, encode_cursor
from resumable_sync._database import is_mysql
from resumable_sync._errors import ConfigurationError, LeaseLostError, StateCorruptError, StoreError
from resumable_sync._model import Batch, Checkpoint, Job
from resumable_sync.sinks._tables import OPTIONS, Name, create_own, permitted
from resumable_sync.sinks._zombies import Zombies

__all__ = ["CHECKPOINTS", "TargetCheckpoint"]

CHECKPOINTS = "resumable_sync_checkpoints"
BEGINNING = encode_cursor(None)


@lru_cache
def _table(schema: str | None) -> Table:
    return Table(
        CHECKPOINTS,
        MetaData(),
        Column("job_id", Name, primary_key=True),
        Column("target", Name, primary_key=True),
        Column("run_id", Name),
        # MySQL's TEXT holds 65,535 bytes, one short of the largest cursor.
        Column("cursor", Text().with_variant(MEDIUMTEXT(), "mysql", "mariadb"), nullable=False),
        Column("processed_records", BigInteger, nullable=False),
        Column("processed_batches", BigInteger, nullable=False),
        Column("finished", SmallInteger, nullable=False),
        Column("fencing_token", BigInteger, nullable=False),
        schema=None if schema is None else quoted_name(schema, quote=True),
        **OPTIONS,
    )


@lru_cache
def _advance(schema: str | None) -> Update:
    rows = _table(schema).c
    return (
        update(_table(schema))
        .where(
            rows.job_id == bindparam("of_job"),
            rows.target == bindparam("of_target"),
            rows.run_id == bindparam("of_run"),
            rows.fencing_token <= bindparam("token"),
            rows.cursor == bindparam("before"),
        )
        .values(
            cursor=bindparam("after"),
            processed_records=rows.processed_records + bindparam("count", type_=BigInteger),
            processed_batches=rows.processed_batches + 1,
            finished=0,
            fencing_token=bindparam("token"),
        )
    )


@attrs.define
class TargetCheckpoint:
    """The checkpoint of one target, for one job at a time; every method runs in a transaction of the caller's.

    Args:
        target: Name of the target, without its schema.
        schema: Schema of the target, where the table of checkpoints stands too: the role may write there, and SQLite
            commits rows and checkpoint together only in one file.
    """

    target: str
    schema: str | None
    run_id: str | None = None

    @property
    def _rows(self) -> Table:
        return _table(self.schema)

    def create(self, connection: Connection) -> None:
        """Make the table of checkpoints unless it exists.

        Raises:
            ConfigurationError: If it is missing and must not be made.
            DBAPIError: If making it fails otherwise.
        """
        create_own(connection, self._rows)

    def claim(self, connection: Connection, job: Job, token: int) -> Checkpoint | None:
        """Fence out every older token, and give the checkpoint of the job's run; None if there is none.

        Raises:
            ConfigurationError: If this role may not use the table.
            LeaseLostError: If the target has seen a newer token.
            StateCorruptError: If the row is damaged.
        """
        self.run_id = _run_id(job)
        Zombies(self.target, self.schema).end(connection, job.id, token)
        with permitted(connection, self._rows):
            row = self._take_over(connection, job.id, token)
        # Where runs are told by number alone, a finished one may have the number of the next.
        if row is None or row.run_id != self.run_id or (row.finished and not job.has_progress):
            return None
        if row.processed_records < 0 or row.processed_batches < 0:
            raise StateCorruptError(job.id, "processed_records", f"in table {CHECKPOINTS} is negative")
        return Checkpoint(
            run_id=job.run_id,
            cursor=decode_cursor(row.cursor, job_id=job.id),
            processed_records=row.processed_records,
            processed_batches=row.processed_batches,
        )

    def _take_over(self, connection: Connection, job_id: str, token: int) -> Any:
        claim = update(self._rows).where(self._mine(job_id), self._rows.c.fencing_token <= token)
        claim = claim.values(fencing_token=token)
        if connection.execute(claim).rowcount == 0:
            self._insert(connection, job_id, token)
            if connection.execute(claim).rowcount == 0:
                raise LeaseLostError(job_id, token)
        return self._read(connection, job_id)

    def begin(self, connection: Connection, job: Job, token: int) -> None:
        """Start the run's checkpoint if the run is new; one that it has already stays.

        Raises:
            LeaseLostError: If the target has seen a newer token.
            StoreError: If the run is not new and the target has nothing of it.
        """
        found = self.claim(connection, job, token)
        if found is not None:
            return
        if job.has_progress:
            msg = (
                f"job {job.id!r}: {job.processed_records} records of run {job.run} were processed, but the target "
                f"{self.target!r} has no checkpoint of that run: it was replaced, or the run was begun with another "
                "sink. Go on with that one, or start over with reset_job(job_id)"
            )
            raise StoreError(msg)
        start = update(self._rows).where(self._mine(job.id))
        connection.execute(
            start.values(run_id=self.run_id, cursor=BEGINNING, processed_records=0, processed_batches=0, finished=0)
        )

    def advance(self, connection: Connection, batch: Batch[Any]) -> bool:
        """Move the checkpoint behind a batch; its row stays locked until the transaction ends.

        Returns:
            Whether it moved; False if it stands behind the batch already, whose rows were written then.

        Raises:
            LeaseLostError: If the target has seen a newer token.
            ConfigurationError: If no run was begun.
            StoreError: If the batch does not follow on the checkpoint.
        """
        if self.run_id is None:
            msg = f"job {batch.job_id!r}: the sink was given a batch before begin(job); call that first"
            raise ConfigurationError(msg)
        cursor = encode_cursor(batch.cursor)
        moved = connection.execute(
            _advance(self.schema),
            {
                "of_job": batch.job_id,
                "of_target": self.target,
                "of_run": self.run_id,
                "token": batch.fencing_token,
                "before": encode_cursor(batch.previous_cursor),
                "after": cursor,
                "count": len(batch),
            },
        )
        if moved.rowcount == 1:
            return True
        row = self._read(connection, batch.job_id)
        if row is None or row.fencing_token > batch.fencing_token:
            raise LeaseLostError(batch.job_id, batch.fencing_token)
        if row.run_id == self.run_id and row.cursor == cursor:
            return False
        msg = (
            f"job {batch.job_id!r}: batch {batch.sequence} does not follow on the checkpoint of the target "
            f"{self.target!r} ({row.processed_batches} batches, {row.processed_records} records), and was not written: "
            "somebody changed one of them. Start over with reset_job(job_id)"
        )
        raise StoreError(msg)

    def finish(self, connection: Connection, job: Job) -> None:
        """Mark the run as finished."""
        rows = self._rows
        connection.execute(update(rows).where(self._mine(job.id), rows.c.run_id == _run_id(job)).values(finished=1))

    def _mine(self, job_id: str) -> Any:
        return (self._rows.c.job_id == job_id) & (self._rows.c.target == self.target)

    def _read(self, connection: Connection, job_id: str) -> Any:
        return connection.execute(select(self._rows).where(self._mine(job_id)).with_for_update()).one_or_none()

    def _insert(self, connection: Connection, job_id: str, token: int) -> None:
        values = {
            "job_id": job_id,
            "target": self.target,
            "run_id": None,
            "cursor": BEGINNING,
            "processed_records": 0,
            "processed_batches": 0,
            "finished": 0,
            "fencing_token": token,
        }
        if connection.dialect.name == "adbc":
            there = select(literal(1)).select_from(self._rows).where(self._mine(job_id)).exists()
            columns = [literal(value, self._rows.c[name].type) for name, value in values.items()]
            connection.execute(insert(self._rows).from_select(list(values), select(*columns).where(~there)))
        elif is_mysql(connection.dialect):
            connection.execute(mysql.insert(self._rows).values(values).prefix_with("IGNORE"))
        else:
            insert_into = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
            connection.execute(insert_into(self._rows).values(values).on_conflict_do_nothing())


def _run_id(job: Job) -> str:
    return job.run_id or f"run {job.run}"
