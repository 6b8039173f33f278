"""One attempt at the whole of a partitioned sync: its plan, its parts on an executor, and its end."""

import logging
import time
from collections.abc import Sequence
from typing import Any

import attrs

from resumable_sync._attempts.acquire import give_back
from resumable_sync._attempts.checkpoint import Checkpoints
from resumable_sync._attempts.count import Counter
from resumable_sync._attempts.deliver import Delivery
from resumable_sync._attempts.host import owner_gone
from resumable_sync._attempts.pieces import Pieces
from resumable_sync._attempts.report import annotate, log_decision, log_end, plan_of, result_of, warn_of_shortfall
from resumable_sync._attempts.start import begin_sink, in_best_format, pinned, starting_job
from resumable_sync._errors import ConfigurationError, ExecutorBrokenError, LeaseLostError, describe_error
from resumable_sync._events import PartsProgressed, SyncFinished, SyncStarted
from resumable_sync._lease import LeaseKeeper
from resumable_sync._model import Job, JobStatus, SyncResult, utc_now
from resumable_sync._parts.part import check_parts_of
from resumable_sync._parts.plan import PartsPlan, part_id
from resumable_sync._parts.whole import WholeSink
from resumable_sync._parts.workers import Outcome, Workers
from resumable_sync._protocols import Connector
from resumable_sync._restart import Decision
from resumable_sync._retry import StopRequested
from resumable_sync._split import SplittableConnector

__all__ = ["Coordinator"]

logger = logging.getLogger("resumable_sync")

TICK_SECONDS = 0.5
"""How often the progress of parts is looked at."""

LOOKED_AT = 100
"""Most parts that are looked at in one tick."""

_MOST_NAMED = 20


