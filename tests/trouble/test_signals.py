"""Signals to real processes: what they stop, when, and what they leave behind."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from resumable_sync import Batch, ConfigurationError, JobStatus, MemoryJobStore, run_full_sync
from resumable_sync.stores.sql import SQLJobStore
from resumable_sync.testing import Ended, SyncProcesses
from trouble.children import BATCH_SIZE, SCENE_AT, Child
from trouble.parts import JOB_ID, Numbers, check_consistent, check_exact, empty_target, make_target
from waiting import until

PROMPT = 30.0
"""Seconds that a process may take to end, on a machine that is busy; without the signal it would take ten minutes."""
STOPS = {"stop_on_signals": True}
NAMES = ["SIGINT", "SIGTERM"]


@pytest.fixture(scope="module")
def processes() -> Iterator[SyncProcesses]:
    with SyncProcesses() as started:
        yield started


@pytest.fixture
def child(sqlite_url: str, tmp_path: Path) -> Child:
    make_target(sqlite_url)
    return Child(url=sqlite_url, folder=tmp_path)


def end_of(process: Any, seconds: float = PROMPT) -> Ended:
    ended: Ended | None = process.wait(seconds)
    if ended is None:
        process.close()
        pytest.fail(f"the process did not end within {seconds:g} s")
    return ended


def finish(processes: SyncProcesses, child: Child) -> None:
    """Run the job to its end, without any trouble, at once."""
    ended = end_of(processes.start(attrs.evolve(child, scene="none", options={"if_completed": "skip"}).make))
    assert (ended.how, ended.status) == ("returned", "completed"), ended
    check_exact(child.url, child.total)


def test_the_first_ctrl_c_stops_after_the_batch_in_hand(processes: SyncProcesses, child: Child) -> None:
    child = attrs.evolve(child, scene="waits for parent")
    process = processes.start(child.make)
    until(lambda: child.here)
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(0.2) is None, "it did not wait for its batch"
    child.go()
    ended = end_of(process)
    assert (ended.how, ended.error, child.left()) == ("raised", "KeyboardInterrupt", ""), ended
    job = check_consistent(child.url)
    assert job is not None
    assert (job.status, job.lease) == (JobStatus.INTERRUPTED, None)
    assert job.processed_records == (SCENE_AT + 1) * BATCH_SIZE
    finish(processes, child)


@pytest.mark.parametrize("name", NAMES)
def test_stop_on_signals_returns_a_result(processes: SyncProcesses, child: Child, name: str) -> None:
    child = attrs.evolve(child, scene="waits for parent", options=STOPS)
    process = processes.start(child.make)
    until(lambda: child.here)
    os.kill(process.pid, signal.Signals[name])
    child.go()
    ended = end_of(process)
    assert (ended.how, ended.status, child.left()) == ("returned", "interrupted", ""), ended
    finish(processes, child)


@pytest.mark.parametrize(("name", "error"), [("SIGINT", "KeyboardInterrupt"), ("SIGTERM", "SystemExit")])
@pytest.mark.parametrize("scene", ["endless sink", "endless statements", "endless reader"])
def test_the_second_signal_strikes_at_once(
    processes: SyncProcesses, child: Child, scene: str, name: str, error: str
) -> None:
    child = attrs.evolve(child, scene=scene, options=STOPS if name == "SIGTERM" else {})
    process = processes.start(child.make)
    until(lambda: child.here)
    if scene == "endless reader":  # what was read before it blocks shall be saved
        until(lambda: (job := check_consistent(child.url)) is not None and job.processed_batches == 3)
    os.kill(process.pid, signal.Signals[name])
    until(lambda: child.told)  # two of a kind that both wait for the process are one
    assert process.wait(0.3) is None, "the first one struck"
    os.kill(process.pid, signal.Signals[name])
    ended = end_of(process)
    assert (ended.how, ended.error) == ("raised", error), ended
    if scene != "endless reader":  # a reader that is blocked cannot be ended
        assert child.left() == ""
    job = check_consistent(child.url)
    assert job is not None
    assert (job.status, job.lease) == (JobStatus.INTERRUPTED, None)
    finish(processes, child)


@pytest.mark.parametrize("options", [{}, STOPS], ids=["Ctrl-C", "stop_on_signals"])
@pytest.mark.parametrize("scene", ["throttled", "backing off"])
def test_a_signal_ends_a_wait(processes: SyncProcesses, child: Child, scene: str, options: dict[str, Any]) -> None:
    child = attrs.evolve(child, scene=scene, options=options)
    process = processes.start(child.make)
    until(lambda: child.here)
    os.kill(process.pid, signal.SIGINT)
    ended = end_of(process)
    if options:
        assert (ended.how, ended.status) == ("returned", "interrupted"), ended
    else:
        assert (ended.how, ended.error) == ("raised", "KeyboardInterrupt"), ended
    assert child.left() == ""
    job = check_consistent(child.url)
    assert job is not None
    assert (job.status, job.lease, job.error) == (JobStatus.INTERRUPTED, None, None)
    finish(processes, child)


@pytest.mark.parametrize("options", [{}, STOPS], ids=["Ctrl-C", "stop_on_signals"])
def test_a_signal_ends_waiting_for_the_lease(processes: SyncProcesses, child: Child, options: dict[str, Any]) -> None:
    child = attrs.evolve(child, scene="waiting", options=options)
    with SQLJobStore(child.url) as store:
        lease = store.acquire(JOB_ID, owner="another host", ttl=600.0)
        process = processes.start(child.make)
        until(lambda: child.here)
        os.kill(process.pid, signal.SIGINT)
        ended = end_of(process)
        if options:
            assert (ended.how, ended.action) == ("returned", "held"), ended
        else:
            assert (ended.how, ended.error) == ("raised", "KeyboardInterrupt"), ended
        assert child.left() == ""
        store.renew(lease, 600.0)
        store.release(lease)
    finish(processes, child)


@pytest.mark.parametrize("options", [{}, STOPS], ids=["Ctrl-C", "stop_on_signals"])
def test_a_signal_ends_the_tries_to_reach_the_store(
    processes: SyncProcesses, child: Child, options: dict[str, Any]
) -> None:
    child = attrs.evolve(child, scene="store down", options=options)
    process = processes.start(child.make)
    until(lambda: child.here)
    os.kill(process.pid, signal.SIGINT)
    ended = end_of(process)
    # Nothing is known about the job, so there is no result to give: what stands is why the store could not be read.
    assert (ended.how, ended.error) == ("raised", "ConnectionError" if options else "KeyboardInterrupt"), ended
    assert child.left() == ""


PROGRAM = """
import signal, sys
from resumable_sync import run_full_sync
from resumable_sync.stores.sql import SQLJobStore
from trouble.parts import Insert, Numbers

