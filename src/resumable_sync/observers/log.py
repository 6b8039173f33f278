"""Log records with fields, for logs that machines read."""

import logging
from typing import Any

from resumable_sync._events import (
    BatchCommitted,
    Event,
    PartsProgressed,
    RecordRefused,
    SyncFinished,
    SyncStarted,
    TryFailed,
)

__all__ = ["StructuredLog"]


class StructuredLog:
    """Logs every event with its facts as fields (`extra`), which a JSON formatter writes out.

        run_full_sync("orders", connector, sink, store=store, observers=[StructuredLog()])

        {"message": "batch_committed", "event": "batch_committed", "job_id": "orders", "run": 3, "attempt": 2,
         "processed_records": 1204000, "records": 1000, "read_seconds": 0.012, "write_seconds": 0.005, ...}

    The fields are `event` and, by event:

    - `sync_started`: `job_id, run, attempt, status, processed_records, dead_letters, total_records, action, reason,
      guarantee, format, durability`;
    - `batch_committed`: the first seven of these, `sequence, records, read_seconds, write_seconds, commit_seconds`;
    - `parts_progressed`, of a sync in parts: the first seven, `parts_completed, parts`;
    - `try_failed`: `job_id, call, tries, wait_seconds, error`;
    - `record_refused`: `job_id, sequence, error`;
    - `sync_finished`: the seven, `action, records, batches, seconds, reason, guarantee, format, error`.

    No field holds a record, a cursor or a credential. Failed tries, refused records and syncs that failed or left dead
    letters are WARNING.

    Args:
        logger: Where to log. None: the logger `resumable_sync.events`.
        level: Level of starts and ends (default INFO).
        batch_level: Level of batches, and of the progress of parts (default DEBUG): there may be many.
    """

    def __init__(
        self,
        logger: logging.Logger | logging.LoggerAdapter[Any] | None = None,
        *,
        level: int = logging.INFO,
        batch_level: int = logging.DEBUG,
    ) -> None:
        self._logger = logging.getLogger("resumable_sync.events") if logger is None else logger
        self._level = level
        self._batch_level = batch_level

    def __call__(self, event: Event) -> None:
        """Log an event."""
        fields: dict[str, Any]
        match event:
            case SyncStarted():
                plan = event.plan
                fields = {"action": plan.action, "reason": plan.reason, "guarantee": str(plan.guarantee)}
                fields |= {"format": plan.format, "durability": plan.durability}
                self._log("sync_started", self._level, _job_fields(event.job) | fields)
            case BatchCommitted():
                self._log(
                    "batch_committed",
                    self._batch_level,
                    _job_fields(event.job)
                    | {
                        "sequence": event.sequence,
                        "records": event.records,
                        "read_seconds": event.read_seconds,
                        "write_seconds": event.write_seconds,
                        "commit_seconds": event.commit_seconds,
                    },
                )
            case TryFailed():
                fields = {"job_id": event.job_id, "call": event.call, "tries": event.tries}
                fields |= {"wait_seconds": event.wait, "error": event.error}
                self._log("try_failed", max(self._level, logging.WARNING), fields)
            case RecordRefused():
                fields = {"job_id": event.job_id, "sequence": event.sequence, "error": event.error}
                self._log("record_refused", max(self._level, logging.WARNING), fields)
            case PartsProgressed():
                parts = {"parts_completed": event.completed, "parts": event.parts}
                self._log("parts_progressed", self._batch_level, _job_fields(event.job) | parts)
            case SyncFinished():
                self._finished(event)

    def _finished(self, event: SyncFinished) -> None:
        result = event.result
        bad = result.status in ("failed", "incomplete")
        self._log(
            "sync_finished",
            max(self._level, logging.WARNING) if bad else self._level,
            _job_fields(result.job)
            | {
                "action": result.action,
                "records": result.records,
                "batches": result.batches,
                "seconds": result.seconds,
                "reason": result.reason,
                "guarantee": str(result.guarantee),
                "format": result.format,
                "error": result.job.error,
            },
        )

    def _log(self, name: str, level: int, fields: dict[str, Any]) -> None:
        self._logger.log(level, name, extra={"event": name} | fields)


def _job_fields(job: Any) -> dict[str, Any]:
    return {
        "job_id": job.id,
        "run": job.run,
        "attempt": job.attempt,
        "status": str(job.status),
        "processed_records": job.processed_records,
        "dead_letters": job.dead_letters,
        "total_records": job.total_records,
    }
