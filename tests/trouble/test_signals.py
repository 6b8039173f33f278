"""Signals to real processes: what they stop, when, and what they leave behind."""

import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from resumable_sync import Batch, ConfigurationError, JobStatus, MemoryJobStore, run_full_sync
from resumable_sync.stores.sql import SQLJobStore
from resumable_sync.testing import Ended, SyncProcesses
from trouble.children import BATCH_SIZE, SCENE_AT, Child
from trouble.parts import JOB_ID, Numbers, check_consistent, check_exact, empty_target, make_target, until

PROMPT = 5.0
"""Seconds that a process may take to end, on a machine that is busy."""
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
    ended = end_of(processes.start(attrs.evolve(child, scene="none", options={"if_completed": "skip"}).make), 20.0)
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
        lease = store.acquire(JOB_ID, owner="another host", ttl=60.0)
        process = processes.start(child.make)
        until(lambda: child.here)
        os.kill(process.pid, signal.SIGINT)
        ended = end_of(process)
        if options:
            assert (ended.how, ended.action) == ("returned", "held"), ended
        else:
            assert (ended.how, ended.error) == ("raised", "KeyboardInterrupt"), ended
        assert child.left() == ""
        store.renew(lease, 60.0)
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
import signal, sys, time
from resumable_sync import run_full_sync
from resumable_sync.stores.sql import SQLJobStore
from trouble.parts import Insert, Numbers

def act(batch):
    if batch.sequence == 2:
        print("here", flush=True)
        time.sleep(0.5)

signal.signal(signal.SIGINT, signal.default_int_handler)
run_full_sync("orders", Numbers(500), Insert(act), store=SQLJobStore(sys.argv[1]), batch_size=50)
print("not reached")
"""


def test_a_program_ends_as_any_program_that_ctrl_c_ends(processes: SyncProcesses, child: Child) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, child.url],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        text=True,
    ) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "here\n"
        program.send_signal(signal.SIGINT)
        output, errors = program.communicate(timeout=20)
    assert (program.returncode, output) == (-signal.SIGINT, "")
    assert "KeyboardInterrupt" in errors
    job = check_consistent(child.url)
    assert job is not None
    assert (job.status, job.processed_batches, job.lease) == (JobStatus.INTERRUPTED, 3, None)
    finish(processes, child)


def signalled(
    processes: SyncProcesses, child: Child, number: signal.Signals, *, seconds: float, again: float | None
) -> Ended:
    """Start the sync and send it a signal at a moment, and another one some time after."""
    (child.folder / "left").unlink(missing_ok=True)
    process = processes.start(child.make)
    if process.wait(seconds) is None:
        os.kill(process.pid, number)
        if again is not None and process.wait(again) is None:
            os.kill(process.pid, number)
    ended = end_of(process, 10.0)
    job = check_consistent(child.url)
    assert job is None or job.lease is None, f"{ended} after {seconds=} {again=}"
    assert child.left() == "", f"{ended} after {seconds=} {again=}"
    return ended


@pytest.mark.parametrize("twice", [False, True], ids=["once", "twice"])
@pytest.mark.parametrize("name", NAMES)
def test_signals_at_random_moments(processes: SyncProcesses, child: Child, name: str, *, twice: bool) -> None:
    chance = random.Random(name)
    child = attrs.evolve(child, scene="slow", options=STOPS if name == "SIGTERM" else {})
    normal = signalled(processes, child, signal.SIGINT, seconds=20.0, again=None).seconds
    endings: set[str | None] = set()
    for _ in range(COUNT):
        empty_target(child.url)
        moment, again = chance.uniform(0.0, normal), chance.uniform(0.0, 0.02) if twice else None
        ended = signalled(processes, child, signal.Signals[name], seconds=moment, again=again)
        endings.add(ended.error or ended.status)
        finish(processes, child)
    assert endings & ({"KeyboardInterrupt"} if name == "SIGINT" else {"interrupted"})


def test_a_handler_that_raises_at_random_moments(processes: SyncProcesses, child: Child) -> None:
    """Nothing holds off a handler of the caller's; it may cut anything in two, but costs no record and no waiting."""
    chance = random.Random(0)
    child = attrs.evolve(child, scene="slow", exits=True)
    normal = signalled(processes, child, signal.SIGTERM, seconds=20.0, again=None).seconds
    for _ in range(COUNT):
        empty_target(child.url)
        process = processes.start(child.make)
        if process.wait(chance.uniform(0.0, normal)) is None:
            os.kill(process.pid, signal.SIGTERM)
        end_of(process, 10.0)
        check_consistent(child.url)
        finish(processes, child)


COUNT = int(os.environ.get("RESUMABLE_SYNC_TEST_SIGNALS", "15"))
"""How many signals of each kind are sent at random moments."""


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
    thread.join(20)
    assert not thread.is_alive()
