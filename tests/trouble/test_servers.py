"""Servers that are killed, restarted, or end their sessions during a sync; and processes that are frozen."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import attrs
import pytest
from sqlalchemy.exc import SQLAlchemyError
from typing_extensions import override

from resumable_sync import Batch, JobStatus, LeaseLostError, ResumableSyncError, Retry, run_full_sync
from resumable_sync.stores.sql import SQLJobStore
from resumable_sync.testing import SyncParts, SyncProcesses, freeze_process
from servers import ManagedServer, Server, ServerUnavailableError, mariadb_server, postgres_server
from trouble.children import Child
from trouble.parts import JOB_ID, PATIENT, Insert, Numbers, check_consistent, check_exact, engine_of, make_target
from waiting import until

KINDS = ["postgresql", "mariadb"]
TOTAL, BATCH_SIZE = 2_000, 20
TROUBLES = 3
"""How often a server is troubled during one sync."""


@pytest.fixture(scope="module")
def own_servers() -> Iterator[Callable[[str], ManagedServer]]:
    """Servers for this module alone: the others' must not die."""
    started: dict[str, ManagedServer] = {}
    makers: dict[str, Callable[..., AbstractContextManager[Server]]] = {
        "postgresql": postgres_server,
        "mariadb": mariadb_server,
    }
    with ExitStack() as stack:

        def get(kind: str) -> ManagedServer:
            if kind not in started:
                try:
                    server = stack.enter_context(makers[kind](own=True))
                except ServerUnavailableError as error:
                    pytest.skip(str(error))
                assert isinstance(server, ManagedServer)
                started[kind] = server
            return started[kind]

        yield get


@pytest.fixture(params=KINDS)
def server(request: pytest.FixtureRequest, own_servers: Callable[[str], ManagedServer]) -> ManagedServer:
    return own_servers(request.param)


def end_sessions(server: ManagedServer) -> None:
    """Have the server end every session but the one that asks for it."""
    if "postgresql" in server.url("x"):
        server.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )
        return
    for (connection_id,) in server.execute("SELECT id FROM information_schema.processlist WHERE db IS NOT NULL"):
        with contextlib.suppress(Exception):
            server.execute(f"KILL {connection_id}")


def end_statements(server: ManagedServer) -> None:
    """Have the server end whatever statement runs; the sessions stay."""
    if "postgresql" in server.url("x"):
        server.execute("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
        return
    for (connection_id,) in server.execute("SELECT id FROM information_schema.processlist WHERE db IS NOT NULL"):
        with contextlib.suppress(Exception):
            server.execute(f"KILL QUERY {connection_id}")


def load(url: str, done: threading.Event) -> None:
    """Write to the server all the time, whatever becomes of it."""
    number = 0
    while not done.is_set():
        with contextlib.suppress(Exception), engine_of(url) as engine, engine.connect() as connection:
            connection.exec_driver_sql("CREATE TABLE IF NOT EXISTS other (number BIGINT)")
            while not done.is_set():
                connection.exec_driver_sql(f"INSERT INTO other VALUES ({number})")
                connection.commit()
                number += 1
                done.wait(0.005)


class Troublemaker:
    """Does something to a server at certain batches of a sync, from a thread of its own, once each."""

    def __init__(self, trouble: Callable[[], object], at: list[int]) -> None:
        self.happened = 0
        self._trouble, self._left = trouble, list(at)
        self._threads: list[threading.Thread] = []

    def __call__(self, batch: Batch[int]) -> None:
        if self._left and batch.sequence >= self._left[0]:
            del self._left[0]
            self.happened += 1
            thread = threading.Thread(target=self._trouble)
            thread.start()
            self._threads.append(thread)

    def join(self) -> None:
        for thread in self._threads:
            thread.join(60)


@pytest.mark.parametrize("trouble", ["restart", "sessions", "statements"])
@pytest.mark.parametrize("patient", [True, False], ids=["with retries", "without"])
def test_a_troubled_server_costs_no_record(server: ManagedServer, trouble: str, *, patient: bool) -> None:
    url = server.create_database()
    make_target(url)
    actions: dict[str, Callable[[], object]] = {
        "restart": server.restart,
        "sessions": lambda: end_sessions(server),
        "statements": lambda: end_statements(server),
    }
    maker = Troublemaker(actions[trouble], [10, 40, 70])
    done = threading.Event()
    others = threading.Thread(target=load, args=(url, done))
    others.start()
    try:
        sync_until_completed(url, maker, patient=patient)
    finally:
        done.set()
        others.join(60)
        maker.join()
    assert maker.happened == TROUBLES
    check_exact(url, TOTAL)


def sync_until_completed(url: str, maker: Troublemaker, *, patient: bool) -> None:
    retry = PATIENT if patient else Retry(max_tries=1)
    options: dict[str, Any] = {"batch_size": BATCH_SIZE, "retry": retry, "lease_ttl": 1.0, "if_held": "wait"}
    for _ in range(10 * TROUBLES):
        try:
            with SQLJobStore(url) as store:
                result = run_full_sync(
                    JOB_ID, Numbers(TOTAL), Insert(maker), store=store, if_completed="skip", **options
                )
        except LeaseLostError:
            raise
        except (ResumableSyncError, SQLAlchemyError):
            maker.join()
            check_consistent(url)
        else:
            assert result.status == "completed"
            return
    pytest.fail("it never came to an end")


@attrs.frozen(kw_only=True)
class Freezing(Child):
    """A sync that stops like a machine that is suspended, in the middle of a transaction."""

    @override
    def make(self) -> SyncParts:
        """Give the parts, in the child."""
        parts = super().make()

        def act(batch: Batch[int]) -> None:
            if batch.sequence == 2:
                self.arrive()
                freeze_process()

        return attrs.evolve(parts, sink=Insert(act))


@pytest.fixture
def processes() -> Iterator[SyncProcesses]:
    with SyncProcesses() as started:
        yield started


@pytest.mark.parametrize("kind", ["postgresql", pytest.param("mariadb", marks=pytest.mark.crash)])
def test_a_frozen_process_inside_a_transaction_is_got_past(
    new_database: Callable[[str], str], processes: SyncProcesses, tmp_path: Path, kind: str
) -> None:
    url = new_database(kind)
    make_target(url)
    frozen = Freezing(url=url, folder=tmp_path, total=500, options={"lease_ttl": 1.0})
    process = processes.start(frozen.make)
    until(lambda: frozen.here)
    began = time.monotonic()
    with SQLJobStore(url) as store:
        result = run_full_sync(JOB_ID, Numbers(500), Insert(), store=store, batch_size=50, if_held="wait")
    # Its lease has to end first. Its rows lock nothing that the successor needs; if a heartbeat was frozen amid its
    # statements, the server ends it after ten seconds.
    assert time.monotonic() - began < 60
    assert (result.action, result.status, result.records) == ("resume", "completed", 400)
    check_exact(url, 500)
    process.thaw()
    ended = process.wait(60.0)
    assert ended is not None
    assert (ended.how, ended.error) == ("raised", "LeaseLostError"), ended
    check_exact(url, 500)
    job = check_consistent(url)
    assert job is not None
    assert job.status is JobStatus.COMPLETED
