"""The start of an attempt: what the arguments promise, and the job and sink it begins with."""

import logging
from datetime import datetime
from typing import Any

import attrs

from resumable_sync._checkpoint import Checkpoints
from resumable_sync._errors import ConfigurationError, StoreError
from resumable_sync._model import (
    Checkpoint,
    Guarantee,
    Job,
    JobStatus,
    Lease,
    changed_parts,
    fingerprint_text,
    new_run_id,
)
from resumable_sync._options import Options
from resumable_sync._protocols import (
    CheckpointingSink,
    Connector,
    DeadLetterStore,
    DescribingConnector,
    JobStore,
    PreparingSink,
    SeekableConnector,
    Sink,
    StoreTransaction,
    TransactionalJobStore,
)
from resumable_sync._restart import Decision, Rules
from resumable_sync._retry import Retrier

__all__ = [
    "begin_sink",
    "check_ports",
    "drop_old_letters",
    "guarantee_of",
    "locate",
    "rules_of",
    "starting_job",
    "writes_in_transaction",
]

logger = logging.getLogger("resumable_sync")


def check_ports(job_id: str, connector: Any, sink: Sink | None, store: Any, options: Options) -> None:
    """Check that the pieces fit together.

    Raises:
        ConfigurationError: If one is no connector or store, or they cannot do together what the options ask for.
    """
    if isinstance(connector, type) or not callable(getattr(connector, "read", None)):
        msg = f"job {job_id!r}: {_shown(connector)} is no connector; give an object with read(cursor, batch_size)"
        raise ConfigurationError(msg)
    if isinstance(store, type) or not isinstance(store, JobStore):
        msg = f"job {job_id!r}: {_shown(store)} is no job store; give an object such as SQLJobStore(url)"
        raise ConfigurationError(msg)
    if options.on_refused == "dead_letter":
        if sink is None or not sink.transactional:
            msg = f"job {job_id!r}: on_refused='dead_letter' needs a transactional sink, such as SQLSink without url"
            raise ConfigurationError(msg)
        if not isinstance(store, DeadLetterStore):
            msg = f"job {job_id!r}: on_refused='dead_letter' needs a store that keeps dead letters, such as SQLJobStore"
            raise ConfigurationError(msg)


def _shown(thing: Any) -> str:
    return f"the class {thing.__name__}" if isinstance(thing, type) else f"a {type(thing).__name__}"


def writes_in_transaction(sink: Sink | None, store: JobStore) -> bool:
    """Whether sink and checkpoint commit together."""
    return sink is not None and sink.transactional and isinstance(store, TransactionalJobStore)


def guarantee_of(sink: Sink | None, store: JobStore) -> Guarantee:
    """Give what holds for the target, never more than is true."""
    if sink is None:
        return Guarantee.AT_LEAST_ONCE
    if writes_in_transaction(sink, store) or _keeps_checkpoint(sink):
        return Guarantee.EXACTLY_ONCE
    return Guarantee.EFFECTIVELY_ONCE if sink.idempotent else Guarantee.AT_LEAST_ONCE


def _keeps_checkpoint(sink: Sink) -> bool:
    return not sink.transactional and isinstance(sink, CheckpointingSink)


def rules_of(connector: Connector, options: Options, retrier: Retrier) -> Rules:
    """Give what restart detection needs to know; asks the connector for its fingerprint."""
    fingerprint = retrier.call("fingerprint", getattr, connector, "fingerprint", None)
    return Rules(
        batch_size=options.batch_size,
        fingerprint=fingerprint_text(fingerprint),
        if_completed=options.if_completed,
        if_changed=options.if_changed,
        resume_within=options.resume_within,
        max_stalled_attempts=options.max_stalled_attempts,
        seekable=isinstance(connector, SeekableConnector),
    )


def locate(connector: Connector, decision: Decision, retrier: Retrier) -> Decision:
    """Have the connector find the cursor of a job of which only the number of records is known."""
    if decision.seek is None:
        return decision
    assert isinstance(connector, SeekableConnector)  # noqa: S101 - a rule of the decision
    cursor = retrier.call("cursor_at", connector.cursor_at, decision.seek)
    if cursor is not None:
        return attrs.evolve(decision, cursor=cursor, seek=None)
    reason = f"{decision.seek} records were processed, but the source has no such place any more"
    return Decision(action="new", reason=reason, fresh_run=True, replacing=decision.replacing, warning=True)


