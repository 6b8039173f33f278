"""What a store knows of a job, put together for telling it."""

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Literal

import attrs

from resumable_sync._attempts.host import owner_gone
from resumable_sync._errors import ConfigurationError
from resumable_sync._history import History, HistoryStore, Sample
from resumable_sync._model import AttemptRecord, Guarantee, Job, JobStatus
from resumable_sync._parts.plan import PartsPlan, part_id
from resumable_sync._protocols import DeadLetterStore, JobStore, LineageStore
from resumable_sync._restart import Decision, Rules, decide
from resumable_sync.report._together import together

__all__ = ["ATTENTION", "Share", "Standing", "Story", "tell", "tell_all"]

Standing = Literal["failed", "died", "incomplete", "interrupted", "running", "pending", "completed"]

ATTENTION: tuple[Standing, ...] = ("failed", "died", "incomplete", "interrupted", "running", "pending", "completed")
"""What needs a hand comes first."""

MAX_LETTERS = 10_000
"""Of more dead letters the errors are not counted one by one."""

SHOWN_PARTS = 200


@attrs.frozen(kw_only=True)
class Share:
    """A part of the time of a run.

    Attributes:
        name: `"read"`, `"write"`, `"commit"`, `"wait"` or `"away"`.
        seconds: How much.
    """

    name: str
    seconds: float


@attrs.frozen(kw_only=True)
class Story:
    """All that is known of a job.

    Attributes:
        job: The job.
        attempts: All that are kept, of earlier runs too, the oldest first.
        history: Of the current run, of a job in parts that of all its parts; None if there is none.
        worker_seconds: How long the workers of all parts were at work; None of a job in one piece.
        errors: How many dead letters there are by the type of their error; None if that was not counted.
        decision: What the next start would do.
        parts: The parts of a job that is synced in parts, as far as they were begun.
        now: When it was asked.
    """

    job: Job
    attempts: Sequence[AttemptRecord]
    history: History | None
    worker_seconds: float | None
    errors: Sequence[tuple[str, int]] | None
    decision: Decision
    parts: Sequence[Job]
    now: datetime

    @property
    def standing(self) -> Standing:
        """The status as people understand it: `died` where a dead process left `running` behind."""
        job = self.job
        return "died" if job.status is JobStatus.RUNNING and job.lease is None else job.status.value

    @property
    def guarantee(self) -> Guarantee | None:
        """What holds for the target; None if nobody noted it."""
        return None if self.history is None else self.history.guarantee

    @property
    def run_attempts(self) -> list[AttemptRecord]:
        """The attempts of the current run; a job that was reset has none."""
        return [one for one in self.attempts if one.run == self.job.run and self.job.status is not JobStatus.PENDING]

    @property
    def earlier_runs(self) -> list[list[AttemptRecord]]:
        """The attempts of each earlier run that is known, the newest run first."""
        runs: dict[int, list[AttemptRecord]] = {}
        current = self.run_attempts
        for one in self.attempts:
            if one not in current and one.to_records:
                runs.setdefault(one.run, []).append(one)
        return [runs[run] for run in sorted(runs, reverse=True)]

    @property
    def samples(self) -> Sequence[Sample]:
        """The samples of the current run."""
        return () if self.history is None else self.history.samples

    def last_seen(self, attempt: AttemptRecord) -> datetime:
        """Give when an attempt ended; of one that died, when it was last heard of."""
        if attempt.outcome == "running":
            return max(self.now, attempt.started_at)  # this host's clock may be behind the store's
        if attempt.outcome != "died" and attempt.ended_at is not None:
            return attempt.ended_at
        ends = [one.ended_at for one in self.samples if one.attempt == attempt.attempt and attempt.run == self.job.run]
        last = max(ends, default=None)
        if last is None and attempt is self.attempts[-1] and self.job.updated_at is not None:
            last = self.job.updated_at
        return max(attempt.started_at, min(last or attempt.started_at, attempt.ended_at or self.now))

    @property
    def deaths(self) -> int:
        """How many attempts of the run died."""
        return sum(one.outcome == "died" for one in self.run_attempts)

    @property
    def begun_at(self) -> datetime | None:
        """When the run began."""
        return min((one.started_at for one in self.run_attempts), default=self.job.started_at)

    @property
    def ended_at(self) -> datetime:
        """When the run ended, or the last attempt; now, if one is at work."""
        if self.job.lease is not None:
            return self.now
        ends = [self.last_seen(one) for one in self.run_attempts]
        return max(ends, default=self.job.finished_at or self.job.updated_at or self.now)

    @property
    def shares(self) -> list[Share]:
        """Where the time of the run went; empty if nobody noted it."""
        samples = self.samples
        if not samples:
            return []
        parts = {name: sum(getattr(one, f"{name}_seconds") for one in samples) for name in ("read", "write", "commit")}
        working = sum(one.seconds for one in samples)
        if self.worker_seconds is not None:
            parts["wait"] = max(self.worker_seconds - sum(parts.values()), 0.0)
            return [Share(name=name, seconds=seconds) for name, seconds in parts.items()]
        whole = (self.ended_at - (self.begun_at or samples[0].started_at)).total_seconds()
        parts["wait"] = max(working - sum(parts.values()), 0.0)
        parts["away"] = max(whole - working, 0.0)
        return [Share(name=name, seconds=seconds) for name, seconds in parts.items()]

    @property
    def working_seconds(self) -> float:
        """How long attempts of the run were at work."""
        spans = ((self.last_seen(one) - one.started_at).total_seconds() for one in self.run_attempts)
        return sum(spans) or sum(one.seconds for one in self.samples)


