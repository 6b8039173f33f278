"""Crash tests: kill a real process at every step of a sync, or at random moments, and check what must hold."""

import random
import time
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import attrs

from resumable_sync._attempts.start import suiting_batch_size
from resumable_sync._cursor import encode_cursor
from resumable_sync._model import Guarantee, Job, JobStatus
from resumable_sync.testing._processes import Ended, KillAtStep, SyncParts, SyncProcess, SyncProcesses

__all__ = ["CrashReport", "crash_points", "kill_randomly"]

Records = Callable[[], Sequence[Hashable]]

_MOST_RECORDS = 100_000  # that "auto" puts into a batch
_MOST_STARTS = 100_000


@attrs.frozen(kw_only=True)
class CrashReport:
    """What a crash test saw.

    Attributes:
        points: At how many different steps a process was killed (`crash_points`).
        deaths: How many processes were killed.
        starts: How many processes were started.
        runs: How many runs were completed.
        repeated: How many records were delivered again, over all runs.
        killed_at: How often a process was killed at a step, e.g. `{"before save": 12}` (`crash_points`).
        slowest_start: Seconds that the slowest process that was not killed took, from its start to its end.
        seconds: How long it all took.
        violations: What should not have happened, in sentences; empty if all is well.
    """

    points: int = 0
    deaths: int
    starts: int
    runs: int
    repeated: int
    killed_at: Mapping[str, int] = attrs.field(factory=dict)
    slowest_start: float
    seconds: float
    violations: Sequence[str]

    def check(self) -> None:
        """Say so if something happened that should not have.

        Raises:
            AssertionError: If there are violations; it lists the first 20.
        """
        if self.violations:
            shown = "\n".join(f"- {violation}" for violation in self.violations[:20])
            raise AssertionError(f"{len(self.violations)} violations in {self.deaths} deaths:\n{shown}")


def crash_points(
    make: Callable[[], SyncParts],
    *,
    expected: Records,
    delivered: Records,
    reset: Callable[[], object],
    deaths: int = 1,
    first: int = 1,
    every: int = 1,
    visible: bool = True,
    bound: float = 60.0,
) -> CrashReport:
    """Kill a real process at every step of a sync, start it again until the job is completed, and check the invariants.

    A step is a moment before or after a call of connector, sink or store: each page read, each write, save, begin and
    commit of a transaction, completion, release. The first run is killed at step 1, the second at step 2, and so on,
    until a run survives because it has fewer steps.

    Checked are: nothing is lost; nothing is there twice where the guarantee says so, and otherwise only records of the
    batch that was open at a death; the checkpoint is never ahead of the target; counters, attempt and fencing token
    never go back; the job ends `completed` and free; the next start goes on at once, without waiting for the lease.

    Args:
        make: Gives the parts of the sync; a function of a module, called in each process (and here, for its store).
        expected: Gives the records of the source in cursor order; they must be hashable and differ.
        delivered: Gives the records in the target, in the same form.
        reset: Empties target and store; called before every run.
        deaths: How often each run is killed, each time at that step of the process that was started.
        first: The step to begin with.
        every: Tries only each n-th step from there; 1 for all.
        visible: Whether the target shows records before the run is completed.
        bound: Seconds that a process may take.
    """
    tally = _Tally(make, expected, delivered, visible=visible, bound=bound)
    with SyncProcesses() as processes:
        reset()
        tally.undisturbed(processes.start(make))
        step, survived = first, False
        while not survived:
            reset()
            survived = _kill_at(step, deaths, tally, processes, make)
            step += every
    return tally.report(points=len(range(first, step, every)) - 1)


def _kill_at(step: int, deaths: int, tally: "_Tally", processes: SyncProcesses, make: Callable[[], SyncParts]) -> bool:
    """Kill the first processes of a run at a step; give whether the first one ended before it."""
    judge = _Judge(tally, f"killed at step {step}")
    for number in range(_MOST_STARTS):
        ended = tally.ended(processes.start(make, KillAtStep(step) if number < deaths else None))
        if ended.how != "died":
            judge.finished(ended)
            return number == 0
        if ended.step is None:
            judge.says("the process died by itself")
            return False
        tally.killed_at[ended.step] += 1
        if judge.died(ended.step):
            return False
    return False


