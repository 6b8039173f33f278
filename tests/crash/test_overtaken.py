"""A worker is stopped at a random moment, overtaken, and continued, round after round: it changes nothing any more."""

import os
import random
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import inspect, make_url, text

from crash.programs import JOB_ID, Program
from resumable_sync import JobHeldError, StoreError
from resumable_sync.stores.sql import SQLJobStore
from resumable_sync.testing import Ended, SyncProcess, SyncProcesses
from trouble.parts import is_stopped
from waiting import until

ROUNDS = int(os.environ.get("RESUMABLE_SYNC_TEST_OVERTAKEN", "200"))
"""In how many rounds a worker is overtaken, per backend."""
PARTS = 4
"""Most of the time is spent waiting for servers that end the transactions of stopped workers: the parts may run at
once."""
OPTIONS = {"batch_size": 6, "lease_ttl": 1.0, "if_held": "wait", "if_completed": "skip"}
NewDatabase = Callable[[str], str]

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc to see a stopped process")


class Rounds:
    """Plays the rounds and counts what happened.

    Attributes:
        overtaken: Rounds in which a stopped worker that held the lease was overtaken.
        seen: What became of stopped workers, by how they were overtaken.
    """

    def __init__(self, processes: SyncProcesses, program: Program, seed: str) -> None:
        self.overtaken = 0
        self.seen: Counter[str] = Counter()
        self._processes, self._program = processes, program
        self._chance = random.Random(seed)
        self._files = {make_url(url).database for url in (program.store, program.target) if url.startswith("sqlite")}

    def play(self, rounds: int) -> None:
        """Play until so many workers were overtaken."""
        self._program.fill()
        self._program.reset()
        normal = self._end_of(self._processes.start(self._program.make)).seconds
        for _ in range(20 * rounds):
            if self.overtaken == rounds:
                break
            self._program.reset()
            normal = self._round(normal)
        assert self.overtaken == rounds, self.seen

    def _round(self, normal: float) -> float:
        """Play one round; give how long a worker takes that nothing has stopped."""
        zombie = self._processes.start(self._program.make)
        ended = self._stop(zombie, self._chance.uniform(0.0, normal))
        if ended is not None:
            self.seen["ended before it was stopped"] += 1
            return ended.seconds
        holder, token = self._lease()
        held = holder == zombie.pid
        how = self._overtake(token) if held else "before it held the lease"
        successor = self._processes.start(self._program.make)
        if held and self._chance.random() < 0.25 and self._stop(successor, self._chance.uniform(0.0, normal)) is None:
            if self._lease()[0] == successor.pid and self._is_fenced():
                self._continue(zombie, f"{how}, amid its successor's work", held=True)
            successor.thaw()
        ended = self._end_of(successor)
        assert (ended.how, ended.status) == ("returned", "completed"), f"{ended}\n{ended.trace}"
        assert sorted(self._program.delivered()) == self._program.expected()
        self._continue(zombie, how, held=held and ended.action != "skip")
        return normal

    def _stop(self, process: SyncProcess, moment: float) -> Ended | None:
        """Stop a process at a moment, or soon after: with a SQLite file locked nobody could overtake it."""
        ended = process.wait(moment)
        while ended is None:
            process.freeze()
            until(lambda: is_stopped(process.pid) or process.wait(0.0))
            ended = process.wait(0.0)
            if ended is None and not self._locked():
                break
            process.thaw()
            ended = process.wait(self._chance.uniform(0.0, 0.005))
        return ended

    def _locked(self) -> bool:
        for path in self._files:
            with closing(sqlite3.connect(str(path), timeout=0.2, isolation_level=None)) as connection:
                try:
                    connection.execute("BEGIN IMMEDIATE")
                except sqlite3.OperationalError:
                    return True
        return False

    def _overtake(self, token: int) -> str:
        """Let somebody else have the job."""
        how = self._chance.choice(["its lease ended", "its lease was ended", "it was replaced"])
        if how == "its lease was ended":
            with self._program.engine(self._program.store) as engine, engine.begin() as connection:
                connection.execute(text("UPDATE resumable_sync_jobs SET lease_expires_at = 1"))
        if how == "it was replaced":
            with SQLJobStore(self._program.store) as store:
                until(lambda: replace(store, token))
        return how

    def _lease(self) -> tuple[int | None, int]:
        """Give the process that got the lease last and did not give it back, whether it has ended or not; its token."""
        with self._program.engine(self._program.store) as engine:
            if not inspect(engine).has_table("resumable_sync_jobs"):
                return None, 0
            with engine.connect() as connection:
                query = text("SELECT lease_owner, fencing_token FROM resumable_sync_jobs")
                owner, token = connection.execute(query).one_or_none() or (None, 0)
        name = owner.decode() if isinstance(owner, bytes) else owner
        return (int(name.split(":")[1]) if name else None), token

    def _is_fenced(self) -> bool:
        """Whether the newest token has come to the target.

        In another database than the store's that is when the successor asks for the checkpoint there. Until then the
        batch in hand may be accepted: it moves that checkpoint, and the successor goes on behind it.
        """
        if self._program.sink != "own":
            return True
        with self._program.engine(self._program.target) as engine, engine.connect() as connection:
            query = text("SELECT max(fencing_token) FROM resumable_sync_checkpoints")
            return bool(connection.execute(query).scalar_one() == self._lease()[1])

    def _continue(self, zombie: SyncProcess, how: str, *, held: bool) -> None:
        """Continue a stopped worker, if that was not done yet: what is stored and delivered stays as it is."""
        if zombie.wait(0.0) is not None:
            return
        before = self._everything()
        zombie.thaw()
        ended = self._end_of(zombie)
        said = f"{how}: {ended}\n{ended.trace}"
        if held:
            assert self._everything() == before, said
            # One that had just got the lease may look, and find that its successor has left it nothing to do.
            assert ended.error == "LeaseLostError" or (ended.action, ended.records) == ("skip", 0), said
            self.overtaken += 1
        else:
            # It may look who has the job, and find that there is nothing left to do.
            assert self._everything()[1:] == before[1:], said
            assert (ended.error or ended.status) in {"LeaseLostError", "completed"}, said
        self.seen[f"{how}: {ended.error or ended.action}"] += 1

    def _everything(self) -> tuple[Mapping[str, Any], list[Any], list[Any]]:
        with self._program.engine(self._program.target) as engine, engine.connect() as connection:
            kept = inspect(engine).has_table("resumable_sync_checkpoints")
            query = text("SELECT * FROM resumable_sync_checkpoints")
            checkpoints = [tuple(row) for row in connection.execute(query)] if kept else []
        return self._program.row(), checkpoints, sorted(self._program.delivered())

    def _end_of(self, process: SyncProcess) -> Ended:
        ended = process.wait(120)
        assert ended is not None, f"it did not end: {self.seen}"
        return ended