def act(batch):
    if batch.sequence == 2:
        print("here", flush=True)
        sys.stdin.readline()

signal.signal(signal.SIGINT, signal.default_int_handler)
run_full_sync("orders", Numbers(500), Insert(act), store=SQLJobStore(sys.argv[1]), batch_size=50)
print("not reached")
"""


def test_a_program_ends_as_any_program_that_ctrl_c_ends(processes: SyncProcesses, child: Child) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, child.url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        text=True,
    ) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "here\n"
        program.send_signal(signal.SIGINT)
        output, errors = program.communicate("go on\n", timeout=60)
    assert (program.returncode, output) == (-signal.SIGINT, "")
    assert "KeyboardInterrupt" in errors
    job = check_consistent(child.url)
    assert job is not None
    assert (job.status, job.processed_batches, job.lease) == (JobStatus.INTERRUPTED, 3, None)
    finish(processes, child)


FEW = 8
MANY = int(os.environ.get("RESUMABLE_SYNC_TEST_SIGNALS", "300"))
"""How many syncs of each kind get a signal at a random moment, in every run of the tests and in the long one."""
each_count = pytest.mark.parametrize(
    "count", [FEW, pytest.param(MANY, marks=[pytest.mark.crash, pytest.mark.timeout(7200)], id="many")]
)


class RandomSignals:
    """Signals a sync at random moments, run after run, until so many of them were hit while they ran.

    Attributes:
        delays: Seconds from the signal to the end of the process, whose lease is free then.
        endings: What became of them.
    """

    def __init__(self, processes: SyncProcesses, child: Child, name: str) -> None:
        self.delays: list[float] = []
        self.endings: Counter[str] = Counter()
        self._processes, self._child, self._signal = processes, child, signal.Signals[name]
        self._chance = random.Random(name)

    def send(self, count: int, *, twice: bool = False) -> None:
        """Signal them, and finish each run afterwards."""
        child = self._child
        # The machine gets busier and idler: a run that nothing has hit says how long the next one may take.
        normal = end_of(self._processes.start(child.make)).seconds
        for _ in range(20 * count):
            if len(self.delays) == count:
                break
            empty_target(child.url)
            (child.folder / "left").unlink(missing_ok=True)
            moments = [self._chance.uniform(0.0, normal), *([self._chance.uniform(0.0, 0.02)] if twice else [])]
            ended = self._signalled(moments)
            finish(self._processes, child)
            normal = normal if ended is None else ended.seconds
        assert len(self.delays) == count, "they ended before their signal"
        print(
            f"{child.options or 'Ctrl-C'} {self._signal.name} {twice=}: {dict(self.endings)}, "
            f"from signal to end at most {max(self.delays):.3f} s, median {sorted(self.delays)[count // 2]:.3f} s"
        )

    def _signalled(self, moments: list[float]) -> Ended | None:
        """Start a sync and signal it; give its end if it ended before."""
        process, sent = self._processes.start(self._child.make), 0.0
        for moment in moments:
            if process.wait(moment) is None:
                os.kill(process.pid, self._signal)
                sent = sent or time.monotonic()
        ended = end_of(process)
        if not sent:
            return ended
        self.delays.append(time.monotonic() - sent)
        self.endings[ended.error or ended.status or ended.how] += 1
        job = check_consistent(self._child.url)
        if not self._child.exits:
            assert job is None or job.lease is None, f"{ended} after {moments}"
            assert self._child.left() == "", f"{ended} after {moments}"
        return None


@each_count
@pytest.mark.parametrize("twice", [False, True], ids=["once", "twice"])
@pytest.mark.parametrize("name", NAMES)
def test_signals_at_random_moments(
    processes: SyncProcesses, child: Child, name: str, count: int, *, twice: bool
) -> None:
    child = attrs.evolve(child, scene="slow", options=STOPS if name == "SIGTERM" else {})
    signals = RandomSignals(processes, child, name)
    signals.send(count, twice=twice)
    assert signals.endings.keys() & ({"KeyboardInterrupt"} if name == "SIGINT" else {"interrupted", "SystemExit"})


@each_count
def test_a_handler_that_raises_at_random_moments(processes: SyncProcesses, child: Child, count: int) -> None:
    """Nothing holds off a handler of the caller's; it may cut anything in two, but costs no record and no waiting."""
    RandomSignals(processes, attrs.evolve(child, scene="slow", exits=True), "SIGTERM").send(count)


