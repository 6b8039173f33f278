"""Anything may happen at any moment, in any order: a model says what must hold after each step.

Hypothesis draws examples of many steps: attempts start, deliver, fail, stop, sleep, die and overtake each other, at
every call of a port, while the source changes. After each step the stored job and the target are compared with what the
design promises. `RESUMABLE_SYNC_TEST_EXAMPLES` says how many examples of 50 steps; `nox -s machine` runs 2,000.
"""

import logging
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import attrs
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from typing_extensions import override

from machine.checks import FINISHED, Checked, InjectedError
from machine.workers import FAST, Death, Options, Outcome, Script, Worker
from machine.world import BEGINNING, JOB_ID, KINDS, World
from resumable_sync import (
    JobHeldError,
    JobStatus,
    TransientError,
)
from resumable_sync._lease import LeaseKeeper

EXAMPLES = int(os.environ.get("RESUMABLE_SYNC_TEST_EXAMPLES", "100"))
STEPS = 50
MAX_WORKERS = 3

OPTIONS = st.builds(
    Options,
    batch_size=st.one_of(st.integers(1, 5), st.integers(1, 5), st.just("auto")),
    on_refused=st.sampled_from(["dead_letter", "dead_letter", "fail"]),
    max_dead_letters=st.sampled_from([100, 100, 1, 0, None]),
    if_completed=st.sampled_from(["rerun", "rerun", "skip"]),
    if_changed=st.sampled_from(["raise", "rerun", "resume"]),
    max_stalled_attempts=st.sampled_from([50, 50, 2]),
    max_records=st.sampled_from([None, None, None, 3]),
    count=st.booleans(),
    commits=st.booleans(),
)
REFUSED = st.sets(st.sampled_from([20, 30, 40, 50, 70, 90]), max_size=3)
ACTS = ("die", "transient", "transient", "error", "overtaken", "overtaken", "reset", "stop", "expire", "source")
SCRIPTS = st.one_of(st.none(), st.none(), st.tuples(st.integers(0, 25), st.sampled_from(ACTS), st.integers(0, 4)))
Drawn = tuple[int, str, int] | None


