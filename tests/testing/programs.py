"""Syncs for the tests of the crash tests: with the engine, and with loops that get it wrong."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import attrs
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from resumable_sync import Batch, Job, JobStatus, transactional
from resumable_sync.stores.sql import SQLJobStore
from resumable_sync.testing import SyncParts
from testing.tiny_parts import RECORDS, TinyConnector

JOB_ID = "job"


def _insert(batch: Batch[Any], connection: Any) -> None:
    connection.execute(text("INSERT INTO target VALUES (:id)"), batch.dicts())


@attrs.frozen(kw_only=True)
class Program:
    """A sync of a list into a SQLite table, by the engine or by another loop."""

    folder: Path
    run: Callable[..., Any] | None = None
    options: dict[str, Any] = attrs.field(factory=lambda: {"batch_size": 5, "max_stalled_attempts": 1_000_000})

    @property
    def url(self) -> str:
        return f"sqlite:///{self.folder}/target.db"

    def make(self) -> SyncParts:
        store = SQLJobStore(self.url)
        sink = transactional(_insert)
        return SyncParts(
            job_id=JOB_ID, connector=TinyConnector(), sink=sink, store=store, options=self.options, run=self.run
        )

    def expected(self) -> Sequence[int]:
        return list(range(1, len(RECORDS) + 1))

    def delivered(self) -> Sequence[int]:
        return self._execute("SELECT n FROM target ORDER BY n")

    def reset(self) -> None:
        with SQLJobStore(self.url) as store:
            store.delete(JOB_ID)
        self._execute("CREATE TABLE IF NOT EXISTS target (n INTEGER)")
        self._execute("DELETE FROM target")

    def _execute(self, statement: str) -> list[int]:
        engine = create_engine(self.url, poolclass=NullPool)
        try:
            with engine.begin() as connection:
                result = connection.execute(text(statement))
                return list(result.scalars()) if result.returns_rows else []
        finally:
            engine.dispose()


@attrs.frozen(kw_only=True)
class _Result:
    status: JobStatus
    guarantee: str = "exactly_once"
    action: str = "resume"
    records: int = 0


def _loop(job_id: str, connector: Any, sink: Any, store: Any, *, wrong: str, batch_size: int) -> _Result:
    """Sync as somebody would who has not read the design."""
    known = store.load(job_id)
    token = known.lease.fencing_token if known and known.lease and wrong != "waits for the lease" else None
    lease = store.acquire(job_id, owner=f"process {os.getpid()}", ttl=60.0, replacing=token)
    job = store.load(job_id)
    begun = Job(id=job_id, status=JobStatus.RUNNING, run=1)
    job = begun if job is None or not job.has_progress or wrong == "starts from zero" else attrs.evolve(job, lease=None)
    for page in connector.read(job.cursor, batch_size):
        batch = Batch(
            records=page.records,
            cursor=page.cursor,
            previous_cursor=job.cursor,
            job_id=job_id,
            run=1,
            sequence=job.processed_batches,
            fencing_token=lease.fencing_token,
            key="",
        )
        job = attrs.evolve(job, cursor=page.cursor, processed_records=job.processed_records + len(page))
        if wrong == "saves before it writes":
            store.save(job, lease)
        with store.transaction() as transaction:
            sink.write(batch, transaction.connection)
            if wrong not in {"saves before it writes", "saves after it committed"}:
                transaction.save(job, lease)
        if wrong == "saves after it committed":
            store.save(job, lease)
    with store.transaction() as transaction:
        sink.complete(job, transaction.connection)
        if wrong != "forgets to complete":
            transaction.save(attrs.evolve(job, status=JobStatus.COMPLETED), lease)
    if wrong != "keeps the lease":
        store.release(lease)
    return _Result(status=JobStatus.COMPLETED)


@attrs.frozen
class Loop:
    """A loop that gets one thing wrong; nothing, if that is empty."""

    wrong: str

    def __call__(
        self, job_id: str, connector: Any, sink: Any, *, store: Any, batch_size: int, max_stalled_attempts: int
    ) -> _Result:
        return _loop(job_id, connector, sink, store, wrong=self.wrong, batch_size=batch_size)


def fail() -> SyncParts:
    """Make nothing."""
    msg = "nothing can be made"
    raise ValueError(msg)
