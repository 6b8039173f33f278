"""A sync whose sink refuses some rows, and the replays of its dead letters, in processes that are killed."""

import random
from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

import attrs
from sqlalchemy import Connection
from typing_extensions import override

from crash.programs import JOB_ID, Program
from resumable_sync import Batch, Job, JobStatus, replay_dead_letters
from resumable_sync.sinks.sql import SQLSink
from resumable_sync.stores.sql import SQLJobStore
from resumable_sync.testing import KillAtStep, SyncParts, SyncProcess, SyncProcesses

Phase = Literal["sync", "first replay", "last replay"]
Row = tuple[int, str]

REFUSED = 7
"""Each row whose id this divides is refused by the sync."""

REFUSED_AGAIN = 35
"""Of these, the first replay refuses some once more."""


class Refusing(SQLSink):
    """Writes, and refuses afterwards: only a savepoint undoes what was written."""

    def __init__(self, divisor: int | None) -> None:
        super().__init__("target", mode="append")
        self.divisor = divisor

    @override
    def write(self, batch: Batch[Any], connection: Connection | None) -> None:
        super().write(batch, connection)
        if self.divisor is not None and any(row[0] % self.divisor == 0 for row in batch.records):
            raise ValueError("refused")


def parts(program: Program, phase: Phase) -> SyncParts:
    """Give the parts of a phase, in each process anew."""
    made = program.make()
    if phase == "sync":
        refusing = {"on_refused": "dead_letter", "max_dead_letters": None}
        return attrs.evolve(made, sink=Refusing(REFUSED), options={**made.options, **refusing})
    divisor = REFUSED_AGAIN if phase == "first replay" else None
    return attrs.evolve(made, sink=Refusing(divisor), options={}, run=_replay)


def _replay(job_id: str, _connector: object, sink: SQLSink, *, store: SQLJobStore) -> object:
    return replay_dead_letters(job_id, sink, store=store)


@attrs.frozen
class State:
    """What store and target hold between two transactions."""

    job: Job | None
    letters: list[Row]
    rows: list[Row]


@attrs.define
class Trial:
    """Runs the phases over and over, kills them, and checks after each death that no row is lost or in two places."""

    program: Program
    processes: SyncProcesses
    deaths: Counter[Phase] = attrs.field(factory=Counter)
    rounds: int = 0

    def round(self, kill: Any) -> None:
        """Run from an empty target to the completed job.

        Args:
            kill: Is called with phase, number of the start and the function that makes a child; gives the child, which
                has ended or ends by itself.
        """
        self.program.reset()
        attempt = 0
        phases: list[Phase] = ["sync", "first replay", "last replay"]
        for phase in phases:
            starts, over = 0, False
            while not over:
                child: SyncProcess = kill(phase, starts)
                ended = child.wait(120)
                assert ended is not None, f"{phase} takes more than two minutes"
                assert ended.how != "raised", ended.trace
                state = self.look()
                self.check(state, phase, ended.how)
                starts += 1
                self.deaths[phase] += ended.how == "died"
                assert state.job is None or state.job.attempt >= attempt
                attempt = attempt if state.job is None else state.job.attempt
                over = ended.how == "returned" or _is_over(state, phase)
        self.rounds += 1

    def check(self, state: State, phase: Phase, how: str) -> None:
        job, where = state.job, f"{phase} {how}"
        letters, rows = state.letters, state.rows
        if job is None:
            assert (letters, rows) == ([], []), where
            return
        place = 0 if job.cursor is None else job.cursor[0][0]
        expected = list(self.program.expected())
        # Every row up to the checkpoint once, in the target or among the letters, and none behind it.
        assert sorted(rows + letters) == expected[:place], where
        assert (job.processed_records, job.dead_letters) == (len(rows), len(letters)), where
        refused = [row for row in expected[:place] if row[0] % REFUSED == 0]
        stubborn = [row for row in refused if row[0] % REFUSED_AGAIN == 0]
        if phase == "sync":
            assert letters == refused, where
        elif phase == "first replay":
            assert set(stubborn) <= set(letters) <= set(refused), where
        else:
            assert set(letters) <= set(stubborn), where
        if how == "returned":
            assert place == len(expected), where
            assert letters == {"sync": refused, "first replay": stubborn, "last replay": []}[phase], where
            status = JobStatus.COMPLETED if phase == "last replay" else JobStatus.INCOMPLETE
            assert (job.status, job.lease) == (status, None), where

    def look(self) -> State:
        """Look at job, letters and rows as they were at one moment: a commit of the dead may still be on its way."""
        with SQLJobStore(self.program.store) as store:
            for _ in range(1_000):
                before = store.load(JOB_ID)
                letters = [letter.record for letter in store.dead_letters(JOB_ID)]
                rows = sorted(self.program.delivered())
                job = store.load(JOB_ID)
                if _facts(job) == _facts(before):
                    return State(job, letters, rows)
        message = "the job does not come to rest"
        raise AssertionError(message)

    def start(self, phase: Phase, at: KillAtStep | None = None) -> SyncProcess:
        """Start a child."""
        return self.processes.start(partial(parts, self.program, phase), at)


def _facts(job: Job | None) -> Any:
    return None if job is None else (job.run_id, job.status, job.cursor, job.processed_records, job.dead_letters)


def _is_over(state: State, phase: Phase) -> bool:
    """Whether a process was killed when there was nothing left to do but to give back the lease."""
    status = None if state.job is None else state.job.status
    if phase == "sync":
        return status is JobStatus.INCOMPLETE
    return phase == "last replay" and status is JobStatus.COMPLETED


@attrs.define
class RandomKills:
    """Kills at moments that are uniform within what a phase takes, until so many died."""

    trial: Trial
    kills: int
    chance: random.Random
    _seconds: dict[Phase, float] = attrs.field(factory=dict)

    def __call__(self, phase: Phase, starts: int) -> SyncProcess:
        child = self.trial.start(phase)
        if phase not in self._seconds or self.trial.deaths.total() >= self.kills:
            ended = child.wait(120)
            self._seconds[phase] = 1.0 if ended is None else ended.seconds
        elif child.wait(self.chance.uniform(0, self._seconds[phase])) is None:
            child.kill()
        if starts % 20 == 19:  # the machine gets busier: many deaths in one round leave more time
            self._seconds[phase] *= 1.5
        return child


@attrs.frozen
class KillAtSteps:
    """Kills the first process of a phase at the step that is given for it, and no other one."""

    trial: Trial
    steps: Mapping[Phase, int]

    def __call__(self, phase: Phase, starts: int) -> SyncProcess:
        step = self.steps.get(phase) if starts == 0 else None
        return self.trial.start(phase, None if step is None else KillAtStep(step))