class Machine(Checked):
    """One job, up to three workers, and everything that can befall them."""

    def __init__(self) -> None:
        super().__init__()
        self.workers: list[Worker] = []
        self.started = 0
        self.gone.clear()
        self.acting.clear()

    @initialize(rows=st.integers(0, 12), refused=REFUSED)
    def begin(self, rows: int, refused: set[int]) -> None:
        self.world.begin(self.kind, rows, refused)
        self.published = self.world.target()

    # The rules.

    @precondition(lambda self: len(self.workers) < MAX_WORKERS)
    @rule(options=OPTIONS, script=SCRIPTS)
    def start(self, options: Options, script: Drawn) -> None:
        worker = self.new_worker(options)
        before, everything = self.world.seen(), self.world.everything()
        planned = self.planned(worker)
        assert self.world.everything() == everything, "a plan changed something"
        outcome = self.perform(worker, self.script(script), worker.start)
        if worker.acts:
            return
        self.check_start(worker, before, outcome, planned, everything)

    @precondition(lambda self: 0 < len(self.workers) < MAX_WORKERS)
    @rule(options=OPTIONS, script=SCRIPTS, aware=st.booleans())
    def take_over(self, options: Options, script: Drawn, aware: bool) -> None:
        self.expire(aware=aware)
        self.start(options=options, script=script)

    @rule(which=st.integers(0, MAX_WORKERS - 1), times=st.integers(1, 4), script=SCRIPTS)
    def step(self, which: int, times: int, script: Drawn) -> None:
        worker = self.some(which)
        made = self.script(script)
        for _ in range(times):
            if not worker.over:
                self.perform(worker, made, worker.step)

    @rule(which=st.integers(0, MAX_WORKERS - 1), script=SCRIPTS)
    def leave(self, which: int, script: Drawn) -> None:
        worker = self.some(which)
        if not worker.over:
            self.perform(worker, self.script(script), worker.leave)

    @rule(which=st.integers(0, MAX_WORKERS - 1))
    def fail_in_the_loop(self, which: int) -> None:
        worker = self.some(which)
        if not worker.over:
            self.perform(worker, None, lambda: worker.throw(InjectedError()))

    @rule(which=st.integers(0, MAX_WORKERS - 1), here=st.booleans())
    def crash(self, which: int, here: bool) -> None:
        worker = self.some(which)
        stalled = worker.open and not worker.delivered and not worker.is_zombie()
        worker.die()
        self.bury(worker, here=here)
        seen = self.world.seen()
        if stalled and seen is not None:
            assert seen.job.stalled_attempts >= 1, "a death without progress was not counted"

    @rule(aware=st.booleans())
    def expire(self, aware: bool) -> None:
        self.world.expire()
        if aware:
            for worker in self.workers:
                worker.sleep()

    @precondition(lambda self: any(worker.open for worker in self.workers))
    @rule(which=st.integers(0, MAX_WORKERS - 1))
    def beat(self, which: int) -> None:
        able = [worker for worker in self.workers if worker.open]
        worker = able[which % len(able)]
        zombie, everything = worker.is_zombie(), self.world.everything()
        worker.beat()
        if zombie:
            assert self.world.everything() == everything, "a zombie's heartbeat changed something"
        else:
            seen = self.world.seen()
            assert seen is not None
            assert seen.alive or seen.owner is None

    @rule()
    def request_stop(self) -> None:
        self.stop()

    @rule()
    def delete_the_job(self) -> None:
        self.delete()

    @precondition(lambda self: self.world.seen() is not None)
    @rule(script=SCRIPTS)
    def reset(self, script: Drawn) -> None:
        worker = self.new_worker(Options())
        before, everything = self.world.seen(), self.world.everything()
        assert before is not None
        outcome = self.perform(worker, self.script(script), worker.reset)
        if worker.acts:
            return
        if before.alive and before.owner not in self.gone:
            assert isinstance(outcome[1], JobHeldError)
            assert self.world.everything() == everything
            return
        seen = self.world.seen()
        assert seen is not None
        assert (seen.job.status, seen.job.run, seen.job.has_progress) == (JobStatus.PENDING, before.job.run, False)
        assert not self.world.letters()

    @precondition(lambda self: self.kind.sink == "transactional" and self.world.seen() is not None)
    @rule(script=SCRIPTS)
    def replay(self, script: Drawn) -> None:
        worker = self.new_worker(Options())
        before, everything = self.world.seen(), self.world.everything()
        assert before is not None
        outcome = self.perform(worker, self.script(script), worker.replay)
        if worker.acts:
            return
        if before.alive and before.owner not in self.gone:
            assert isinstance(outcome[1], JobHeldError)
            assert self.world.everything() == everything
        else:
            assert outcome[0] == "ended", outcome
            letters = {key for _, key in self.world.letters()}
            assert letters <= self.world.refused or before.job.status not in FINISHED

    @precondition(lambda self: self.kind.sink == "transactional")
    @rule(refused=REFUSED)
    def refuse(self, refused: set[int]) -> None:
        self.world.refused = refused

    @precondition(lambda self: not self.kind.prefetch)
    @rule(change=st.integers(0, 4))
    def change_source(self, change: int) -> None:
        self.change(change)

    @precondition(lambda self: not self.kind.prefetch and self.kind.sink in {"transactional", "plain", "loop"})
    @rule()
    def add_column(self) -> None:
        self.world.add_column()

    def some(self, which: int) -> Worker:
        """Give a worker that is at work; start one if there is none that can."""
        if not self.workers:
            self.world.expire()
            worker = self.new_worker(Options(on_refused="dead_letter"))
            self.perform(worker, None, worker.start)
            return worker
        return self.workers[which % len(self.workers)]

    @override
    def teardown(self) -> None:
        """Whatever happened: one more start must bring everything there, and the job to its end."""
        try:
            for worker in self.workers:
                worker.die()
            self.workers.clear()
            self.world.expire()
            self.world.refused = set()
            before = self.world.seen()
            worker = self.new_worker(Options(batch_size=3, if_changed="resume"))
            outcome = self.perform(worker, None, worker.start)
            while not worker.over:
                outcome = self.perform(worker, None, worker.step)
            assert outcome[0] == "ended", outcome
            self.holds()
            if outcome[1].status is JobStatus.INCOMPLETE:
                worker = self.new_worker(Options())
                self.perform(worker, None, worker.replay)
                self.holds()
            seen = self.world.seen()
            assert seen is not None
            assert seen.job.status is JobStatus.COMPLETED
            assert before is None or seen.token > before.token
            assert not seen.alive
            assert not self.world.left_over(), "a staging table is left"
        finally:
            for worker in self.workers:
                worker.die()

    # How a worker acts, and what must come of it.

    def new_worker(self, options: Options) -> Worker:
        self.started += 1
        if self.kind.sink != "transactional":
            options = attrs.evolve(options, on_refused="fail")
        taken = {worker.slot for worker in [*self.workers, *self.acting]}
        slot = next(slot for slot in range(MAX_WORKERS + 1) if slot not in taken)
        return Worker(self.world, slot, f"worker {self.started}", options)

    def perform(self, worker: Worker, script: Script | None, act: Callable[[], Outcome]) -> Outcome:
        worker.acts.clear()
        worker.left_unchanged = None
        worker.script = script
        zombie = worker.is_zombie()
        fenced = zombie and worker.is_fenced()
        before = self.world.everything(fenced=fenced) if zombie else None
        logged = len(self.world.log)
        self.acting.append(worker)
        try:
            outcome = act()
        finally:
            self.acting.pop()
            worker.script = None
        assert not worker.problems, worker.problems
        if zombie and script is None:
            assert self.world.everything(fenced=fenced) == before, "a zombie changed something"
            self.check_zombie(worker, outcome, len(self.world.log) - logged)
        if worker.left_unchanged is not None:
            fenced, everything = worker.left_unchanged
            assert self.world.everything(fenced=fenced) == everything, f"a zombie changed something: {worker.acts}"
        self.check_outcome(worker, outcome)
        if worker.over:
            if worker in self.workers:
                self.workers.remove(worker)
        elif worker not in self.workers:
            self.workers.append(worker)
        return outcome

    def bury(self, worker: Worker, *, here: bool) -> None:
        if here:
            self.gone.add(worker.name)
        if worker in self.workers:
            self.workers.remove(worker)

    # What a script may do, at a call of a port.

    def script(self, drawn: Drawn) -> Script | None:
        if drawn is None:
            return None
        at, name, number = drawn
        acts: dict[str, Callable[[Worker], None]] = {
            "die": lambda worker: self.die_here(worker, here=number % 2 == 0),
            "transient": lambda _: _raise(TransientError("once")),
            "error": lambda _: _raise(InjectedError()),
            "overtaken": lambda worker: self.overtake(worker, steps=number),
            "reset": self.reset_under,
            "stop": lambda _: self.stop(),
            "expire": lambda _: self.world.expire(),
            "source": lambda _: None if self.kind.prefetch else self.change(number),
        }
        return Script(at, acts[name], name, acts_on_world=name not in {"die", "transient", "error"})

    def die_here(self, worker: Worker, *, here: bool) -> None:
        worker.dead = True
        if here:
            self.gone.add(worker.name)
        raise Death

    def overtake(self, worker: Worker, steps: int) -> None:
        """While a worker sleeps, its lease ends, and another one takes over."""
        if len(self.workers) >= MAX_WORKERS:
            return
        self.world.expire()
        if steps % 2:
            worker.sleep()
        other = self.new_worker(Options(batch_size=2))
        try:
            if self.kind.replaces:
                self.check_published()  # by a worker that is done but for the rest of its step; the next run forgets it
            self.perform(other, None, other.start)
            for _ in range(steps):
                if not other.over:
                    self.perform(other, None, other.step)
        except AssertionError as error:
            worker.problems.append(f"the other worker: {error}")
        self.leave_unchanged(worker)

    def reset_under(self, worker: Worker) -> None:
        self.delete()
        self.leave_unchanged(worker)

    def leave_unchanged(self, worker: Worker) -> None:
        if worker.is_zombie():
            fenced = worker.is_fenced()
            worker.left_unchanged = fenced, self.world.everything(fenced=fenced)

    def stop(self) -> None:
        seen = self.world.seen()
        self.world.store(MAX_WORKERS).request_stop(JOB_ID)
        for worker in self.workers:
            if seen is not None and seen.alive and worker.token == seen.token and worker.stop_budget is None:
                worker.stop_budget = 1

    def delete(self) -> None:
        self.world.store(MAX_WORKERS).delete(JOB_ID)
        assert self.world.seen() is None
        assert not self.world.letters()
        self.last = None

    def change(self, number: int) -> None:
        """Change the source: beyond its end, before the cursor, behind the cursor."""
        keys = sorted(self.world.source)
        seen = self.world.seen()
        place = BEGINNING if seen is None else seen.position
        if number == 0 or not keys:
            self.world.put((keys[-1] if keys else 0) + 10)
        elif number == 1:
            self.world.put(max(0, place) + 1)  # between two rows, just behind the cursor
        elif number == 2:
            self.world.put(next((key - 1 for key in keys if key <= place), keys[0] - 1))  # in front of it
        elif number == 3:
            self.world.remove(next((key for key in keys if key > place), keys[0]))
        else:
            self.world.put(next((key for key in keys if key > place), keys[0]))