def starting_job(job: Job, decision: Decision, fingerprint: str | None, now: datetime) -> Job:
    """Give the job as an attempt begins it: running, and counted as stalled until its first checkpoint."""
    begun = attrs.evolve(
        job,
        status=JobStatus.RUNNING,
        attempt=job.attempt + 1,
        cursor=decision.cursor,
        processed_records=decision.processed_records,
        processed_batches=decision.processed_batches,
        fingerprint=job.fingerprint if fingerprint is None else fingerprint,
        stalled_attempts=job.stalled_attempts + 1,
        error=None,
        finished_at=None,
    )
    if decision.action == "resume":
        return attrs.evolve(
            begun, run=max(job.run, 1), run_id=job.run_id or new_run_id(), started_at=job.started_at or now
        )
    # A sink's own checkpoint goes by the run id, and one of another source must not be taken for this one's.
    fresh = decision.fresh_run or job.run_id is None or bool(changed_parts(job.fingerprint, fingerprint))
    return attrs.evolve(
        begun,
        run=job.run + 1 if decision.fresh_run else max(job.run, 1),
        run_id=new_run_id() if fresh else job.run_id,
        attempt=1 if fresh else begun.attempt,
        total_records=None,
        dead_letters=0,
        fingerprint=fingerprint,
        started_at=now,
        updated_at=now,
    )


def drop_old_letters(store: JobStore, checkpoints: Checkpoints) -> None:
    """Drop the dead letters of earlier runs, at the start of a new one."""
    job = checkpoints.job
    if job.has_progress or not isinstance(store, DeadLetterStore):
        return

    def drop(transaction: StoreTransaction) -> Job:
        store.purge_dead_letters(job.id, transaction)
        return job

    checkpoints.transact("begin", drop)


def begin_sink(
    sink: Sink, connector: Connector, store: JobStore, checkpoints: Checkpoints, *, retrier: Retrier, lease: Lease
) -> None:
    """Prepare the sink for an attempt, and take over its own checkpoint where it is ahead of the store's.

    Args:
        sink: The sink.
        connector: The connector, asked for its columns where the sink wants them.
        store: The store.
        checkpoints: Holds the job as saved; is moved on to the sink's checkpoint.
        retrier: Calls again after transient errors.
        lease: The lease of this attempt, which the sink sees in `job.lease`.
    """
    if isinstance(sink, PreparingSink) and isinstance(connector, DescribingConnector):
        columns = retrier.call("columns", connector.columns)
        sink.prepare(columns)
    if _keeps_checkpoint(sink):
        assert isinstance(sink, CheckpointingSink)  # noqa: S101 - just asked
        kept = retrier.call("checkpoint", sink.checkpoint, attrs.evolve(checkpoints.job, lease=lease))
        reached = _reached(checkpoints.job, kept)
        if reached is not checkpoints.job:
            checkpoints.save(reached)
    job = checkpoints.job
    if not writes_in_transaction(sink, store):
        retrier.call("begin", sink.begin, attrs.evolve(job, lease=lease), None)
        return

    def begin(transaction: StoreTransaction) -> Job:
        sink.begin(attrs.evolve(job, lease=lease), transaction.connection)
        return job

    checkpoints.transact("begin", begin)


def _reached(job: Job, kept: Checkpoint | None) -> Job:
    """Give the job at the sink's checkpoint, which is the truth about what was written.

    Raises:
        StoreError: If the target lacks what the store says it had got.
    """
    same_run = kept is not None and kept.run_id == job.run_id
    batches = kept.processed_batches if kept is not None and same_run else 0
    if batches < job.processed_batches or (job.has_progress and not same_run):
        msg = (
            f"job {job.id!r}: the store says that {job.processed_records} records of run {job.run} reached the target, "
            f"but the target's own checkpoint shows {kept.processed_records if kept is not None and same_run else 0}; "
            "the target was replaced or restored. Start over with store.delete(job_id)"
        )
        raise StoreError(msg)
    if kept is None or batches == job.processed_batches:
        return job
    return attrs.evolve(
        job,
        cursor=kept.cursor,
        processed_records=kept.processed_records,
        processed_batches=kept.processed_batches,
    )
