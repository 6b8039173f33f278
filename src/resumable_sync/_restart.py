"""Restart detection: new, resume, skip, held or refused, as a pure function of values."""

from datetime import datetime, timedelta
from typing import Literal

import attrs

from resumable_sync._errors import (
    ConfigurationError,
    CrashLoopError,
    JobHeldError,
    ResumableSyncError,
    SourceChangedError,
)
from resumable_sync._fingerprint import changes, pinned_columns
from resumable_sync._model import Action, Cursor, Job, JobStatus

__all__ = ["Decision", "Rules", "after_move", "decide"]

IfCompleted = Literal["rerun", "skip"]
IfHeld = Literal["raise", "skip", "wait"]
IfChanged = Literal["raise", "rerun", "resume"]


@attrs.frozen(kw_only=True)
class Rules:
    """What of the arguments of a call matters for restart detection.

    Attributes:
        batch_size: Records per batch; the unit in which a job without a cursor counted. None where batches differ in
            size ("auto"): such a job counted record by record.
        fingerprint: The connector's, as text.
        if_completed: What to do with a finished job.
        if_changed: What to do when the fingerprint differs.
        resume_within: Seconds; an older checkpoint starts a new run. None: any age.
        max_stalled_attempts: How many attempts in a row may die without progress.
        seekable: Whether the connector has `cursor_at`.
        pins: Whether the connector has `pin`.
    """

    batch_size: int | None = 1_000
    fingerprint: str | None = None
    if_completed: IfCompleted = "rerun"
    if_changed: IfChanged = "raise"
    resume_within: float | None = None
    max_stalled_attempts: int = 5
    seekable: bool = False
    pins: bool = False


@attrs.frozen(kw_only=True)
class Decision:
    """What to do with a stored job.

    Attributes:
        action: As in `Plan`.
        reason: Why, in one sentence.
        fresh_run: Whether a new run begins (else the current one starts or goes on).
        cursor: Where reading starts.
        processed_records: Records of the run delivered before that.
        processed_batches: Batches of the run delivered before that.
        seek: The connector must find the cursor after that many records; None where `cursor` is the answer.
        columns: The columns to pin, which the run began with; None: those that the source has.
        replacing: Fencing token of the dead holder to take over from.
        error: What to raise for `held` and `refuse`.
        warning: Whether `reason` deserves a warning.
    """

    action: Action
    reason: str
    fresh_run: bool = False
    cursor: Cursor | None = None
    processed_records: int = 0
    processed_batches: int = 0
    seek: int | None = None
    columns: tuple[str, ...] | None = None
    replacing: int | None = None
    error: ResumableSyncError | None = None
    warning: bool = False


def decide(  # noqa: PLR0911 - a return per row of the table
    job: Job | None, rules: Rules, *, now: datetime, owner_gone: bool = False, before: Job | None = None
) -> Decision:
    """Decide what a call means for the stored job.

    Args:
        job: As stored, its lease only while alive; None if there is none.
        rules: The arguments that matter.
        now: The time (aware UTC).
        owner_gone: The live lease belongs to a process of this host that exists no more.
        before: At the second look, once the lease is ours: what the first look showed.

    Returns:
        The first row of the table in the design that fits.
    """
    if job is None:
        return Decision(action="new", reason="the job is not known yet")
    if job.status.exhausted and rules.if_completed == "skip":
        return _skip(job, f"run {job.run} is {job.status} and if_completed='skip'")
    if job.lease is not None:
        if not owner_gone:
            held = JobHeldError(job.lease.owner, job.lease.expires_at, job.id)
            return _at_checkpoint(job, "held", f"held by {job.lease.owner}", error=held)
        return attrs.evolve(
            decide(attrs.evolve(job, lease=None), rules, now=now, before=before), replacing=job.lease.fencing_token
        )
    if job.status.exhausted:
        if before is not None and not (before.status.exhausted and before.run == job.run):
            return _skip(job, f"{job.status} meanwhile by another attempt")
        return Decision(action="new", reason=f"run {job.run} is {job.status}", fresh_run=True)
    if job.stalled_attempts >= rules.max_stalled_attempts:
        loop = CrashLoopError(job.id, job.stalled_attempts, rules.max_stalled_attempts)
        return _at_checkpoint(job, "refuse", str(loop), error=loop)
    if job.status is JobStatus.PENDING or not job.has_progress:
        return Decision(action="new", reason="nothing was delivered yet", fresh_run=job.has_progress)
    return _resume(job, rules, now)