def kill_randomly(
    make: Callable[[], SyncParts],
    *,
    expected: Records,
    delivered: Records,
    reset: Callable[[], object],
    kills: int,
    seed: int = 0,
    visible: bool = True,
    bound: float = 120.0,
) -> CrashReport:
    """Kill a process at random moments and start it again, run after run, until so many were killed.

    A run without a kill is measured first, and again whenever one passes; each process is killed after a delay that is
    uniform within that time, unless it ends before. The invariants of `crash_points` are checked after every death and
    at the end of every run.

    Args:
        make: Gives the parts of the sync; a function of a module. Give it a large `max_stalled_attempts`.
        expected: Gives the records of the source in cursor order; they must be hashable and differ.
        delivered: Gives the records in the target, in the same form.
        reset: Empties target and store; called before every run.
        kills: How many processes to kill.
        seed: Of the random delays.
        visible: Whether the target shows records before the run is completed.
        bound: Seconds that a process may take.
    """
    chance = random.Random(seed)  # noqa: S311 - repeatable
    tally = _Tally(make, expected, delivered, visible=visible, bound=bound)
    with SyncProcesses() as processes:
        reset()
        seconds = tally.undisturbed(processes.start(make)).seconds
        while tally.deaths < kills and not tally.violations:
            reset()
            judge = _Judge(tally, f"run {tally.runs}, seed {seed}")
            over, starts = False, 0
            while not over:
                child, starts = processes.start(make), starts + 1
                killed = tally.deaths < kills and child.wait(chance.uniform(0, seconds)) is None
                if killed:
                    child.kill()
                ended = tally.ended(child)
                if ended.how == "died":
                    if not killed:
                        judge.says("the process died by itself")
                    over = judge.died("at a random moment")
                else:
                    over = judge.finished(ended)
                # The machine gets busier and idler: a whole run is measured again, many deaths in one leave more time.
                if ended.how == "returned" and starts == 1:
                    seconds = ended.seconds
                elif starts % 20 == 0:
                    seconds *= 1.5
    return tally.report(points=0)


class _Tally:
    """Counts over all runs."""

    def __init__(
        self, make: Callable[[], SyncParts], expected: Records, delivered: Records, *, visible: bool, bound: float
    ) -> None:
        self.parts = make()
        self.expected = expected
        self.delivered = delivered
        self.visible = visible
        self.guarantee: str | None = None
        self._bound = bound
        self.deaths = self.starts = self.runs = self.repeated = 0
        self.killed_at: Counter[str] = Counter()
        self.slowest = 0.0
        self.violations: list[str] = []
        self._begun = time.monotonic()

    def undisturbed(self, child: SyncProcess) -> Ended:
        """Let the first run pass without a kill: what fails here has nothing to do with crashes."""
        ended = self.ended(child)
        self.guarantee = ended.guarantee
        _Judge(self, "not killed").finished(ended)
        return ended

    def ended(self, child: SyncProcess) -> Ended:
        """Wait for the end of a child that was or will be killed, or ends by itself."""
        bound = self._bound
        self.starts += 1
        ended = child.wait(bound)
        if ended is None:
            child.kill()
            child.wait(bound)
            ended = Ended(how="raised", error="TimeoutError", message=f"TimeoutError: it ran for more than {bound} s")
        if ended.how == "died":
            self.deaths += 1
        else:
            self.slowest = max(self.slowest, ended.seconds)
        return ended

    def report(self, points: int) -> CrashReport:
        return CrashReport(
            points=points,
            deaths=self.deaths,
            starts=self.starts,
            runs=self.runs,
            repeated=self.repeated,
            killed_at=dict(self.killed_at),
            slowest_start=self.slowest,
            seconds=time.monotonic() - self._begun,
            violations=tuple(self.violations),
        )


def _largest_batch(parts: SyncParts) -> int:
    """Give how many records may be open at a death, and so come again."""
    size: Any = parts.options.get("batch_size")
    if size is None:
        return suiting_batch_size(parts.connector, parts.sink)
    return _MOST_RECORDS if size == "auto" else int(size)


