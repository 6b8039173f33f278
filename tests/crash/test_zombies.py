"""A process is stopped beyond its lease, overtaken, then continued: nothing that it does then has any effect."""

from collections.abc import Callable
from pathlib import Path

import attrs
import pytest
from sqlalchemy import text

from crash.programs import Program
from resumable_sync.testing import Fault, SyncProcess, SyncProcesses, freeze_process
from waiting import until

NewDatabase = Callable[[str], str]
OPTIONS = {"batch_size": 6, "lease_ttl": 1.0, "if_held": "wait"}

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc to see a stopped process")


def _wait_until_frozen(process: SyncProcess) -> None:
    def is_frozen() -> bool:
        ended = process.wait(0)
        assert ended is None, ended
        return stat.read_text().rpartition(")")[2].split()[0] == "T"

    stat = Path(f"/proc/{process.pid}/stat")
    until(is_frozen, otherwise="the process did not freeze")


def _frozen(processes: SyncProcesses, program: Program, fault: Fault) -> SyncProcess:
    zombie = processes.start(attrs.evolve(program, faults=[fault]).make)
    _wait_until_frozen(zombie)
    if program.options["lease_ttl"] > 1:
        # It would be waited for.
        with program.engine(program.store) as engine, engine.begin() as connection:
            connection.execute(text("UPDATE resumable_sync_jobs SET lease_expires_at = 1"))
    return zombie


def _program(new_database: NewDatabase, store: str, target: str, sink: str) -> Program:
    there = new_database(target)
    home = there if store == target else new_database(store)
    # On SQLite no heartbeat may be frozen amid its statements: it would keep the file locked.
    options = OPTIONS | {"lease_ttl": 60.0} if store == "sqlite" else OPTIONS
    program = Program(source=new_database(target), store=home, target=there, sink=sink, options=options)
    program.fill()
    program.reset()
    return program


def _check_zombie(program: Program, zombie: SyncProcess) -> None:
    """Continue the zombie; it must end with `LeaseLostError` and change neither rows nor job."""
    before, rows = program.row(), sorted(program.delivered())
    zombie.thaw()
    ended = zombie.wait(60)
    assert ended is not None
    assert (ended.how, ended.error) == ("raised", "LeaseLostError"), ended
    assert program.row() == before
    assert sorted(program.delivered()) == rows


FREE = [Fault("transaction", 4, freeze_process), Fault("commit", 4, freeze_process, when="after")]
# A process that is frozen inside a transaction keeps a SQLite file locked: it cannot be overtaken there. A server ends
# that transaction after ten seconds, which these tests wait for.
INSIDE = [Fault("write", 2, freeze_process), Fault("write", 2, freeze_process, when="after")]
INSIDE += [Fault("commit", 4, freeze_process), Fault("page", 3, freeze_process)]


LONG = [pytest.param(kind, marks=pytest.mark.crash) for kind in ("postgresql", "mariadb")]


def _name(value: object) -> str:
    return f"{value.when} {value.call}" if isinstance(value, Fault) else str(value)


def _overtake(program: Program, fault: Fault) -> None:
    with SyncProcesses() as processes:
        zombie = _frozen(processes, program, fault)
        ended = processes.start(program.make).wait(60)
        assert ended is not None
        assert (ended.how, ended.action, ended.status) == ("returned", "resume", "completed"), ended
        assert sorted(program.delivered()) == program.expected()
        _check_zombie(program, zombie)


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (FREE[0], "sqlite"),
        (FREE[1], "postgresql"),
        pytest.param(FREE[0], "mariadb", marks=pytest.mark.crash),
        pytest.param(FREE[1], "sqlite", marks=pytest.mark.crash),
        pytest.param(FREE[0], "postgresql", marks=pytest.mark.crash),
        pytest.param(FREE[1], "mariadb", marks=pytest.mark.crash),
    ],
    ids=_name,
)
def test_frozen_between_transactions(new_database: NewDatabase, kind: str, fault: Fault) -> None:
    _overtake(_program(new_database, kind, kind, "store"), fault)


@pytest.mark.crash
def test_frozen_before_its_commit(new_database: NewDatabase) -> None:
    _overtake(_program(new_database, "postgresql", "postgresql", "store"), INSIDE[2])


@pytest.mark.crash
@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
@pytest.mark.parametrize("fault", INSIDE, ids=_name)
def test_frozen_inside_a_transaction(new_database: NewDatabase, kind: str, fault: Fault) -> None:
    _overtake(_program(new_database, kind, kind, "store"), fault)


@pytest.mark.parametrize("kind", ["sqlite", "postgresql", pytest.param("mariadb", marks=pytest.mark.crash)])
def test_while_the_successor_is_at_work(new_database: NewDatabase, kind: str) -> None:
    program = _program(new_database, kind, kind, "store")
    with SyncProcesses() as processes:
        zombie = _frozen(processes, program, Fault("transaction", 4, freeze_process))
        successor = _frozen(processes, program, Fault("commit", 2, freeze_process, when="after"))
        _check_zombie(program, zombie)
        successor.thaw()
        ended = successor.wait(60)
        assert ended is not None
        assert (ended.how, ended.status) == ("returned", "completed"), ended
    assert sorted(program.delivered()) == program.expected()


@pytest.mark.parametrize(
    ("store", "target", "fault"),
    [
        pytest.param("sqlite", "postgresql", Fault("write", 2, freeze_process), marks=pytest.mark.crash),
        pytest.param("sqlite", "postgresql", Fault("write", 2, freeze_process, when="after"), marks=pytest.mark.crash),
        pytest.param("postgresql", "sqlite", Fault("write", 2, freeze_process), marks=pytest.mark.crash),
        ("postgresql", "sqlite", Fault("save", 5, freeze_process)),
    ],
    ids=_name,
)
def test_between_two_databases(new_database: NewDatabase, store: str, target: str, fault: Fault) -> None:
    program = _program(new_database, store, target, "own")
    with SyncProcesses() as processes:
        zombie = _frozen(processes, program, fault)
        ended = processes.start(program.make).wait(60)
        assert ended is not None
        assert (ended.how, ended.status) == ("returned", "completed"), ended
        _check_zombie(program, zombie)
    assert sorted(program.delivered()) == program.expected()


@pytest.mark.parametrize("kind", ["sqlite", *LONG])
def test_a_plain_callable_takes_at_most_the_open_batch(new_database: NewDatabase, kind: str) -> None:
    program = _program(new_database, kind, kind, "plain")
    with SyncProcesses() as processes:
        zombie = _frozen(processes, program, Fault("write", 2, freeze_process))
        ended = processes.start(program.make).wait(60)
        assert ended is not None
        assert ended.status == "completed"
        before = program.row()
        zombie.thaw()
        ended = zombie.wait(60)
        assert ended is not None
        assert (ended.how, ended.error) == ("raised", "LeaseLostError"), ended
        assert program.row() == before
    assert sorted(program.delivered()) == sorted([*program.expected(), *program.expected()[6:12]])
