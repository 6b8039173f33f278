"""A process is stopped inside a COPY, where no limit of the server ends its transaction: its successor sees to that."""

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from crash.programs import SOURCE, Program
from resumable_sync.testing import SyncProcess, SyncProcesses
from trouble.parts import is_stopped
from waiting import until

ROWS = 40_000
# A batch must not fit into the buffers of a connection, or it is sent before anybody can stop the process.
OPTIONS = {"batch_size": 20_000, "lease_ttl": 60.0, "if_held": "wait"}
FILL = text(f"INSERT INTO source SELECT i, repeat('x', 1000) FROM generate_series(1, {ROWS}) AS i")
COPYING = text(
    "SELECT wait_event FROM pg_stat_activity WHERE datname = current_database() AND state = 'active'"
    " AND query LIKE '%COPY%FROM STDIN'"
)
ARRIVED = text("SELECT count(*), count(DISTINCT id), sum(id), sum(length(name)) FROM target")

NewDatabase = Callable[[str], str]

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc to see a stopped process")


@pytest.mark.parametrize(
    ("store", "sink", "mode"),
    [
        ("postgresql", "store", "append"),
        pytest.param("sqlite", "own", "append", marks=pytest.mark.crash),
        *(
            pytest.param(store, sink, mode, marks=pytest.mark.crash)
            for store, sink in [("postgresql", "store"), ("sqlite", "own")]
            for mode in ("upsert", "replace")
        ),
    ],
)
def test_a_copy_that_is_frozen_does_not_keep_its_successor_out(
    new_database: NewDatabase, store: str, sink: str, mode: str
) -> None:
    target = new_database("postgresql")
    home = target if sink == "store" else new_database(store)
    program = Program(source=target, store=home, target=target, sink=sink, mode=mode, options=OPTIONS)
    with program.engine(target) as engine, engine.connect() as connection:
        _fill(connection)
        with SyncProcesses() as processes:
            zombie = _frozen_in_copy(processes, program, connection)
            with program.engine(home) as its_store, its_store.begin() as writing:
                writing.execute(text("UPDATE resumable_sync_jobs SET lease_expires_at = 1"))
            ended = processes.start(program.make).wait(60)
            assert ended is not None
            assert (ended.how, ended.status) == ("returned", "completed"), f"{ended}\n{ended.trace}"
            everything = (ROWS, ROWS, ROWS * (ROWS + 1) // 2, ROWS * 1000)
            assert tuple(connection.execute(ARRIVED).one()) == everything
            connection.rollback()
            zombie.thaw()
            ended = zombie.wait(60)
            assert ended is not None
            assert (ended.how, ended.error) == ("raised", "LeaseLostError"), f"{ended}\n{ended.trace}"
            assert tuple(connection.execute(ARRIVED).one()) == everything


def _fill(connection: Connection) -> None:
    SOURCE.create(connection)
    connection.execute(text("ALTER TABLE source ALTER COLUMN name TYPE text"))
    connection.execute(FILL)
    connection.commit()


def _frozen_in_copy(processes: SyncProcesses, program: Program, connection: Connection) -> SyncProcess:
    """Give a process that is stopped while the server waits for the rows of its COPY."""
    for _ in range(20):
        program.reset()
        process = processes.start(program.make)
        if _freeze_in_copy(process, connection):
            return process
    raise AssertionError("the process was never stopped inside a COPY")


def _freeze_in_copy(process: SyncProcess, connection: Connection) -> bool:
    while process.wait(0.0) is None:
        if _copying(connection) is None:
            continue
        process.freeze()
        until(lambda: is_stopped(process.pid) or process.wait(0.0))
        # What was sent is still read; then the server waits for more, or the COPY ends.
        until(lambda: _copying(connection) in (None, "ClientRead"))
        if _copying(connection) == "ClientRead":
            return True
        process.thaw()
    return False


def _copying(connection: Connection) -> str | None:
    """Give what a COPY waits for, `""` if for nothing; None if there is none."""
    row = connection.execute(COPYING).one_or_none()
    connection.rollback()  # what a server shows stays the same inside a transaction
    return None if row is None else row.wait_event or ""