def test_a_thread_leaves_signals_alone() -> None:
    seen: list[Any] = []

    def look(_batch: Batch[int]) -> None:
        seen.append((signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)))

    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    in_thread(lambda: run_full_sync(JOB_ID, Numbers(1), look, store=MemoryJobStore()))
    assert seen == [before]


def test_stop_on_signals_in_a_thread_is_refused() -> None:
    store = MemoryJobStore()
    errors: list[BaseException] = []

    def work() -> None:
        try:
            run_full_sync(JOB_ID, Numbers(1), print, store=store, stop_on_signals=True)
        except ConfigurationError as error:
            errors.append(error)

    in_thread(work)
    assert "main thread" in str(errors[0])
    assert store.load(JOB_ID) is None


def test_a_handler_of_the_callers_stays() -> None:
    calls: list[int] = []

    def interrupt(_batch: Batch[int]) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, lambda number, _: calls.append(number))
    try:
        result = run_full_sync(JOB_ID, Numbers(20), interrupt, store=MemoryJobStore(), batch_size=10)
    finally:
        signal.signal(signal.SIGINT, before)
    assert (calls, result.status) == ([signal.SIGINT] * 2, "completed")


def test_stop_on_signals_borrows_the_callers_handlers() -> None:
    def interrupt(_batch: Batch[int]) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    def handler(_number: int, _frame: object) -> None:
        pytest.fail("called")

    before = signal.signal(signal.SIGTERM, handler)
    try:
        options: Any = {"store": MemoryJobStore(), "batch_size": 10, "stop_on_signals": True}
        result = run_full_sync(JOB_ID, Numbers(20), interrupt, **options)
        assert signal.getsignal(signal.SIGTERM) is handler
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (result.status, result.reason, result.records) == ("interrupted", "SIGTERM", 10)


def in_thread(work: Callable[[], object]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
