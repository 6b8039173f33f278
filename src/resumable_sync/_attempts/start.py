"""The start of an attempt: what the arguments promise, and the job and sink it begins with."""

from collections.abc import Sequence
from datetime import datetime

import attrs

from resumable_sync._attempts.checkpoint import Checkpoints
from resumable_sync._attempts.options import DEFAULT_BATCH_SIZE, BatchSize, Options
from resumable_sync._attempts.pieces import Pieces
from resumable_sync._attempts.ports import keeps_checkpoint, writes_in_transaction
from resumable_sync._attempts.unpublished import refuse_unpublished
from resumable_sync._errors import ConfigurationError, SourceChangedError, StoreError
from resumable_sync._fingerprint import carried_on, changes, fingerprint_text, named_columns
from resumable_sync._formats import Format, FormattingConnector, FormattingSink
from resumable_sync._lease import LeaseKeeper
from resumable_sync._model import (
    Checkpoint,
    Job,
    JobStatus,
    new_run_id,
)
from resumable_sync._parts.plan import refuse_partitioned
from resumable_sync._protocols import (
    AnchoredConnector,
    CheckpointingSink,
    Connector,
    DeadLetterStore,
    DescribingConnector,
    JobStore,
    PinnableConnector,
    PreparingSink,
    SeekableConnector,
    Sink,
    StoreTransaction,
    TransactionalJobStore,
)
from resumable_sync._restart import Decision, Rules, after_move
from resumable_sync._retry import Retrier

__all__ = [
    "batch_size_of",
    "begin_sink",
    "drop_old_letters",
    "in_best_format",
    "locate",
    "of_its_own",
    "offered_formats",
    "pinned",
    "prefetch_of",
    "rules_of",
    "starting_job",
    "suiting_batch_size",
]


def rules_of(connector: Connector, options: Options, retrier: Retrier) -> Rules:
    """Give what restart detection needs to know; asks the connector for its fingerprint."""
    fingerprint = retrier.call("fingerprint", getattr, connector, "fingerprint", None)
    return Rules(
        batch_size=None if options.batch_size == "auto" else options.batch_size or DEFAULT_BATCH_SIZE,
        fingerprint=fingerprint_text(fingerprint),
        if_completed=options.if_completed,
        if_changed=options.if_changed,
        resume_within=options.resume_within,
        max_stalled_attempts=options.max_stalled_attempts,
        seekable=isinstance(connector, SeekableConnector),
        pins=_pins(connector),
    )


def _pins(connector: object) -> bool:
    # What only hands on the attributes of another object would not be asked for the records any more.
    return hasattr(type(connector), "pin") and isinstance(connector, PinnableConnector)


def pinned(connector: Connector, decision: Decision, retrier: Retrier) -> Connector:
    """Give the connector that reads the columns which the run began with."""
    if decision.columns is None:
        return connector
    assert isinstance(connector, PinnableConnector)  # noqa: S101 - a rule of the decision
    narrowed: Connector = retrier.call("pin", connector.pin, decision.columns)
    return narrowed


def of_its_own(connector: Connector, fingerprint: str | None, retrier: Retrier) -> Connector:
    """Give a connector that reads all columns of the fingerprint, and that nobody else has.

    The caller's may be asked for its fingerprint, and look its source up anew, while an attempt reads: for a plan, or
    by another sync. Where it cannot give another one of itself, it is the caller's.
    """
    columns = named_columns(fingerprint)
    if columns is None or not _pins(connector):
        return connector
    assert isinstance(connector, PinnableConnector)  # noqa: S101 - just asked
    own: Connector = retrier.call("pin", connector.pin, columns)
    return own


