"""Syncs that leave dead letters, and their replays, are killed: every row is once in the target or once a letter."""

import os
import random
from collections.abc import Callable

import pytest

from crash.programs import Program
from crash.refusals import KillAtSteps, Phase, RandomKills, Trial
from resumable_sync.testing import SyncProcesses

KINDS = ["sqlite", "postgresql", "mariadb"]
KILLS = int(os.environ.get("RESUMABLE_SYNC_KILLS", "1000"))
NewDatabase = Callable[[str], str]


def _program(new_database: NewDatabase, kind: str, rows: int, batch_size: int) -> Program:
    home = new_database(kind)
    program = Program(source=new_database(kind), store=home, target=home, rows=rows, options={"batch_size": batch_size})
    program.fill()
    return program


def _kill_randomly(program: Program, kills: int) -> Trial:
    with SyncProcesses() as processes:
        trial = Trial(program, processes)
        chance = RandomKills(trial, kills, random.Random(0))
        while trial.deaths.total() < kills:
            trial.round(chance)
    print(program.store.split(":")[0], dict(trial.deaths), f"{trial.rounds} rounds")
    return trial


# Steps in the middle: of a bisection, of the letters, and the completion.
STEPS = {"sqlite": (30, 20, 14), "postgresql": (45, 25, 16), "mariadb": (60, 30, 18)}


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgresql", marks=pytest.mark.crash), "mariadb"])
def test_a_kill_in_each_phase(new_database: NewDatabase, kind: str) -> None:
    program = _program(new_database, kind, rows=36, batch_size=15)
    sync, first, last = STEPS[kind]
    with SyncProcesses() as processes:
        trial = Trial(program, processes)
        trial.round(KillAtSteps(trial, {"sync": sync, "first replay": first, "last replay": last}))
    assert trial.deaths == {"sync": 1, "first replay": 1, "last replay": 1}


@pytest.mark.crash
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("kind", KINDS)
def test_many_kills(new_database: NewDatabase, kind: str) -> None:
    trial = _kill_randomly(_program(new_database, kind, rows=350, batch_size=50), KILLS)
    assert set(trial.deaths) == {"sync", "first replay", "last replay"}


@pytest.mark.crash
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("phase", ["sync", "first replay", "last replay"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_step(new_database: NewDatabase, kind: str, phase: Phase) -> None:
    program = _program(new_database, kind, rows=36, batch_size=15)
    with SyncProcesses() as processes:
        trial, step = Trial(program, processes), 0
        while trial.deaths[phase] == step:  # until one survives because it has fewer steps
            step += 1
            trial.round(KillAtSteps(trial, {phase: step}))
    print(kind, phase, f"{step - 1} steps")
    assert step > 15
