"""Getting a job to work on: look, decide, acquire the lease, look again."""

import logging
from collections.abc import Callable
from typing import TypeAlias

import attrs

from resumable_sync._attempts.host import new_owner, owner_gone
from resumable_sync._attempts.stop import Stop
from resumable_sync._errors import ConfigurationError, JobHeldError, LeaseLostError, describe_error
from resumable_sync._model import Job, Lease, utc_now
from resumable_sync._protocols import JobStore
from resumable_sync._restart import Decision, IfHeld, Rules, decide
from resumable_sync._retry import Retrier

__all__ = ["Granted", "Load", "acquire", "give_back", "look", "take"]

logger = logging.getLogger("resumable_sync")

Load: TypeAlias = Callable[[str], Job | None]
"""Gives a job by its id, as a store's `load` does."""

WAIT_SECONDS = 0.5
"""How often a held job is looked at with `if_held="wait"`."""

MAX_RACES = 20
"""How often somebody else may be faster between the look and the grant before the call gives up."""


@attrs.frozen(kw_only=True)
class Granted:
    """What came of trying to get a job.

    Attributes:
        job: As stored, without its lease; None if it is new.
        decision: What to do with it.
        lease: The lease; None where there is nothing to do.
    """

    job: Job | None
    decision: Decision
    lease: Lease | None


def look(load: Load, job_id: str, rules: Rules, retrier: Retrier) -> tuple[Job | None, Decision]:
    """Give the job as stored and what to do with it; changes nothing."""
    job = retrier.call("load", load, job_id)
    gone = job is not None and job.lease is not None and owner_gone(job.lease.owner)
    return job, decide(job, rules, now=utc_now(), owner_gone=gone)


def acquire(
    store: JobStore,
    job_id: str,
    rules: Rules,
    *,
    ttl: float,
    if_held: IfHeld,
    retrier: Retrier,
    stop: Stop,
    load: Load | None = None,
) -> Granted:
    """Get the lease of a job, unless there is nothing to do.

    The decision is made on what `load` shows (the store's, or another one for the first look), then again once the
    lease is ours, because another attempt may have finished in between.

    Raises:
        JobHeldError: If the lease is held and `if_held` is "raise".
        SourceChangedError: If the fingerprint differs and a change was not allowed.
        CrashLoopError: If too many attempts died in a row.
    """
    first, decision = look(load or store.load, job_id, rules, retrier)
    job, owner, races = first, new_owner(), 0
    while True:
        if decision.action == "held" and if_held == "wait":
            races = 0
            if stop.wait(WAIT_SECONDS):
                return Granted(job=job, decision=decision, lease=None)
            job, decision = look(store.load, job_id, rules, retrier)
            decision = _again(job, decision, rules, first)
            continue
        if decision.action == "refuse" or (decision.action == "held" and if_held == "raise"):
            raise decision.error or AssertionError(decision)
        if decision.action in ("skip", "held"):
            return Granted(job=job, decision=decision, lease=None)
        try:
            lease = retrier.call("acquire", _acquire, store, job_id, owner, ttl, decision.replacing)
        except JobHeldError as error:
            races += 1
            if races >= MAX_RACES:
                error.job_id = error.job_id or job_id
                raise
            job, decision = look(store.load, job_id, rules, retrier)
            decision = _again(job, decision, rules, first)
            continue
        return _decide_again(store, first, lease, rules, retrier)


def _acquire(store: JobStore, job_id: str, owner: str, ttl: float, replacing: int | None) -> Lease:
    try:
        return store.acquire(job_id, owner=owner, ttl=ttl, replacing=replacing)
    except JobHeldError as error:
        if error.owner != owner:
            raise
        return store.acquire(job_id, owner=owner, ttl=ttl)  # the answer to an earlier try was lost


def _again(job: Job | None, decision: Decision, rules: Rules, first: Job | None) -> Decision:
    """Decide on a later look: what finished since the first one is done."""
    if job is None or job.lease is not None:
        return decision
    return decide(job, rules, now=utc_now(), before=_before(first, job))


def _decide_again(store: JobStore, first: Job | None, lease: Lease, rules: Rules, retrier: Retrier) -> Granted:
    try:
        job, decision = _look_again(store, first, lease, rules, retrier)
    except BaseException:
        give_back(store, lease, retrier)
        raise
    if decision.action == "skip":
        give_back(store, lease, retrier)
        return Granted(job=job, decision=decision, lease=None)
    return Granted(job=job, decision=decision, lease=lease)


def _look_again(
    store: JobStore, first: Job | None, lease: Lease, rules: Rules, retrier: Retrier
) -> tuple[Job, Decision]:
    job = retrier.call("load", store.load, lease.job_id)
    if job is None:
        raise LeaseLostError(lease.job_id, lease.fencing_token)
    job = attrs.evolve(job, lease=None)
    decision = decide(job, rules, now=utc_now(), before=_before(first, job))
    if decision.error is not None:
        raise decision.error
    return job, decision


def _before(first: Job | None, job: Job) -> Job:
    return Job(id=job.id) if first is None else first


def take(store: JobStore, job_id: str, *, ttl: float, retrier: Retrier) -> tuple[Job, Lease]:
    """Get a job that exists for something that is no run, with its lease.

    Raises:
        ConfigurationError: If there is no such job.
        JobHeldError: If another live attempt holds it.
    """
    job = _load_known(store, job_id, retrier)
    gone = job.lease is not None and owner_gone(job.lease.owner)
    replacing = job.lease.fencing_token if job.lease is not None and gone else None
    try:
        lease = retrier.call("acquire", _acquire, store, job_id, new_owner(), ttl, replacing)
    except JobHeldError as error:
        error.job_id = error.job_id or job_id
        raise
    try:
        return attrs.evolve(_load_known(store, job_id, retrier), lease=None), lease
    except BaseException:
        give_back(store, lease, retrier)
        raise


def _load_known(store: JobStore, job_id: str, retrier: Retrier) -> Job:
    job = retrier.call("load", store.load, job_id)
    if job is None:
        msg = f"there is no job {job_id!r} in the store; give the job_id of a sync that ran, and its store"
        raise ConfigurationError(msg)
    return job


def give_back(store: JobStore, lease: Lease, retrier: Retrier) -> None:
    """Release a lease; that it cannot be released is no reason to fail, it ends by itself."""
    try:
        retrier.call("release", store.release, lease)
    except LeaseLostError:
        logger.warning("job %r: the lease was taken over before it could be released", lease.job_id)
    except Exception as error:  # noqa: BLE001 - a lease ends by itself; what the attempt did stands
        logger.warning(
            "job %r: the lease could not be released, it ends by itself: %s", lease.job_id, describe_error(error)
        )