def locate(pieces: Pieces, connector: Connector, decision: Decision) -> Decision:
    """Have the connector look at the place where reading goes on.

    It finds the cursor of a job of which only the number of records is known; and where it can, it looks whether the
    last record delivered is still there as it was.
    """
    refuse_partitioned(pieces.job_id, decision.cursor)
    if decision.seek is None:
        return _anchored(pieces, connector, decision)
    assert isinstance(connector, SeekableConnector)  # noqa: S101 - a rule of the decision
    cursor = pieces.retrier.call("cursor_at", connector.cursor_at, decision.seek)
    if cursor is not None:
        return attrs.evolve(decision, cursor=cursor, seek=None)
    reason = f"{decision.seek} records were processed, but the source has no such place any more"
    return Decision(action="new", reason=reason, fresh_run=True, replacing=decision.replacing, warning=True)


def _anchored(pieces: Pieces, connector: Connector, decision: Decision) -> Decision:
    if decision.action != "resume" or not isinstance(connector, AnchoredConnector):
        return decision
    moved = pieces.retrier.call("moved", connector.moved, decision.cursor)
    if moved is None:
        return decision
    decision = after_move(decision, moved, connector.if_moved, pieces.job_id)
    if decision.fresh_run and pieces.whole is not None:
        told = f"{decision.reason}; a part begins no run of its own"
        error = SourceChangedError(pieces.whole.id, ["anchor"], {"anchor": told})
        return attrs.evolve(decision, action="refuse", error=error)
    return decision


def batch_size_of(pieces: Pieces) -> BatchSize:
    """Give how many records make a batch: what the caller says, else what suits both connector and sink."""
    if pieces.options.batch_size is not None:
        return pieces.options.batch_size
    return suiting_batch_size(pieces.connector, pieces.sink)


def suiting_batch_size(connector: object, sink: object) -> int:
    """Give how many records make a batch where the caller says nothing: the smaller one of two wishes."""
    suits_sink = _wish(sink, "preferred_batch_size", 1) or DEFAULT_BATCH_SIZE
    return min(suits_sink, _wish(connector, "preferred_batch_size", 1) or suits_sink)


def prefetch_of(pieces: Pieces) -> int:
    """Give how many pages are read ahead: what the caller says, else what suits both connector and sink."""
    if pieces.options.prefetch is not None:
        return pieces.options.prefetch
    wishes = _wish(pieces.connector, "preferred_prefetch", 0), _wish(pieces.sink, "preferred_prefetch", 0)
    suits_connector = 1 if wishes[0] is None else wishes[0]
    return suits_connector if wishes[1] is None else min(wishes[1], suits_connector)


def _wish(port: object, name: str, least: int) -> int | None:
    wish: object = getattr(port, name, None)
    return wish if type(wish) is int and wish >= least else None


