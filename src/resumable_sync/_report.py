"""What a call says of itself: its plan, its log lines, and the notes on its errors."""

import logging
from typing import Any

from resumable_sync._errors import CursorError, JobHeldError
from resumable_sync._model import Batch, Guarantee, Job, Plan
from resumable_sync._restart import Decision

__all__ = ["annotate", "log_decision", "plan_of", "warn_of_shortfall"]

logger = logging.getLogger("resumable_sync")


def plan_of(job: Job | None, decision: Decision, guarantee: Guarantee) -> Plan:
    """Give a decision in the form that callers see."""
    return Plan(
        action=decision.action,
        reason=decision.reason,
        cursor=decision.cursor,
        processed_records=decision.processed_records,
        total_records=None if job is None or decision.fresh_run else job.total_records,
        guarantee=guarantee,
        job=job,
    )


def log_decision(job_id: str, job: Job | None, decision: Decision, guarantee: Guarantee) -> None:
    """Log a decision in one line."""
    total = "an unknown number" if job is None or job.total_records is None else str(job.total_records)
    logger.log(
        logging.WARNING if decision.warning else logging.INFO,
        "job %r: %s (%s); at record %d of %s, %s",
        job_id,
        decision.action,
        decision.reason,
        decision.processed_records,
        total,
        guarantee,
    )


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


def annotate(error: BaseException, job_id: str, job: Job | None, batch: Batch[Any] | None) -> None:
    """Complete an error on its way to the caller: its job, and how to go on.

    Args:
        error: The error.
        job_id: The job.
        job: The job at its checkpoint; None if this attempt never held it.
        batch: The batch in hand.
    """
    if isinstance(error, CursorError | JobHeldError) and error.job_id is None:
        error.job_id = job_id
    if job is None or any("call again with the same job_id" in note for note in getattr(error, "__notes__", ())):
        return
    place = f", batch {batch.sequence}" if batch is not None else ""
    error.add_note(
        f"job {job_id!r}, run {job.run}{place}: the checkpoint stands at {job.processed_records} records; "
        "call again with the same job_id to resume there"
    )
