"""Delivering dead letters again."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import attrs

from resumable_sync._acquire import give_back, utc_now
from resumable_sync._checkpoint import Checkpoints
from resumable_sync._dead_letters import is_refusal, letter_key
from resumable_sync._errors import ConfigurationError, JobHeldError
from resumable_sync._host import new_owner, owner_gone
from resumable_sync._lease import LeaseKeeper
from resumable_sync._model import Batch, DeadLetter, Guarantee, Job, JobStatus, Lease, SyncResult
from resumable_sync._protocols import DeadLetterStore, JobStore, Sink, StoreTransaction
from resumable_sync._retry import Retrier, Retry
from resumable_sync._sinks import as_sink
from resumable_sync._stop import Stop
from resumable_sync._validate import check_job_id

__all__ = ["replay_dead_letters"]

LEASE_TTL = 60.0


def replay_dead_letters(
    job_id: str, sink: Sink[Any] | Callable[[Batch[Any]], object], *, store: JobStore
) -> SyncResult:
    """Deliver the dead letters of a job again, each exactly once; keep those that are refused again.

    Each letter is written, removed and counted in one transaction. When none is left, a job that is `incomplete`
    becomes `completed`.

    Args:
        job_id: The job.
        sink: A transactional sink, such as the one of the sync.
        store: The job's store; it must keep dead letters.

    Returns:
        What was done: `records` counts the letters delivered, `reason` says how many were refused again.

    Raises:
        ConfigurationError: If there is no such job, or sink or store cannot do this.
        JobHeldError: If another live attempt holds the job.
    """
    check_job_id(job_id)
    target = as_sink(sink)
    if not isinstance(store, DeadLetterStore):
        msg = f"job {job_id!r}: a {type(store).__name__} keeps no dead letters; use a store that does, as SQLJobStore"
        raise ConfigurationError(msg)
    if not target.transactional:
        msg = f"job {job_id!r}: replaying needs a transactional sink, such as SQLSink without url or transactional(f)"
        raise ConfigurationError(msg)
    started = time.monotonic()
    stop = Stop(None, None)
    retrier = Retrier(Retry(), stop.wait, lambda *_: None)
    job, lease = _take(job_id, store, retrier)
    keeper = LeaseKeeper(store, lease, LEASE_TTL, stop)
    keeper.start()
    try:
        checkpoints = Checkpoints(store, keeper, job, retrier=retrier, patient=retrier, stop=stop)
        replay = _Replay(target, store, checkpoints, keeper, retrier)
        replay.run()
    finally:
        keeper.close()
        give_back(store, keeper.last, retrier)
    return SyncResult(
        job=checkpoints.job,
        action="resume",
        status=checkpoints.job.status,
        records=replay.delivered,
        batches=replay.delivered,
        seconds=time.monotonic() - started,
        reason=f"{replay.refused} dead letters were refused again" if replay.refused else None,
        guarantee=Guarantee.EXACTLY_ONCE,
    )


def _take(job_id: str, store: JobStore, retrier: Retrier) -> tuple[Job, Lease]:
    """Get the lease of a job that exists; a replay makes none.

    Raises:
        ConfigurationError: If there is no such job.
        JobHeldError: If another live attempt holds it.
    """
    job = retrier.call("load", store.load, job_id)
    if job is None:
        msg = f"there is no job {job_id!r} in the store; give the job_id of the sync whose dead letters to replay"
        raise ConfigurationError(msg)
    replacing = job.lease.fencing_token if job.lease is not None and owner_gone(job.lease.owner) else None
    try:
        lease = store.acquire(job_id, owner=new_owner(), ttl=LEASE_TTL, replacing=replacing)
    except JobHeldError as error:
        error.job_id = error.job_id or job_id
        raise
    job = retrier.call("load", store.load, job_id)
    if job is None:
        msg = f"job {job_id!r} was deleted meanwhile; there is nothing to replay"
        raise ConfigurationError(msg)
    return attrs.evolve(job, lease=None), lease


@attrs.define
class _Replay:
    sink: Sink[Any]
    store: DeadLetterStore
    checkpoints: Checkpoints
    keeper: LeaseKeeper
    retrier: Retrier
    delivered: int = 0
    refused: int = 0

    def run(self) -> None:
        job = self.checkpoints.job
        self.checkpoints.transact("begin", self._begin)
        for letter in list(self.store.dead_letters(job.id)):
            if letter.run != job.run:
                continue
            try:
                self.checkpoints.transact("write", partial(self._deliver, letter))
                self.delivered += 1
            except Exception as error:
                if not is_refusal(error, self.retrier):
                    raise
                self.refused += 1
        job = self.checkpoints.job
        if job.status is JobStatus.INCOMPLETE and job.dead_letters == 0:
            self.checkpoints.transact("complete", self._complete)

    def _begin(self, transaction: StoreTransaction) -> Job:
        job = self.checkpoints.job
        self.sink.begin(attrs.evolve(job, lease=self.keeper.lease), transaction.connection)
        return job

    def _deliver(self, letter: DeadLetter, transaction: StoreTransaction) -> Job:
        job = self.checkpoints.job
        batch = Batch(
            records=[letter.record],
            columns=letter.columns,
            cursor=letter.cursor,
            previous_cursor=letter.cursor,
            job_id=job.id,
            run=job.run,
            sequence=job.processed_batches,
            fencing_token=self.keeper.lease.fencing_token,
            key=letter_key(letter),
        )
        self.sink.write(batch, transaction.connection)
        self.store.remove_dead_letter(letter, transaction)
        return attrs.evolve(job, processed_records=job.processed_records + 1, dead_letters=job.dead_letters - 1)

    def _complete(self, transaction: StoreTransaction) -> Job:
        done = attrs.evolve(self.checkpoints.job, status=JobStatus.COMPLETED, finished_at=utc_now())
        self.sink.complete(done, transaction.connection)
        return done