def _raise(error: Exception) -> None:
    raise error


@pytest.fixture(params=KINDS, ids=str)
def machine(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Machine]]:
    """The machine, in a world of its own: no threads for heartbeats, and dead processes are those it has killed."""
    # A loop that is left in its own transaction holds the lock, and whoever comes waits for it in vain.
    world = World(tmp_path, wait=0.1 if request.param.sink == "loop" else 5)

    class Made(Machine):
        pass

    Made.world, Made.kind, Made.gone, Made.acting = world, request.param, set(), []
    monkeypatch.setattr("resumable_sync._attempts.acquire.new_owner", lambda: Made.acting[-1].name)
    monkeypatch.setattr("resumable_sync._attempts.acquire.owner_gone", lambda owner: owner in Made.gone)
    for module in ("_replay", "_reset"):
        monkeypatch.setattr(f"resumable_sync.{module}.Retry", lambda: FAST)
    monkeypatch.setattr(LeaseKeeper, "start", lambda _: None)
    # With Python's own handler in place, every attempt would put up one of its own.
    before = signal.signal(signal.SIGINT, lambda *_: _raise_interrupt())
    for name in ("resumable_sync", "stamina"):
        monkeypatch.setattr(logging.getLogger(name), "disabled", True)
    yield Made
    signal.signal(signal.SIGINT, before)
    world.close()


