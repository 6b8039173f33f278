"""The servers and proxies that the other tests stand on do what they say."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, make_url, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from proxies import Link, TCPProxy, is_commit
from servers import ManagedServer, Server
from waiting import until

SERVERS = ["postgres", "mariadb"]
LIMIT = 60.0

pytestmark = pytest.mark.server


def engine_for(url: str, timeout: int = 30) -> Engine:
    timeouts = {
        "sqlite": {},
        "postgresql": {"connect_timeout": timeout},
        "mysql": {"connect_timeout": timeout, "read_timeout": timeout},
    }
    return create_engine(url, poolclass=NullPool, connect_args=timeouts[make_url(url).get_backend_name()])


def names(engine: Engine) -> list[str]:
    with engine.connect() as connection:
        return list(connection.execute(text("SELECT name FROM t ORDER BY name")).scalars())


def insert(engine: Engine, name: str) -> None:
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO t VALUES (:name)"), {"name": name})


def table_in(url: str) -> Engine:
    engine = engine_for(url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE t (name VARCHAR(20) PRIMARY KEY)"))
    return engine


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> Server:
    found: Server = request.getfixturevalue(request.param)
    return found


@pytest.fixture(params=["postgresql", "mariadb"])
def server_url(request: pytest.FixtureRequest, new_database: Callable[[str], str]) -> str:
    return new_database(request.param)


@pytest.fixture
def proxy(server_url: str, tcp_proxy: Callable[[str], TCPProxy]) -> TCPProxy:
    return tcp_proxy(server_url)


@pytest.mark.parametrize("turn", [1, 2])
def test_each_test_gets_an_empty_database(database_url: str, turn: int) -> None:
    engine = table_in(database_url)
    insert(engine, "a")
    assert names(engine) == ["a"]


def test_two_databases_of_one_kind_differ(new_database: Callable[[str], str]) -> None:
    assert new_database("sqlite") != new_database("sqlite")
    assert new_database("postgresql") != new_database("postgresql")


def test_a_killed_server_comes_back_with_what_was_committed(server: Server) -> None:
    if not isinstance(server, ManagedServer):
        pytest.skip("the environment names a server that is not ours to kill")
    url = server.create_database()
    engine = table_in(url)
    insert(engine, "committed")
    server.kill()
    with pytest.raises(DBAPIError):
        names(engine)
    server.restart()
    assert names(engine) == ["committed"]
    server.drop_database(url)


def test_a_database_is_dropped_although_somebody_is_connected(server: Server) -> None:
    url = server.create_database()
    with engine_for(url).connect() as connection:
        connection.execute(text("SELECT 1"))
        server.drop_database(url)
        with pytest.raises(DBAPIError), engine_for(url).connect():
            pass
        connection.invalidate()


def test_a_database_that_was_given_back_is_empty_and_no_longer_found(postgres: Server) -> None:
    url = postgres.create_database()
    table_in(url)
    with engine_for(url).begin() as connection:
        connection.execute(text("CREATE SCHEMA other CREATE TABLE t (id INTEGER)"))
    postgres.give_back(url)
    with pytest.raises(DBAPIError), engine_for(url).connect():
        pass
    with engine_for(postgres.create_database()).connect() as connection:
        schemas = connection.execute(text("SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_' ORDER BY nspname"))
        assert list(schemas.scalars()) == ["information_schema", "public"]
        assert list(connection.execute(text("SELECT * FROM pg_tables WHERE schemaname = 'public'"))) == []


@pytest.mark.parametrize("kind", [*SERVERS, pytest.param("redis", marks=pytest.mark.crash)])
def test_a_server_ends_with_the_process_that_started_it(kind: str, request: pytest.FixtureRequest) -> None:
    # Skips where there is none.
    request.getfixturevalue(kind)
    script = f"""
import servers
with servers.{kind}_server(own=True) as server:
    print(server.pid, server.folder, flush=True)
    input()
"""
    starter = subprocess.Popen(
        [sys.executable, "-c", script],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with starter:
        assert starter.stdout is not None
        pid, folder = starter.stdout.readline().split()
        starter.send_signal(signal.SIGKILL)
    until(lambda: not is_running(int(pid)) and not Path(folder).exists())


def is_running(pid: int) -> bool:
    try:
        # A process without a parent that collects it stays as a zombie.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_proxy_forwards(proxy: TCPProxy) -> None:
    engine = table_in(proxy.url)
    insert(engine, "a")
    assert names(engine) == ["a"]


def test_cut_breaks_open_connections_and_lets_new_ones_in(proxy: TCPProxy) -> None:
    engine = table_in(proxy.url)
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))
        proxy.cut()
        with pytest.raises(DBAPIError):
            connection.execute(text("SELECT 1"))
    assert names(engine) == []


def test_refuse_lets_nobody_in_until_restored(proxy: TCPProxy) -> None:
    engine = table_in(proxy.url)
    proxy.refuse()
    with pytest.raises(DBAPIError):
        names(engine)
    proxy.restore()
    assert names(engine) == []


def test_blackhole_swallows_everything(proxy: TCPProxy) -> None:
    engine = table_in(proxy.url)
    proxy.blackhole()
    began = time.monotonic()
    with pytest.raises(DBAPIError):
        names(engine_for(proxy.url, timeout=2))
    assert time.monotonic() - began > 1
    proxy.restore()
    assert names(engine) == []


@pytest.mark.parametrize("received", [False, True])
def test_the_link_is_cut_before_or_after_a_commit_was_received(
    server_url: str, proxy: TCPProxy, received: bool
) -> None:
    table_in(server_url)
    committing = threading.Event()

    def to_server(link: Link, data: bytes) -> None:
        if is_commit(data):
            committing.set()
            if not received:
                link.cut()

    def to_client(link: Link, _data: bytes) -> None:
        if committing.is_set():
            link.cut()

    proxy.to_server, proxy.to_client = to_server, to_client
    with pytest.raises(DBAPIError):
        insert(engine_for(proxy.url), "a")
    assert committing.is_set()
    assert names(engine_for(server_url)) == (["a"] if received else [])


def test_no_thread_is_left_of_a_proxy(server_url: str, tcp_proxy: Callable[[str], TCPProxy]) -> None:
    before = set(threading.enumerate())
    proxy = tcp_proxy(server_url)
    names(table_in(proxy.url))
    with engine_for(proxy.url).connect():
        proxy.blackhole()
        proxy.close()
    assert set(threading.enumerate()) <= before
