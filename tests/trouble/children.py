"""Real processes that run a sync and get signals; parent and child talk by files in a folder."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
from sqlalchemy import Connection
from typing_extensions import override

from resumable_sync import Batch, Retry, SyncResult, TransientError, run_full_sync, transactional
from resumable_sync.stores.sql import SQLJobStore
from resumable_sync.testing import Fault, FaultyStore, Raise, SyncParts
from trouble.parts import JOB_ID, TARGET, Insert, Numbers
from waiting import until

BATCH_SIZE = 50
LONG = 600.0
"""Seconds that a scene takes which only a signal ends."""
SCENE_AT = 2
"""Sequence of the batch in which something happens."""


@attrs.frozen(kw_only=True)
class Child:
    """A sync in a process of its own.

    Attributes:
        url: The database of store and target.
        folder: Where parent and child leave each other files: `here` and `gone` from the child, `go` from the parent.
        scene: What happens in the third batch, or around it; a name in `_SCENES`.
        total: How many records the source has.
        exits: Whether it has a handler of its own for SIGTERM, which raises SystemExit.
        options: Arguments of `run_full_sync`.
    """

    url: str
    folder: Path
    exits: bool = False
    scene: str = "none"
    total: int = 500
    options: dict[str, Any] = attrs.field(factory=dict)

    @property
    def here(self) -> bool:
        """Whether the child has come to the scene."""
        return (self.folder / "here").exists()

    @property
    def told(self) -> bool:
        """Whether the child has taken notice of a signal, in an endless scene."""
        return (self.folder / "told").exists()

    def endless(self) -> bool:
        """Say so, in the child, when its first signal has arrived; False."""
        handler = getattr(signal.getsignal(signal.SIGINT), "__self__", None)
        if handler is not None and handler._stop.reason:
            (self.folder / "told").touch()
        return False

    def go(self) -> None:
        """Let the child go on."""
        (self.folder / "go").touch()

    def arrive(self) -> bool:
        """Say that the child is at the scene; False, as an answer of `should_stop`."""
        (self.folder / "here").touch()
        return False

    def make(self) -> SyncParts:
        """Give the parts, in the child."""
        options = {"batch_size": BATCH_SIZE, "max_stalled_attempts": 1000, **self.options}
        store: Any = SQLJobStore(self.url)
        parts = SyncParts(
            job_id=JOB_ID, connector=Numbers(self.total), sink=Insert(), store=store, options=options, run=self.run
        )
        return _SCENES[self.scene](self, parts)

    def run(self, job_id: str, connector: Any, sink: Any, *, store: Any, **options: Any) -> SyncResult:
        """Run the sync as a program in a terminal would, and note what it leaves behind."""
        # A parent in the background passes on that SIGINT is ignored; Python has no handler then.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, (lambda *_: sys.exit(3)) if self.exits else signal.SIG_DFL)
        try:
            return run_full_sync(job_id, connector, sink, store=store, **options)
        finally:
            handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            left = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
            if handlers[0] is not signal.default_int_handler:
                left.append("SIGINT handler")
            if handlers[1] is not signal.SIG_DFL and not self.exits:
                left.append("SIGTERM handler")
            job = SQLJobStore(self.url).load(job_id)
            if job is not None and job.lease is not None and job.lease.owner.split(":")[1:2] == [str(os.getpid())]:
                left.append("lease")
            (self.folder / "left").write_text(" ".join(left))

    def left(self) -> str:
        """Give what the sync left behind in its process, if that came to say it."""
        path = self.folder / "left"
        return path.read_text() if path.exists() else ""


def _at(sequence: int, act: Callable[[], object]) -> Callable[[Batch[int]], None]:
    def in_batch(batch: Batch[int]) -> None:
        if batch.sequence == sequence:
            act()

    return in_batch


def _none(_child: Child, parts: SyncParts) -> SyncParts:
    return parts


def _slow(_child: Child, parts: SyncParts) -> SyncParts:
    return attrs.evolve(parts, sink=Insert(lambda _: time.sleep(0.002)))


def _waits_for_parent(child: Child, parts: SyncParts) -> SyncParts:
    def act() -> None:
        child.arrive()
        until((child.folder / "go").exists)

    return attrs.evolve(parts, sink=Insert(_at(SCENE_AT, act)))


def _endless_sink(child: Child, parts: SyncParts) -> SyncParts:
    def act() -> None:
        child.arrive()
        until(child.endless, LONG)

    return attrs.evolve(parts, sink=Insert(_at(SCENE_AT, act)))


def _endless_statements(child: Child, parts: SyncParts) -> SyncParts:
    def write(batch: Batch[int], connection: Connection) -> None:
        connection.execute(TARGET.insert(), [{"number": number} for number in batch.records])
        if batch.sequence == SCENE_AT:
            child.arrive()
            while not child.endless():
                connection.execute(TARGET.insert(), [{"number": -1}] * 100)

    return attrs.evolve(parts, sink=transactional(write))


def _endless_reader(child: Child, parts: SyncParts) -> SyncParts:
    class Blocked(Numbers):
        @override
        def fetch(self, offset: int, limit: int) -> list[int]:
            if offset >= 3 * BATCH_SIZE:
                child.arrive()
                until(child.endless, LONG)
            return super().fetch(offset, limit)

    return attrs.evolve(parts, connector=Blocked(child.total))


def _throttled(child: Child, parts: SyncParts) -> SyncParts:
    def throttle() -> float:
        child.arrive()
        return LONG

    return attrs.evolve(parts, options={**parts.options, "throttle": throttle})


def _backing_off(child: Child, parts: SyncParts) -> SyncParts:
    def act() -> None:
        child.arrive()
        raise TransientError("busy", retry_after=LONG)

    options = {**parts.options, "retry": Retry(timeout=None)}
    return attrs.evolve(parts, sink=Insert(_at(SCENE_AT, act)), options=options)


def _waiting(child: Child, parts: SyncParts) -> SyncParts:
    return attrs.evolve(parts, options={**parts.options, "if_held": "wait", "should_stop": child.arrive})


def _store_down(child: Child, parts: SyncParts) -> SyncParts:
    store = FaultyStore(parts.store, [Fault("load", 1, Raise(ConnectionError, ("down",)), times=10**6)])
    retry = Retry(max_tries=100_000, wait_initial=0.05, wait_max=0.1, timeout=None)
    return attrs.evolve(parts, store=store, options={**parts.options, "retry": retry, "should_stop": child.arrive})


_SCENES: dict[str, Callable[[Child, SyncParts], SyncParts]] = {
    "none": _none,
    "slow": _slow,
    "waits for parent": _waits_for_parent,
    "endless sink": _endless_sink,
    "endless statements": _endless_statements,
    "endless reader": _endless_reader,
    "throttled": _throttled,
    "backing off": _backing_off,
    "waiting": _waiting,
    "store down": _store_down,
}
