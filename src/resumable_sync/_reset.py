"""Starting a job over."""

import logging
from functools import partial

import attrs

from resumable_sync._attempts.acquire import give_back, take
from resumable_sync._attempts.checkpoint import Checkpoints
from resumable_sync._attempts.host import owner_gone
from resumable_sync._attempts.observers import Observers
from resumable_sync._attempts.stop import Stop, hold_off_signals
from resumable_sync._default_store import default_store
from resumable_sync._errors import JobHeldError
from resumable_sync._history import HistoryStore
from resumable_sync._lease import LeaseKeeper
from resumable_sync._model import Job, JobStatus
from resumable_sync._parts.plan import PartsPlan, part_id
from resumable_sync._protocols import DeadLetterStore, JobStore, StoreTransaction
from resumable_sync._retry import Retrier, Retry
from resumable_sync._validate import check_job_id

__all__ = ["reset_job"]

LEASE_TTL = 60.0

logger = logging.getLogger("resumable_sync")


def reset_job(job_id: str, *, store: JobStore | None = None) -> Job:
    """Have a job start over: its next call begins a new run at the beginning, whatever stood in the way.

    Cursor, counters, error, fingerprint and dead letters are forgotten, all together or not at all, and before them the
    history of the run and the jobs of its parts, if it was begun in parts; its number and the lineage are kept. What
    was delivered stays where it is. Unlike `store.delete`, which knows nothing of parts, it never takes a job away from
    an attempt that is at work.

    Args:
        job_id: The job.
        store: The job's store. None: the same one as of `run_full_sync`.

    Returns:
        The job as it is now stored: `pending`, without progress.

    Raises:
        ConfigurationError: If there is no such job.
        JobHeldError: If a live attempt holds it, or one of its parts; stop that first, such as with
            `store.request_stop(job_id)`.
        StoreError: If the store cannot be read or written, or the job is damaged.
        KeyboardInterrupt: If Ctrl-C was pressed.
    """
    check_job_id(job_id)
    if store is None:
        with default_store() as made:
            return _reset(job_id, made)
    return _reset(job_id, store)


def _reset(job_id: str, store: JobStore) -> Job:
    stop = Stop(None, None)
    report = partial(Observers(()).try_failed, job_id)
    retrier, patient = (Retrier(Retry(), wait, report) for wait in (stop.wait, stop.sit_out))

    def work() -> Job:
        job, lease = take(store, job_id, ttl=LEASE_TTL, retrier=retrier)
        keeper = LeaseKeeper(store, lease, LEASE_TTL, stop)
        checkpoints = Checkpoints(store, keeper, job, retrier=retrier, patient=patient, stop=stop)
        try:
            _forget_parts(store, checkpoints, patient)
            if isinstance(store, HistoryStore):
                patient.call("history", store.keep_history, None, keeper.lease)
            _forget(store, checkpoints)
        finally:
            give_back(store, keeper.last, patient)
        return checkpoints.job

    job = hold_off_signals(stop, work)
    logger.info("job %r: reset; the next call starts run %d at the beginning", job_id, job.run + 1)
    return job


def _forget_parts(store: JobStore, checkpoints: Checkpoints, patient: Retrier) -> None:
    """Delete the jobs of all parts, unless somebody is at work on one.

    Raises:
        JobHeldError: If somebody is.
    """
    whole = checkpoints.job
    plan = PartsPlan.of(whole.cursor)
    if plan is None:
        return
    # Whoever gets a part from here on finds out that its whole is not running, and delivers nothing.
    if whole.status is JobStatus.RUNNING:
        checkpoints.save(attrs.evolve(whole, status=JobStatus.INTERRUPTED))
    parts = [part_id(whole.id, index) for index in range(max(len(plan.places), plan.earlier))]
    for name in parts:
        part = patient.call("load", store.load, name)
        if part is not None and part.lease is not None and not owner_gone(part.lease.owner):
            if whole.status is JobStatus.RUNNING:
                checkpoints.save(whole)
            raise JobHeldError(part.lease.owner, part.lease.expires_at, name)
    for name in parts:
        patient.call("delete", store.delete, name)


def _forget(store: JobStore, checkpoints: Checkpoints) -> None:
    job = checkpoints.job
    # All but what names it and the run before: what later versions add to a job is forgotten too.
    fresh = Job(id=job.id, run=job.run, created_at=job.created_at)
    if not isinstance(store, DeadLetterStore):
        checkpoints.save(fresh)
        return

    def purge(transaction: StoreTransaction) -> Job:
        store.purge_dead_letters(job.id, transaction)
        return fresh

    checkpoints.transact("reset", purge)