def replace(store: SQLJobStore, token: int) -> bool:
    """Take the job from the holder of a token, and give it free; False if its row is locked."""
    try:
        store.release(store.acquire(JOB_ID, owner="somebody", ttl=60.0, replacing=token))
    except JobHeldError:
        return True  # it was not the newest any more
    except StoreError:
        return False
    return True


def play(new_database: NewDatabase, store: str, target: str, sink: str, part: int) -> None:
    there = new_database(target)
    home = there if store == target else new_database(store)
    program = Program(source=new_database(target), store=home, target=there, sink=sink, rows=2_000, options=OPTIONS)
    began = time.monotonic()
    with SyncProcesses() as processes:
        played = Rounds(processes, program, f"{store} {target} {part}")
        played.play(-(-ROUNDS // PARTS))
    print(f"{store} {target} {sink}: {played.overtaken} in {time.monotonic() - began:.0f} s, {dict(played.seen)}")


@pytest.mark.crash
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize(
    ("store", "target", "sink"),
    [
        ("sqlite", "sqlite", "store"),
        ("postgresql", "postgresql", "store"),
        ("mariadb", "mariadb", "store"),
        ("sqlite", "postgresql", "own"),
        ("postgresql", "sqlite", "own"),
    ],
)
def test_a_stopped_worker_changes_nothing(
    new_database: NewDatabase, store: str, target: str, sink: str, part: int
) -> None:
    play(new_database, store, target, sink, part)
