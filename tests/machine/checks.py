"""What must hold, whatever happened: a model of what is to be delivered, and of what a start must come to."""

from collections import Counter
from typing import Any, ClassVar

import attrs
from hypothesis.stateful import RuleBasedStateMachine, invariant

from machine.workers import Options, Outcome, RefusedError, Worker
from machine.world import JOB_ID, Kind, Row, Seen, World, same_job
from resumable_sync import (
    CrashLoopError,
    DeadLetterLimitError,
    Job,
    JobHeldError,
    JobStatus,
    LeaseLostError,
    SourceChangedError,
    plan_full_sync,
)
from resumable_sync._fingerprint import changes, fingerprint_text

MANY = 1_000
FINISHED = {JobStatus.COMPLETED, JobStatus.INCOMPLETE}


class InjectedError(Exception):
    """What a port raises because the machine said so."""


EXPECTED = (InjectedError, LeaseLostError, JobHeldError, SourceChangedError, CrashLoopError)


class Checked(RuleBasedStateMachine):
    """The checks that the machine makes after each step, and of each act of a worker."""

    world: ClassVar[World]
    kind: ClassVar[Kind]
    gone: ClassVar[set[str]]
    acting: ClassVar[list[Worker]]

    def __init__(self) -> None:
        super().__init__()
        self.last: Seen | None = None
        self.newest_token = -1
        self.published: Counter[Row] = Counter()

    @invariant()
    def holds(self) -> None:
        assert self.world.bystanders_untouched(), "another job or table was touched"
        if self.kind.replaces:
            self.check_published()
        seen = self.world.seen()
        if seen is None:
            self.last = None
            return
        assert seen.token >= self.newest_token, "a fencing token went back"
        self.newest_token = seen.token
        if self.last is not None:
            self.check_onward(self.last, seen)
        self.last = seen
        self.check_delivered(seen)

    def check_onward(self, last: Seen, seen: Seen) -> None:
        one, two = last.job, seen.job
        # Without an id there is no run: one may have begun and been reset since, which leaves none again.
        if one.run_id is None or one.run_id != two.run_id:
            assert two.run >= one.run or one.run_id is None, "the run went back"
            return
        assert two.run == one.run
        assert seen.position >= last.position, "the cursor went back"
        assert two.processed_records >= one.processed_records, "records went back"
        assert two.processed_batches >= one.processed_batches, "batches went back"
        assert two.attempt >= one.attempt, "the attempt went back"

    def check_delivered(self, seen: Seen) -> None:
        job, world = seen.job, self.world
        if job.run_id is None:
            return
        delivered = world.delivered(job.run_id)
        assert set(delivered) <= world.ever, "what is in the target was never in the source"
        keys = {key for key, _ in delivered}
        letters = [key for run, key in world.letters() if run == job.run]
        assert len(letters) == job.dead_letters, f"{len(letters)} letters, counted {job.dead_letters}"
        assert len({key for _, key in world.letters()}) == len(world.letters()), "a dead letter twice"
        assert not keys & set(letters), "a record is in the target and a dead letter"
        if world.kind.exact:
            assert all(count == 1 for count in delivered.values()), "a record arrived twice"
            assert len(keys) == len(delivered), "a row arrived twice"
            ahead = len(delivered) - job.processed_records
            assert ahead == 0 or (ahead > 0 and world.kind.own and job.status not in FINISHED), "miscounted"
            assert world.kind.own or all(key <= seen.position for key in keys), "the cursor is behind"
        owed = {key for key in world.runs[job.run_id].standing if key <= seen.position or job.status in FINISHED}
        assert owed <= keys | set(letters), f"lost: {sorted(owed - keys - set(letters))}"
        if job.status in FINISHED:
            assert (job.status is JobStatus.COMPLETED) == (not letters), "the status is not true"

    def check_published(self) -> None:
        """Check that readers of a replaced table saw nothing but what a complete run had delivered."""
        target = self.world.target()
        if target != self.published:
            (run_id,) = [run for run, (state, _) in self.world.stagings().items() if state == "swapped"]
            assert {key for key, _ in target} >= self.world.runs[run_id].standing, "a half table was published"
            self.published = target

    # How a worker acted.

    def check_outcome(self, worker: Worker, outcome: Outcome) -> None:
        what, value = outcome
        if what == "delivered":
            self.check_batch(worker, value)
        elif what == "failed" and not worker.acts:
            allowed: tuple[type[Exception], ...] = (
                InjectedError,
                LeaseLostError,
                JobHeldError,
                SourceChangedError,
                CrashLoopError,
            )
            if self.kind.sink == "transactional":
                allowed += (RefusedError, DeadLetterLimitError)
            assert isinstance(value, allowed), value
        elif what == "ended" and not worker.acts and worker.token is not None:
            seen = self.world.seen()
            assert seen is not None
            stored = value if isinstance(value, Job) else value.job
            assert same_job(seen.job, stored), "the result is not what is stored"
            assert seen.owner is None, "the lease was not given back"

    def check_zombie(self, worker: Worker, outcome: Outcome, records: int) -> None:
        """Check that a zombie ends, with no more than the batch that was in its hands."""
        worker.zombie_records += records
        most = MANY if worker.options.batch_size == "auto" else worker.options.batch_size
        assert worker.zombie_records <= most, "a zombie delivered more than one batch"
        implicit = self.kind.sink == "loop_plain" and not worker.options.commits
        if not (implicit and outcome[0] == "delivered"):  # there the next step asks the store
            assert isinstance(outcome[1], LeaseLostError), outcome

    def check_batch(self, worker: Worker, batch: Any) -> None:
        if batch is None:
            return
        if worker.limit is not None:
            assert len(batch) <= worker.limit, "a batch is greater than deaths have left it"
            worker.limit = min(worker.options.batch_size, worker.limit * 2)
        if worker.stop_budget is not None and not worker.acts:
            worker.stop_budget -= 1
            assert worker.stop_budget >= 0, "a stop was not seen"

    def planned(self, worker: Worker) -> str:
        options: dict[str, Any] = attrs.asdict(worker.options, filter=lambda field, _: field.name != "commits")
        sink: Any = worker._sink() if not self.kind.loop else lambda _batch: None
        plan = plan_full_sync(JOB_ID, self.world.connector(), sink, store=self.world.store(worker.slot), **options)
        return plan.action

    def check_start(self, worker: Worker, before: Seen | None, outcome: Outcome, planned: str, everything: Any) -> None:
        expected = self.expected(worker.options, before)
        assert planned == expected, f"planned {planned}, expected {expected}"
        what, value = outcome
        if expected == "held":
            assert isinstance(value, JobHeldError), outcome
        elif expected == "refuse":
            assert isinstance(value, CrashLoopError | SourceChangedError), outcome
        elif expected == "skip":
            assert what == "ended"
            assert value.action == "skip"
        else:
            assert what == "delivered", outcome
            self.check_begun(worker, before, expected)
        if expected in {"held", "refuse", "skip"}:
            assert self.world.everything() == everything, f"{expected}, and something changed"

    def check_begun(self, worker: Worker, before: Seen | None, action: str) -> None:
        seen = self.world.seen()
        assert seen is not None
        assert seen.alive
        assert seen.owner == worker.name
        assert seen.job.status is JobStatus.RUNNING
        stalled = 0 if before is None or before.job.status in FINISHED else before.job.stalled_attempts
        assert seen.job.stalled_attempts == stalled + 1, "an attempt without a checkpoint is not counted"
        if worker.options.batch_size != "auto":
            worker.limit = max(1, worker.options.batch_size >> stalled)
        if action == "resume":
            assert before is not None
            assert seen.job.run_id == before.job.run_id
            assert seen.position >= before.position
            assert seen.position == before.position or self.kind.own
        elif before is not None and before.job.has_progress:
            assert seen.job.run_id != before.job.run_id
            assert seen.job.run == before.job.run + 1
            assert seen.job.dead_letters == 0

    def expected(  # noqa: PLR0911 - a return per row of the table
        self, options: Options, seen: Seen | None
    ) -> str:
        """Say what a start must come to: restart detection, told once more."""
        if seen is None:
            return "new"
        job = seen.job
        if job.status in FINISHED and options.if_completed == "skip":
            return "skip"
        if seen.alive and seen.owner not in self.gone:
            return "held"
        if job.status in FINISHED:
            return "new"
        if job.stalled_attempts >= options.max_stalled_attempts:
            return "refuse"
        if not job.has_progress:
            return "new"
        changed = changes(job.fingerprint, fingerprint_text(self.world.connector().fingerprint), ordered=False)
        if changed and options.if_changed != "resume":
            return "refuse" if options.if_changed == "raise" else "new"
        return "resume"