class _Judge:
    """Checks one run, after each death and at its end."""

    def __init__(self, tally: _Tally, name: str) -> None:
        self._tally = tally
        self._name = name
        self._parts = tally.parts
        self._expected = list(tally.expected())
        self._places = {record: place for place, record in enumerate(self._expected)}
        self._batch_size = _largest_batch(self._parts)
        self._job: Job | None = None
        self._token = 0
        self._open: Counter[int] = Counter()

    def says(self, violation: str) -> None:
        self._tally.violations.append(f"{self._name}: {violation}")

    def died(self, where: str) -> bool:
        """Look at store and target after a death; give whether the run was over already."""
        job = self._parts.store.load(self._parts.job_id)
        if job is not None:
            self._never_back(job, where)
        done = 0 if job is None else job.processed_records
        self._open.update(range(done, min(done + self._batch_size, len(self._expected))))
        if job is not None and job.status is JobStatus.COMPLETED:
            # The next start would be a new run; the lease of the dead is all that is left.
            self._over(attrs.evolve(job, lease=None))
            return True
        if self._tally.visible:
            counts = self._counts(where)
            missing = [place for place in range(done) if not counts[place]]
            if missing:
                self.says(f"after a death {where} the checkpoint is at {done}, but {len(missing)} of these are missing")
            self._too_often(counts, f"after a death {where}")
        return False

    def finished(self, ended: Ended) -> bool:
        """Look at everything when a process came to its end."""
        if ended.how != "returned":
            self.says(f"the start after a death raised {ended.message}\n{ended.trace}")
            return True
        if ended.status is not None and ended.status != JobStatus.COMPLETED:
            self.says(f"it returned with status {ended.status}")
        self._over(self._parts.store.load(self._parts.job_id))
        return True

    def _over(self, job: Job | None) -> None:
        self._tally.runs += 1
        self._completed(job)
        counts = self._counts("at the end")
        lost = [place for place in range(len(self._expected)) if not counts[place]]
        if lost:
            self.says(f"{len(lost)} of {len(self._expected)} records are lost, the first at place {lost[0]}")
        again = sum(counts.values()) - len(set(counts))
        self._tally.repeated += again
        if again and self._tally.guarantee in {Guarantee.EXACTLY_ONCE, Guarantee.EFFECTIVELY_ONCE}:
            self.says(f"{again} records are there again, with the guarantee {self._tally.guarantee}")
        self._too_often(counts, "at the end")

    def _completed(self, job: Job | None) -> None:
        if job is None:
            self.says("there is no job at the end")
            return
        self._never_back(job, "at the end")
        if job.status is not JobStatus.COMPLETED:
            self.says(f"the job ends {job.status}")
        if job.processed_records != len(self._expected):
            self.says(f"the job counts {job.processed_records} of {len(self._expected)} records")
        if job.lease is not None:
            self.says("the job is still held at the end")

    def _counts(self, where: str) -> Counter[int]:
        counts: Counter[int] = Counter()
        for record in self._tally.delivered():
            place = self._places.get(record)
            if place is None:
                self.says(f"the target holds a record {where} that the source does not")
            else:
                counts[place] += 1
        return counts

    def _too_often(self, counts: Counter[int], when: str) -> None:
        wrong = [place for place, count in counts.items() if count > 1 + self._open[place]]
        if wrong:
            self.says(f"{when} {len(wrong)} records are there again that were not in a batch open at a death")

    def _never_back(self, job: Job, where: str) -> None:
        before, self._job = self._job, job
        token = 0 if job.lease is None else job.lease.fencing_token
        if token and token < self._token:
            self.says(f"the fencing token went back {where}")
        self._token = max(token, self._token)
        if before is None:
            return
        if before.run and (job.run, job.run_id) != (before.run, before.run_id):
            self.says(f"run {before.run} was given up for run {job.run} {where}")
            return
        for name in ("attempt", "processed_records", "processed_batches", "dead_letters"):
            earlier, later = getattr(before, name), getattr(job, name)
            if later < earlier:
                self.says(f"{name} went back from {earlier} to {later} {where}")
        if job.processed_records == before.processed_records and _text(job) != _text(before):
            self.says(f"the cursor moved without a record {where}")


def _text(job: Any) -> str:
    return encode_cursor(job.cursor)
