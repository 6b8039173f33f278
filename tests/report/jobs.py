"""Jobs with a past, in a store whose clock a test moves."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal

import attrs

from resumable_sync import Guarantee, History, Job, JobStatus, MemoryJobStore, Sample
from resumable_sync._history import thinned

__all__ = ["NOW", "Past", "Shop"]

NOW = datetime(2026, 11, 29, 3, 0, 0, tzinfo=UTC)
RUN_ID = "0a1b2c3d-0000-4000-8000-0123456789ab"

End = Literal["completed", "incomplete", "interrupted", "failed", "died", "running"]


@attrs.frozen(kw_only=True)
class Past:
    """What one attempt of a job did: so many seconds, at so many records in each, in batches of a second."""

    seconds: int
    end: End
    rate: int = 1_000
    away: float = 30.0
    """Seconds until the next attempt."""


class Shop:
    """A store in memory, and what happened in it."""

    def __init__(self, start: datetime = NOW - timedelta(hours=2)) -> None:
        self.now = start
        self.store = MemoryJobStore(clock=lambda: self.now)
        self._tokens: dict[str, int] = {}

    def live(
        self,
        job_id: str,
        pasts: Sequence[Past],
        *,
        run: int = 1,
        total: int | None = None,
        guarantee: Guarantee | None = Guarantee.EXACTLY_ONCE,
        dead_letters: int = 0,
        error: str = "OperationalError: the connection was refused",
    ) -> Job:
        """Let the attempts of a run happen one after the other; give the job as it is then."""
        records, begun = 0, self.now
        samples: list[Sample] = []
        batches = 0
        stops: dict[int, str] = {}
        job = Job(id=job_id)
        for number, past in enumerate(pasts, 1):
            lease = self.store.acquire(
                job_id, owner=f"host{number % 3}:{4000 + number}:x", ttl=60.0, replacing=self._tokens.pop(job_id, None)
            )
            job = Job(
                id=job_id, status=JobStatus.RUNNING, run=run, run_id=RUN_ID, attempt=number, processed_records=records,
                cursor=[records] if records else None, processed_batches=batches,
                total_records=total, started_at=begun, created_at=begun, updated_at=self.now,
            )  # fmt: skip
            lease = self.store.save(job, lease)
            for _ in range(past.seconds):
                records += past.rate
                samples.append(
                    Sample(
                        attempt=number, started_at=self.now, seconds=1.0, records=past.rate, batches=1,
                        read_seconds=0.25, write_seconds=0.5, commit_seconds=0.125, processed_records=records,
                    )
                )  # fmt: skip
                self.now += timedelta(seconds=1)
                samples = list(thinned(samples))
                batches += 1
            if past.end == "interrupted":
                stops[number] = "a stop was requested"
            status = JobStatus.RUNNING if past.end in ("died", "running") else JobStatus(past.end)
            job = attrs.evolve(
                job, status=status, cursor=[records], processed_records=records, processed_batches=batches,
                updated_at=self.now, finished_at=None if status is JobStatus.RUNNING else self.now,
                error=error if past.end == "failed" else None, dead_letters=dead_letters,
            )  # fmt: skip
            lease = self.store.save(job, lease)
            if guarantee is not None:
                history = History(run_id=RUN_ID, guarantee=guarantee, samples=tuple(samples), stops=stops)
                self.store.keep_history(history, lease)
            if past.end == "died":
                self._tokens[job_id] = lease.fencing_token
                self.now += timedelta(seconds=past.away)
            elif past.end != "running":
                self.store.release(lease)
                self.now += timedelta(seconds=past.away)
        return job
