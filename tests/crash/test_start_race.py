"""Twenty processes start the same new job at once: one runs, the others are told that it is held."""

from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import attrs
import pytest

from crash.programs import Program
from resumable_sync.testing import Fault, SyncParts, SyncProcesses
from waiting import until

PROCESSES = 20
BOUND = 90.0


def _wait_for(path: Path) -> None:
    """Wait for a file that somebody else makes."""
    until(path.exists, BOUND)


def make(program: Program, folder: Path) -> SyncParts:
    """Give the parts, at the same moment in every process."""
    held = Fault("page", 2, partial(_wait_for, folder / "others ended"))
    parts = attrs.evolve(program, faults=[held]).make()
    _wait_for(folder / "start")
    return parts


@pytest.mark.parametrize(
    "kind", ["sqlite", "postgresql", *(pytest.param(kind, marks=pytest.mark.crash) for kind in ("mariadb", "redis"))]
)
def test_one_of_twenty_runs(new_database: Callable[[str], str], tmp_path: Path, kind: str) -> None:
    # No table of the store is there yet: all twenty make them.
    rows = "sqlite" if kind == "redis" else kind
    program = Program(source=new_database(rows), store=new_database(kind), target="")
    if kind == "redis":
        program = attrs.evolve(program, target=new_database(rows), sink="own")
    else:
        program = attrs.evolve(program, target=program.store)
    program.fill()
    with SyncProcesses() as processes:
        children = [processes.start(partial(make, program, tmp_path)) for _ in range(PROCESSES)]
        (tmp_path / "start").touch()
        until(lambda: sum(child.wait(0) is not None for child in children) >= PROCESSES - 1, BOUND)
        (tmp_path / "others ended").touch()
        ended = [child.wait(BOUND) for child in children]
    outcomes = Counter(one and (one.error or one.status) for one in ended)
    assert outcomes == {"completed": 1, "JobHeldError": PROCESSES - 1}, [one and one.message for one in ended]
    assert sorted(program.delivered()) == program.expected()