class Coordinator:
    """`begin`, then `work`, then `close`.

    Args:
        pieces: What the call works with.
        job: The job of the whole as stored, without its lease.
        decision: What restart detection decided.
        keeper: Keeps the lease of the whole.
        fingerprint: Of the connector, as text.
    """

    def __init__(
        self, pieces: Pieces, job: Job, decision: Decision, keeper: LeaseKeeper, fingerprint: str | None
    ) -> None:
        self._pieces = pieces
        self._stored = job
        self._decision = decision
        self._keeper = keeper
        self._fingerprint = fingerprint
        self._checkpoints = Checkpoints(
            pieces.store, keeper, job, retrier=pieces.retrier, patient=pieces.patient, stop=pieces.stop
        )
        assert pieces.sink is not None  # noqa: S101 - a call has one
        self._sink = WholeSink(check_parts_of(pieces.job_id, pieces.connector, pieces.sink))
        self._counter = Counter(pieces.job_id, pieces.connector)
        self._parts: list[Job | None] = []
        self._errors: dict[int, Exception] = {}
        self._aside: set[int] = set()
        self._next = 0
        self._save_at = 0.0
        self._begun = False
        self._at_start = (0, 0)
        self._told: tuple[int, int, int] | None = None
        self.result: SyncResult | None = None

    @property
    def job(self) -> Job:
        """The job of the whole as last saved."""
        return self._checkpoints.job

    @property
    def unfinished(self) -> Sequence[int]:
        """Numbers of the parts that are not completed."""
        return [index for index, job in enumerate(self._parts) if job is None or job.status is not JobStatus.COMPLETED]

    def begin(self, parts: int) -> None:
        """Note that an attempt is at work, freeze the plan if the run is new, and look how far its parts are.

        Args:
            parts: Most parts of a new run.

        Raises:
            ConfigurationError: If the job was begun in one piece, or the source cannot be split.
        """
        pieces = self._pieces
        resumed = PartsPlan.of(self._stored.cursor) if self._decision.action == "resume" else None
        if self._decision.action == "resume" and resumed is None:
            msg = f"job {pieces.job_id!r} was begun in one piece; go on with run_full_sync, or start over in parts with"
            raise ConfigurationError(f"{msg} reset_job(job_id)")
        connector = pinned(pieces.connector, self._decision, pieces.retrier)
        # First, since it may be impossible, and then nothing was touched.
        plan = resumed or self._split(connector, parts)
        log_decision(pieces.job_id, self._stored, self._decision, pieces.guarantee)
        # A death from here on must be counted, so the job is saved before anything else is tried.
        self._checkpoints.save(starting_job(self._stored, self._decision, self._fingerprint, utc_now()))
        self._begun = True
        reading = attrs.evolve(pieces, connector=connector)
        begin_sink(reading, self._sink, self._checkpoints, self._keeper)
        # The parts find out for themselves; connector and sink are the same.
        pieces = self._pieces = attrs.evolve(pieces, format=in_best_format(reading, self.job).format)
        if resumed is None:
            self._checkpoints.save(attrs.evolve(self.job, cursor=plan.cursor(self.job.id)))
        if not plan.open:
            self._open(plan)
        self._parts = [self._load(index) for index in range(len(plan.places))]
        self._at_start = self._sums()
        self._told = (*self._at_start, len(self.unfinished))
        if pieces.options.count and self.job.total_records is None:
            self._counter.start()
        if pieces.observers:
            told = plan_of(self._stored, self._decision, pieces, pieces.format)
            pieces.observers.tell(SyncStarted(job=self.job, plan=told))

    def _split(self, connector: Connector, parts: int) -> PartsPlan:
        assert isinstance(connector, SplittableConnector)  # noqa: S101 - checked at the start
        split: Any = self._pieces.retrier.call("split", connector.split, parts)
        try:
            places = [part.place for part in split]
        except (TypeError, AttributeError) as error:
            msg = f"job {self._stored.id!r}: split() of the {type(connector).__name__} gave no parts with a place"
            raise ConfigurationError(f"{msg} ({error}); let it give a sequence of ConnectorPart") from error
        earlier = PartsPlan.of(self._stored.cursor)
        plan = PartsPlan(places, earlier=0 if earlier is None else max(len(earlier.places), earlier.earlier))
        plan.cursor(self._stored.id)  # raises if it is too large
        return plan

    def _open(self, plan: PartsPlan) -> None:
        """Delete what an earlier run has left of its parts, whoever is at work on them, and let parts be worked on.

        Between the two saves no worker begins: one that got its lease before the deletion has lost it.
        """
        for index in range(max(len(plan.places), plan.earlier)):
            self._pieces.retrier.call("delete", self._pieces.store.delete, part_id(self.job.id, index))
        opened = attrs.evolve(plan, open=True, earlier=0)
        self._checkpoints.save(attrs.evolve(self.job, cursor=opened.cursor(self.job.id)))

    def work(self, workers: Workers) -> None:
        """Have the executor run what is unfinished, until it is done or something asks to stop.

        Raises:
            ExecutorBrokenError: If the executor cannot go on.
            LeaseLostError: If another call took over the whole.
        """
        for index in self.unfinished:
            workers.submit(index)
        while workers.busy or self._aside:
            if self._pieces.stop.check():
                self._halt(workers)
                return
            self._settle(workers.wait(TICK_SECONDS) if workers.busy else self._pause())
            self._advance(workers.busy | self._aside)
            self._take_up(workers)
            if workers.broken is not None and not workers.busy:
                break
        if workers.broken is not None and self.unfinished:
            raise ExecutorBrokenError(self.job.id, self.unfinished) from workers.broken

    def _pause(self) -> Sequence[Outcome]:
        self._pieces.stop.wait(TICK_SECONDS)
        return ()

    def _settle(self, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            self._parts[outcome.index] = self._load(outcome.index)
            if outcome.aside:
                self._aside.add(outcome.index)
            elif outcome.error is not None:
                self._errors[outcome.index] = outcome.error

    def _take_up(self, workers: Workers) -> None:
        """Try parts again from which a worker stepped aside, once nobody has them any more."""
        for index in sorted(self._aside):
            job = self._parts[index]
            if job is None or not _alive(job):
                self._aside.discard(index)
                if index in self.unfinished and workers.broken is None:
                    workers.submit(index)

    def _advance(self, active: set[int]) -> None:
        """Look how far parts are, some at a time, and save the progress of the whole."""
        order = sorted(active)
        for place in range(min(LOOKED_AT, len(order))):
            index = order[(self._next + place) % len(order)]
            self._parts[index] = self._load(index)
        self._next += LOOKED_AT
        self._keeper.lease  # noqa: B018 - raises if it is lost
        sums, now = self._sums(), time.monotonic()
        # Not after every part: the whole is saved with its plan, and a thousand parts may end within a second.
        if sums != (self.job.processed_records, self.job.processed_batches) and now >= self._save_at:
            self._checkpoints.save(self._progressed())
            self._save_at = now + TICK_SECONDS
        # A part may be seen with all its records before it is seen completed.
        if (*sums, len(self.unfinished)) != self._told:
            self._tell()

    def _tell(self) -> None:
        self._told = (*self._sums(), len(self.unfinished))
        if self._pieces.observers:
            done = len(self._parts) - len(self.unfinished)
            self._pieces.observers.tell(PartsProgressed(job=self._progressed(), completed=done, parts=len(self._parts)))

    def _halt(self, workers: Workers) -> None:
        """Stop every part at its next batch, whoever works on it, and wait until none is worked on."""
        self._keeper.lease  # noqa: B018 - a successor's parts are not ours to stop
        # Said first: a worker that gets its lease from here on finds out, and delivers nothing.
        self._checkpoints.save(self._ended(JobStatus.INTERRUPTED))
        workers.cancel()
        while True:
            self._settle(workers.wait(0))
            live = [index for index in self.unfinished if self._stop(index)]
            if not live and not workers.busy:
                return
            self._settle(workers.wait(TICK_SECONDS / 5) if workers.busy else self._sit_out())

    def _sit_out(self) -> Sequence[Outcome]:
        self._pieces.stop.sit_out(TICK_SECONDS / 5)
        return ()

    def _stop(self, index: int) -> bool:
        job = self._parts[index] = self._load(index)
        if job is None or not _alive(job):
            return False
        self._pieces.patient.call("request_stop", self._pieces.store.request_stop, job.id)
        return True

    def complete(self) -> None:
        """End the whole: completed, if all parts are; else failed with what went wrong, or interrupted.

        Raises:
            ExceptionGroup: If several parts failed.
            Exception: What a single part failed with.
        """
        if not self.unfinished:
            self._counter.close()
            done = self._ended(JobStatus.COMPLETED)
            done = attrs.evolve(done, stalled_attempts=0)
            self._keeper.assure(self._pieces.patient)
            Delivery(self._pieces, self._sink, self._checkpoints).complete(done)
            self._tell()
            warn_of_shortfall(done)
            return
        errors = [self._errors[index] for index in sorted(self._errors)]
        for index, error in self._errors.items():
            annotate(error, part_id(self.job.id, index), self._parts[index], None)
        if len(errors) > 1:
            msg = f"job {self.job.id!r}: {len(errors)} parts failed; call again to run only what is unfinished"
            raise ExceptionGroup(f"{msg}: {self._named()}", errors)
        if errors:
            raise errors[0]
        self._checkpoints.save(self._ended(JobStatus.INTERRUPTED))

    def leave(self) -> None:
        """Leave the whole to workers that are not ours, with its plan."""
        self._checkpoints.save(attrs.evolve(self.job, stalled_attempts=self._stored.stalled_attempts))

    def close(self, error: BaseException | None) -> bool:
        """End the attempt, note how, and give back the lease.

        Returns:
            Whether `error` was only the sign of a stop, and is dealt with.

        Raises:
            KeyboardInterrupt: If Ctrl-C was the stop.
        """
        stop, failure = self._pieces.stop, error
        with stop.shield():
            self._counter.close()
            if error is not None and not self._begun:
                annotate(error, self.job.id, None, None)
            elif error is not None and not isinstance(error, LeaseLostError):
                failure = self._record(error)
            self._shut_down(failure)
        if failure is not None and failure is not error:
            raise failure
        if stop.interrupt and not isinstance(error, KeyboardInterrupt):
            raise KeyboardInterrupt from error
        return isinstance(error, StopRequested)

    def _record(self, error: BaseException) -> BaseException:
        annotate(error, self.job.id, self.job, None)
        failed = isinstance(error, Exception) and not isinstance(error, StopRequested)
        told = describe_error(error) if failed else None
        try:
            self._checkpoints.settle()
            status = JobStatus.FAILED if failed else JobStatus.INTERRUPTED
            self._checkpoints.save(attrs.evolve(self._ended(status), error=told))
        except Exception as unsaved:  # noqa: BLE001 - the caller must see the first error
            logger.warning("job %r: how it ended could not be saved: %s", self.job.id, describe_error(unsaved))
            if isinstance(error, StopRequested):
                unsaved.__cause__ = error
                return unsaved
        return error

    def _shut_down(self, failure: BaseException | None) -> None:
        pieces = self._pieces
        self._keeper.close()
        if not isinstance(failure, LeaseLostError):
            give_back(pieces.store, self._keeper.last, pieces.patient)
        reason = None
        if self.job.status is not JobStatus.COMPLETED:
            reason = "; ".join(filter(None, [pieces.stop.reason, f"unfinished: {self._named()}"]))
        records, batches = (now - before for now, before in zip(self._sums(), self._at_start, strict=True))
        self.result = result_of(pieces, self.job, self._decision.action, reason, records=records, batches=batches)
        if self._begun:
            log_end(self.result)
            if pieces.observers:
                pieces.observers.tell(SyncFinished(result=self.result))

    def _named(self) -> str:
        """Name the parts that are not completed, and how each is."""
        named = []
        for index in self.unfinished[:_MOST_NAMED]:
            job = self._parts[index]
            status = "not begun" if job is None else "held" if _alive(job) else str(job.status)
            named.append(f"{part_id(self.job.id, index)} ({status})")
        more = len(self.unfinished) - len(named)
        return ", ".join(named) + (f" and {more} more" if more > 0 else "")

    def _sums(self) -> tuple[int, int]:
        known = [job for job in self._parts if job is not None]
        return sum(job.processed_records for job in known), sum(job.processed_batches for job in known)

    def _progressed(self) -> Job:
        records, batches = self._sums()
        moved = (records, batches) != self._at_start
        return attrs.evolve(
            self.job,
            processed_records=records,
            processed_batches=batches,
            total_records=self._counter.total if self.job.total_records is None else self.job.total_records,
            stalled_attempts=0 if moved else self.job.stalled_attempts,
            updated_at=utc_now(),
        )

    def _ended(self, status: JobStatus) -> Job:
        job = self._progressed()
        stalled = job.stalled_attempts and self._stored.stalled_attempts
        return attrs.evolve(job, status=status, finished_at=utc_now(), stalled_attempts=stalled)

    def _load(self, index: int) -> Job | None:
        store, job_id = self._pieces.store, part_id(self._pieces.job_id, index)
        return self._pieces.patient.call("load", store.load, job_id)


def _alive(job: Job) -> bool:
    return job.lease is not None and not owner_gone(job.lease.owner)
