"""What a call says of itself: its plan, its log lines, and the notes on its errors."""

import logging
import time
from typing import Any

from resumable_sync._attempts.pieces import Pieces
from resumable_sync._errors import CursorError, JobHeldError, LeaseLostError
from resumable_sync._formats import RECORDS
from resumable_sync._model import Action, Batch, Guarantee, Job, Plan, SyncResult
from resumable_sync._restart import Decision

__all__ = ["annotate", "log_decision", "log_end", "plan_of", "result_of", "warn_of_shortfall"]

logger = logging.getLogger("resumable_sync")

NOTE = "job "
"""How the library's notes on other people's errors begin."""


def plan_of(job: Job | None, decision: Decision, pieces: Pieces, format_: str = RECORDS) -> Plan:
    """Give a decision in the form that callers see."""
    return Plan(
        action=decision.action,
        reason=decision.reason,
        cursor=decision.cursor,
        processed_records=decision.processed_records,
        total_records=_total(job, decision),
        guarantee=pieces.guarantee,
        job=job,
        format=format_,
        durability=getattr(pieces.store, "durability", "full"),
    )


def log_decision(job_id: str, job: Job | None, decision: Decision, guarantee: Guarantee) -> None:
    """Log a decision in one line."""
    total = _total(job, decision)
    logger.log(
        logging.WARNING if decision.warning else logging.INFO,
        "job %r: %s (%s); at record %d of %s, %s",
        job_id,
        decision.action,
        decision.reason,
        decision.processed_records,
        "an unknown number" if total is None else total,
        guarantee,
    )


def _total(job: Job | None, decision: Decision) -> int | None:
    """Give what the run counted that is gone on with; one that begins has not counted yet."""
    return None if job is None or decision.action == "new" else job.total_records


def warn_of_shortfall(job: Job) -> None:
    """Warn where a finished run has fewer records than were counted at its start."""
    records = job.processed_records + job.dead_letters
    if job.total_records is not None and records < job.total_records:
        logger.warning(
            "job %r: %s with %d records although %d were counted at its start",
            job.id,
            job.status,
            records,
            job.total_records,
        )


def result_of(
    pieces: Pieces, job: Job, action: Action, reason: str | None, *, records: int = 0, batches: int = 0
) -> SyncResult:
    """Give what a call did."""
    return SyncResult(
        job=job,
        action=action,
        status=job.status,
        records=records,
        batches=batches,
        seconds=time.monotonic() - pieces.started,
        reason=reason,
        guarantee=pieces.guarantee,
        format=pieces.format,
    )


def log_end(result: SyncResult) -> None:
    """Log in one line how an attempt ended."""
    logger.info(
        "job %r: %s after %d records in %.1f s%s%s",
        result.job.id,
        result.status,
        result.records,
        result.seconds,
        "" if result.format == RECORDS else f", as {result.format}",
        f" ({result.reason})" if result.reason else "",
    )


def annotate(error: BaseException, job_id: str, job: Job | None, batch: Batch[Any] | None) -> None:
    """Complete an error on its way to the caller: its job, and how to go on.

    Args:
        error: The error.
        job_id: The job.
        job: The job at its checkpoint; None if this call never held it.
        batch: The batch in hand.
    """
    if isinstance(error, CursorError | JobHeldError) and error.job_id is None:
        error.job_id = job_id
    known = getattr(error, "job_id", None) == job_id
    if isinstance(error, LeaseLostError) or any(note.startswith(NOTE) for note in getattr(error, "__notes__", ())):
        return
    if job is not None:
        place = f", batch {batch.sequence}" if batch is not None else ""
        error.add_note(
            f"{NOTE}{job_id!r}, run {job.run}{place}: the checkpoint stands at {job.processed_records} records; "
            "call again with the same job_id to resume there"
        )
    elif not known:
        error.add_note(f"{NOTE}{job_id!r}: nothing was written")