def starting_job(job: Job, decision: Decision, fingerprint: str | None, now: datetime) -> Job:
    """Give the job as an attempt begins it: running, and counted as stalled until its first checkpoint."""
    begun = attrs.evolve(
        job,
        status=JobStatus.RUNNING,
        attempt=job.attempt + 1,
        cursor=decision.cursor,
        processed_records=decision.processed_records,
        processed_batches=decision.processed_batches,
        fingerprint=carried_on(job.fingerprint, fingerprint, decision.columns),
        stalled_attempts=job.stalled_attempts + 1,
        error=None,
        finished_at=None,
    )
    if decision.action == "resume":
        return attrs.evolve(
            begun, run=max(job.run, 1), run_id=job.run_id or new_run_id(), started_at=job.started_at or now
        )
    # A sink's own checkpoint goes by the run id, and one of another source must not be taken for this one's.
    fresh = decision.fresh_run or job.run_id is None or bool(changes(job.fingerprint, fingerprint))
    # A job that is pending has had its last run, if any: it was reset.
    next_run = decision.fresh_run or job.status is JobStatus.PENDING
    return attrs.evolve(
        begun,
        run=job.run + 1 if next_run else max(job.run, 1),
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


def begin_sink(pieces: Pieces, sink: Sink, checkpoints: Checkpoints, keeper: LeaseKeeper) -> None:
    """Prepare the sink for an attempt, and take over its own checkpoint where it is ahead of the store's.

    Args:
        pieces: What the call works with.
        sink: The sink.
        checkpoints: Holds the job as saved; is moved on to the sink's checkpoint.
        keeper: Keeps the lease, which the sink sees in `job.lease`.
    """
    retrier = pieces.retrier
    if isinstance(sink, PreparingSink) and isinstance(pieces.connector, DescribingConnector):
        columns = retrier.call("columns", pieces.connector.columns)
        sink.prepare(columns)
    keeper.assure(pieces.patient)  # a process that slept while it asked must not prepare what its successor filled

    def with_lease() -> Job:
        return attrs.evolve(checkpoints.job, lease=keeper.lease)

    if keeps_checkpoint(sink):
        assert isinstance(sink, CheckpointingSink)  # noqa: S101 - just asked
        _check_run_is_kept(pieces.store, checkpoints.job, retrier)
        kept = retrier.call("checkpoint", sink.checkpoint, with_lease())
        reached = _reached(checkpoints.job, kept)
        if reached is not checkpoints.job:
            checkpoints.save(reached)
    if not writes_in_transaction(sink, pieces.store):
        _begin_outside(pieces, sink, checkpoints, with_lease())
        return

    def begin(transaction: StoreTransaction) -> Job:
        leased = with_lease()
        sink.begin(leased, transaction.connection)
        refuse_unpublished(leased, transaction.connection)
        return checkpoints.job

    checkpoints.transact("begin", begin)


def offered_formats(pieces: Pieces) -> Sequence[Format]:
    """Give the formats in which connector and sink can deal with each other, if the target suits them."""
    options = pieces.options
    if not options.fast_path or options.on_refused == "dead_letter":
        return ()  # a batch of which records are refused is taken apart
    connector: object = pieces.connector
    # What only hands on the attributes of another object wants to see the records itself.
    own = hasattr(type(connector), "formats") and hasattr(type(pieces.sink), "takes")
    if not own or not isinstance(connector, FormattingConnector):
        return ()
    known = getattr(pieces.sink, "known_formats", None)
    return [offered for offered in connector.formats() if known is None or offered.name in known]


def in_best_format(pieces: Pieces, job: Job) -> Pieces:
    """Have the connector give records in the best format that the sink takes; where there is none, Python values."""
    for offered in pieces.retrier.call("formats", offered_formats, pieces):
        sink: object = pieces.sink
        connector: object = pieces.connector
        assert isinstance(sink, FormattingSink)  # noqa: S101 - nothing is offered to others
        assert isinstance(connector, FormattingConnector)  # noqa: S101
        if sink.takes(offered, job):
            return attrs.evolve(pieces, connector=connector.in_format(offered), format=offered.name)
    return pieces


def _begin_outside(pieces: Pieces, sink: Sink, checkpoints: Checkpoints, leased: Job) -> None:
    pieces.retrier.call("begin", sink.begin, leased, None)
    if not leased.has_progress or not isinstance(pieces.store, TransactionalJobStore):
        return

    def look(transaction: StoreTransaction) -> Job:
        refuse_unpublished(leased, transaction.connection)
        return checkpoints.job

    checkpoints.transact("begin", look)


def _check_run_is_kept(store: JobStore, job: Job, retrier: Retrier) -> None:
    """See to it that the store keeps what ties it to the sink's checkpoint.

    Raises:
        ConfigurationError: If it does not.
    """
    stored = retrier.call("load", store.load, job.id)
    if stored is None or stored.run_id != job.run_id:
        msg = (
            f"job {job.id!r}: the sink keeps its own checkpoint, which belongs to a run, but the "
            f"{type(store).__name__} does not keep run_id; give its table a column for it, or use another store or sink"
        )
        raise ConfigurationError(msg)


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
            "the target was replaced or restored. Start over with reset_job(job_id)"
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