def tell(job_id: str, store: JobStore, now: datetime) -> Story:
    """Ask a store for all it knows of a job.

    Raises:
        ConfigurationError: If there is no such job.
    """
    job = store.load(job_id)
    if job is None:
        msg = f"there is no job {job_id!r} in the store; give the job_id of a sync that ran, and its store"
        raise ConfigurationError(msg)
    return _story(job, store, now)


def tell_all(store: JobStore, now: datetime) -> list[Story]:
    """Ask a store for all it knows of all its jobs, what needs a hand first; parts belong to their whole."""
    found = list(store.jobs())
    plans = {job.id: PartsPlan.of(job.cursor) for job in found}
    parts = {part_id(name, index) for name, plan in plans.items() if plan for index in range(len(plan.places))}
    stories = [_story(job, store, now) for job in found if job.id not in parts]
    return sorted(stories, key=lambda story: (ATTENTION.index(story.standing), story.job.id))


def _story(job: Job, store: JobStore, now: datetime) -> Story:
    gone = job.lease is not None and owner_gone(job.lease.owner)
    attempts = list(store.attempts(job.id)) if isinstance(store, LineageStore) else []
    parts = list(_parts(job, store))
    histories = [found for one in (parts or [job]) if (found := _history(one, store)) is not None]
    history = histories[0] if histories and not parts else together(job.run_id, attempts, histories)
    seconds = sum(sample.seconds for one in histories for sample in one.samples)
    return Story(
        job=job,
        attempts=attempts,
        history=history,
        worker_seconds=seconds if parts else None,
        errors=_errors(job, store),
        # Asked for the place alone: whether the source has changed it would have to be asked itself.
        decision=decide(job, Rules(seekable=True), now=now, owner_gone=gone),
        parts=parts,
        now=now,
    )


def _history(job: Job, store: JobStore) -> History | None:
    history = store.history(job.id) if isinstance(store, HistoryStore) else None
    return history if history is not None and history.run_id == job.run_id else None


def _parts(job: Job, store: JobStore) -> Iterable[Job]:
    plan = PartsPlan.of(job.cursor)
    for index in range(min(len(plan.places), SHOWN_PARTS) if plan else 0):
        part = store.load(part_id(job.id, index))
        if part is not None:
            yield part


def _errors(job: Job, store: JobStore) -> Sequence[tuple[str, int]] | None:
    """Count dead letters by the type of their error: its message may hold values of the record."""
    if not job.dead_letters:
        return []
    if not isinstance(store, DeadLetterStore) or job.dead_letters > MAX_LETTERS:
        return None
    kinds = Counter(letter.error.partition(":")[0] for letter in store.dead_letters(job.id))
    return kinds.most_common()
