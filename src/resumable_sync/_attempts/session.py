"""From the arguments of a call to its plan, or to an attempt that holds the lease."""

import attrs

from resumable_sync._attempts.acquire import Load, acquire, give_back, look
from resumable_sync._attempts.attempt import Attempt
from resumable_sync._attempts.early import EarlyLook
from resumable_sync._attempts.pieces import Pieces
from resumable_sync._attempts.report import annotate, log_decision, plan_of, result_of
from resumable_sync._attempts.start import locate, offered_formats, pinned, rules_of
from resumable_sync._formats import RECORDS
from resumable_sync._lease import LeaseKeeper
from resumable_sync._model import Job, Lease, Plan, SyncResult
from resumable_sync._restart import Decision, Rules
from resumable_sync._retry import StopRequested

__all__ = ["Held", "hold", "open_attempt", "plan"]


def plan(pieces: Pieces) -> Plan:
    """Say what `open_attempt` would do; writes nothing."""
    try:
        rules = rules_of(pieces.connector, pieces.options, pieces.retrier)
        job, decision = look(pieces.store.load, pieces.job_id, rules, pieces.retrier)
        connector = pinned(pieces.connector, decision, pieces.retrier)
        decision = locate(pieces, connector, decision)
        offered = pieces.retrier.call("formats", offered_formats, pieces)
        return plan_of(job, decision, pieces, offered[0].name if offered else RECORDS)
    except StopRequested as stopped:
        raise (stopped.__cause__ or stopped) from None
    except Exception as error:
        annotate(error, pieces.job_id, None, None)
        raise


def open_attempt(pieces: Pieces) -> Attempt | SyncResult:
    """Decide, acquire the lease and begin; signals are handled from here until the attempt is closed.

    Returns:
        The attempt; or the result, if there is nothing to do, or something asked to stop at once.

    Raises:
        KeyboardInterrupt: If Ctrl-C ended it.
    """
    pieces.signals.__enter__()
    try:
        with pieces.stop.shield():
            opened = _open(pieces)
    except BaseException as error:
        pieces.signals.__exit__(None, None, None)
        annotate(error, pieces.job_id, None, None)
        if isinstance(error, StopRequested):  # no lease yet, so no result: what stands is why tries were needed
            raise (KeyboardInterrupt() if pieces.stop.interrupt else error.__cause__ or error) from None
        raise
    if isinstance(opened, SyncResult):
        pieces.signals.__exit__(None, None, None)
        if pieces.stop.interrupt:
            raise KeyboardInterrupt
    return opened


def _open(pieces: Pieces) -> Attempt | SyncResult:
    early = EarlyLook(pieces.store, pieces.job_id, pieces.connector)
    try:
        with pieces.stop.lifted():
            rules = rules_of(pieces.connector, pieces.options, pieces.retrier)
        held = hold(pieces, rules, early.load)
    finally:
        early.close()
    if isinstance(held, SyncResult):
        return held
    attempt = Attempt(pieces, held.job, held.decision, held.keeper)
    try:
        with pieces.stop.lifted():
            attempt.begin(rules.fingerprint)
    except BaseException as error:
        if attempt.close(error):
            return attempt.result
        raise
    return attempt


@attrs.frozen
class Held:
    """A job in hand.

    Attributes:
        job: As stored, without its lease.
        decision: What to do with it.
        keeper: Keeps its lease.
    """

    job: Job
    decision: Decision
    keeper: LeaseKeeper


def hold(pieces: Pieces, rules: Rules, load: Load | None = None) -> Held | SyncResult:
    """Acquire a job and begin to renew its lease; the result, if there is nothing to do.

    Args:
        pieces: What the call works with.
        rules: What decides.
        load: Gives the job for the first look; None: the store's.
    """
    granted = acquire(
        pieces.store,
        pieces.job_id,
        rules,
        ttl=pieces.options.lease_ttl,
        if_held=pieces.options.if_held,
        retrier=pieces.retrier,
        stop=pieces.stop,
        load=load,
    )
    if granted.lease is None or granted.job is None:
        return _passed_over(pieces, granted.job, granted.decision)
    return Held(granted.job, granted.decision, _keep(pieces, granted.lease))


def _keep(pieces: Pieces, lease: Lease) -> LeaseKeeper:
    """Begin to renew a lease; it is given back if that cannot be."""
    keeper = LeaseKeeper(pieces.store, lease, pieces.options.lease_ttl, pieces.stop)
    try:
        keeper.start()
    except BaseException:
        give_back(pieces.store, lease, pieces.patient)
        raise
    return keeper


def _passed_over(pieces: Pieces, job: Job | None, decision: Decision) -> SyncResult:
    """Give the result of a call that found nothing to do, or somebody else at it."""
    log_decision(pieces.job_id, job, decision, pieces.guarantee)
    reason = decision.reason
    if pieces.stop.reason is not None:
        reason = f"{reason}; stopped waiting: {pieces.stop.reason}"
    return result_of(pieces, job or Job(id=pieces.job_id), decision.action, reason)