def _resume(job: Job, rules: Rules, now: datetime) -> Decision:
    ended = "the process died" if job.status is JobStatus.RUNNING else str(job.status)
    if rules.resume_within is not None and job.updated_at is not None:
        age = now - job.updated_at
        if age > timedelta(seconds=rules.resume_within):
            reason = (
                f"the checkpoint is {age.total_seconds():.0f} s old, more than resume_within={rules.resume_within:g}"
            )
            return Decision(action="new", reason=reason, fresh_run=True)
    changed = changes(job.fingerprint, rules.fingerprint, ordered=not rules.pins)
    told = f"the source changed: {', '.join(map(str, changed))}" if changed else ""
    impossible = [change.part for change in changed if change.impossible]
    if changed and rules.if_changed == "rerun":
        return Decision(action="new", reason=told, fresh_run=True)
    if changed and (rules.if_changed == "raise" or impossible):
        details = {change.part: change.detail for change in changed if change.detail}
        error = SourceChangedError(job.id, [change.part for change in changed], details, impossible)
        return _at_checkpoint(job, "refuse", str(error), error=error)
    if job.cursor is None:
        found = _seek(job, rules, ended)
    else:
        note = f" ({told})" if told else ""
        found = _at_checkpoint(job, "resume", f"the last attempt ended: {ended}{note}")
    pinned = pinned_columns(job.fingerprint, rules.fingerprint) if rules.pins else None
    return attrs.evolve(found, columns=pinned) if found.action == "resume" else found


def after_move(decision: Decision, moved: str, if_moved: str, job_id: str) -> Decision:
    """Decide again where the last record delivered is not there as it was.

    Args:
        decision: To resume.
        moved: What became of the record.
        if_moved: What the connector says to do then.
        job_id: The job.

    Raises:
        ConfigurationError: If the connector says something unknown.
    """
    what = f"the last record delivered {moved}"
    if if_moved == "warn":
        reason = f"{decision.reason}; {what}: was the source reloaded or restored, or is it another one?"
        return attrs.evolve(decision, reason=reason, warning=True)
    if if_moved == "rerun":
        return Decision(action="new", reason=what, fresh_run=True, replacing=decision.replacing, warning=True)
    if if_moved == "raise":
        error = SourceChangedError(job_id, ["anchor"], {"anchor": what})
        return attrs.evolve(decision, action="refuse", reason=str(error), error=error)
    msg = f"job {job_id!r}: the connector's if_moved is {if_moved!r}; let it be 'warn', 'raise' or 'rerun'"
    raise ConfigurationError(msg)


def _seek(job: Job, rules: Rules, ended: str) -> Decision:
    if not rules.seekable:
        reason = f"{job.processed_records} records were processed, but the connector has no cursor_at to find the place"
        return Decision(action="new", reason=reason, fresh_run=True, warning=True)
    if rules.batch_size is None:
        return Decision(
            action="resume",
            reason=f"the last attempt ended: {ended}; resuming after the {job.processed_records} records it processed",
            processed_records=job.processed_records,
            processed_batches=job.processed_batches,
            seek=job.processed_records,
        )
    batches = job.processed_records // rules.batch_size
    if batches == 0:
        return Decision(action="new", reason="not one whole batch was processed", fresh_run=True)
    return Decision(
        action="resume",
        reason=f"the last attempt ended: {ended}; resuming at the last whole batch of {rules.batch_size}",
        processed_records=batches * rules.batch_size,
        processed_batches=batches,
        seek=batches * rules.batch_size,
    )


def _skip(job: Job, reason: str) -> Decision:
    return _at_checkpoint(job, "skip", reason)


def _at_checkpoint(job: Job, action: Action, reason: str, error: ResumableSyncError | None = None) -> Decision:
    return Decision(
        action=action,
        reason=reason,
        cursor=job.cursor,
        processed_records=job.processed_records,
        processed_batches=job.processed_batches,
        error=error,
    )
