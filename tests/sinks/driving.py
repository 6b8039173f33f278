"""Plays the engine for a sink, one call at a time."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import attrs
from sqlalchemy import Engine, column, create_engine, select, table, text

from resumable_sync import Batch, Checkpoint, Column, Job, Lease
from resumable_sync.sinks.sql import SQLSink

JOB_ID = "job"
CHECKPOINTS_TABLE = table(
    "resumable_sync_checkpoints",
    *map(column, ["job_id", "target", "run_id", "cursor", "processed_records", "processed_batches"]),
)


def lease(token: int) -> Lease:
    return Lease(job_id=JOB_ID, owner="owner", fencing_token=token, expires_at=datetime(2030, 1, 1, tzinfo=UTC))


def job(*, token: int = 1, run_id: str | None = "run 1", **changes: Any) -> Job:
    return Job(id=JOB_ID, run=1, run_id=run_id, lease=lease(token), **changes)


def batch(
    records: Any, columns: Sequence[str] | None = None, *, number: int = 0, token: int = 1, **changes: Any
) -> Batch[Any]:
    """Batch number 0, 1, ... of a run, between the cursors [number] and [number + 1]."""
    values: dict[str, Any] = {
        "records": records,
        "columns": columns,
        "cursor": [number + 1],
        "previous_cursor": [number] if number else None,
        "job_id": JOB_ID,
        "run": 1,
        "sequence": number,
        "fencing_token": token,
        "key": "0" * 32,
    }
    return Batch(**{**values, **changes})


def run(
    sink: SQLSink,
    engine: Engine,
    *batches: Batch[Any],
    columns: Sequence[Column] | None = None,
    run_id: str = "run 1",
) -> None:
    """Begin and write, each in a transaction of its own, with the sink's own url or without."""
    if columns is not None:
        sink.prepare(columns)
    if not sink.transactional:
        sink.checkpoint(job(run_id=run_id))
        sink.begin(job(run_id=run_id), None)
        for each in batches:
            sink.write(each, None)
        return
    with engine.begin() as connection:
        sink.begin(job(), connection)
    for each in batches:
        with engine.begin() as connection:
            sink.write(each, connection)


@attrs.frozen
class Target:
    """A fresh database as a target, with the sink's own url or in the store's database."""

    url: str
    engine: Engine
    own: bool

    @property
    def kind(self) -> str:
        return self.engine.dialect.name

    def sink(self, table: str, mode: Any, key: Any = None, **options: Any) -> SQLSink:
        return SQLSink(table, mode, key, self.url if self.own else None, **options)

    def execute(self, *statements: str) -> None:
        with self.engine.begin() as connection:
            for statement in statements:
                connection.execute(text(statement))

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        with self.engine.connect() as connection:
            return [tuple(row) for row in connection.execute(text(statement))]

    def write(self, sink: SQLSink, *batches: Batch[Any], **options: Any) -> None:
        run(sink, self.engine, *batches, **options)

    def again(self, sink: SQLSink, each: Batch[Any]) -> None:
        """Write a batch to a sink that was begun."""
        if self.own:
            sink.write(each, None)
        else:
            with self.engine.begin() as connection:
                sink.write(each, connection)


def kept(engine: Engine) -> list[Checkpoint]:
    """What the checkpoints of the target's database say."""
    rows = CHECKPOINTS_TABLE.alias()
    with engine.connect() as connection:
        return [
            Checkpoint(
                run_id=row.run_id.decode() if isinstance(row.run_id, bytes) else row.run_id,
                cursor=row.cursor,
                processed_records=row.processed_records,
                processed_batches=row.processed_batches,
            )
            for row in connection.execute(select(rows))
        ]


def open_target(url: str, *, own: bool) -> Target:
    return Target(url, create_engine(url), own)