def _raise_interrupt() -> None:
    raise KeyboardInterrupt


@pytest.mark.timeout(7200)
def test_nothing_that_may_happen_breaks_a_promise(machine: type[Machine]) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=-(-EXAMPLES // len(KINDS)),
            stateful_step_count=STEPS,
            deadline=None,
            report_multiple_bugs=False,
            database=None,
            derandomize=bool(os.environ.get("CI")),
            suppress_health_check=list(HealthCheck),
            phases=(Phase.generate, Phase.shrink),
        ),
    )


REPLACING = [kind for kind in KINDS if kind.replaces]


@pytest.mark.parametrize("machine", REPLACING, indirect=True, ids=str)
def test_a_run_may_be_published_and_forgotten_within_one_step(machine: type[Machine]) -> None:
    """The model once saw a new target, and no run it could be of: the next run had begun already."""
    for call in range(24):
        state = machine()
        state.begin(rows=3, refused=set())
        state.step(which=0, times=4, script=(call, "overtaken", 1))
        state.holds()
        state.teardown()


@pytest.mark.parametrize("machine", REPLACING[:1], indirect=True, ids=str)
def test_a_run_may_begin_and_be_reset_within_one_step(machine: type[Machine]) -> None:
    """The model once took the job that was reset before and the one that was reset after for the same run."""
    for call in range(6):
        state = machine()
        state.begin(rows=0, refused=set())
        state.leave(which=0, script=None)
        state.reset(script=None)
        state.holds()
        state.reset(script=(call, "overtaken", 1))
        state.holds()
        state.teardown()


@pytest.mark.parametrize("machine", KINDS[:1], indirect=True, ids=str)
def test_what_a_dead_worker_counts_is_no_death_of_a_thread(machine: type[Machine]) -> None:
    """Nobody catches it there: the machine failed when a worker died while its source was counted."""
    state = machine()
    state.begin(rows=1, refused=set())
    worker = state.some(0)
    worker.die()
    with ThreadPoolExecutor(1) as other:
        other.submit(worker.reach, "count", "after").result()
