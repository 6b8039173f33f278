"""Fixtures that every test may use: databases on real servers, and proxies in front of them.

A server that cannot be had is a skip that says why; with CI set, where nobody reads skips, it is an error.
"""

import contextlib
import gc
import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import pytest
from hypothesis import settings

from proxies import TCPProxy
from proxies import tcp_proxy as open_proxy
from servers import Server, ServerUnavailableError, mariadb_server, postgres_server, redis_server

# The suites' asserts show their values only if pytest rewrites them, and it must be told before they are imported.
pytest.register_assert_rewrite("resumable_sync.testing")


KILLS = {"crash", "machine", "test_crash", "trouble"}
"""Folders and modules of tests that take their time, and show nothing that differs from Python to Python."""

ADAPTERS = {"test_conformance", "test_http", "test_http_conformance", "test_redis"}
ADAPTERS |= {"test_sql_transactions", "test_sql_types"}
"""Modules that show on a server what an imported package does, the lowest version of which shall do the same."""

SERVERS = {"postgresql", "mariadb", "redis"}
SERVER_FIXTURES = {"mariadb", "mariadb_url", "postgres", "postgres_url", "redis", "redis_url"}


def pytest_configure() -> None:
    # A shell has what it runs in the background ignore Ctrl-C, and so .ci/run the session with the lowest versions.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # What an example takes, the machine decides.
    settings.register_profile("patient", settings.default, deadline=None)
    settings.load_profile("patient")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if KILLS & {item.path.parent.name, item.path.stem}:
            item.add_marker(pytest.mark.kills)
        elif _needs_server(item):
            item.add_marker(pytest.mark.server)
        if item.path.stem in ADAPTERS:
            item.add_marker(pytest.mark.adapter)
        if item.path.stem.endswith("conformance"):
            item.add_marker(pytest.mark.suite)


def pytest_collectstart() -> None:
    # Ten thousand tests, which nothing frees: whoever looks for garbage need not look there, nor while they are found.
    gc.disable()


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()
    gc.enable()


def _needs_server(item: pytest.Item) -> bool:
    parameters = set(re.split(r"\W+", item.name.partition("[")[2]))
    if isinstance(item, pytest.Function) and hasattr(item, "callspec"):
        parameters |= {value for value in item.callspec.params.values() if isinstance(value, str)}
    return bool(parameters & SERVERS or SERVER_FIXTURES & set(getattr(item, "fixturenames", ())))


def _start(server: Callable[[], AbstractContextManager[Server]], stack: ExitStack) -> Server:
    try:
        return stack.enter_context(server())
    except ServerUnavailableError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A PostgreSQL server, one for each pytest process."""
    with ExitStack() as stack:
        yield _start(postgres_server, stack)


@pytest.fixture(scope="session")
def mariadb() -> Iterator[Server]:
    """A MariaDB server, one for each pytest process."""
    with ExitStack() as stack:
        yield _start(mariadb_server, stack)


@pytest.fixture(scope="session")
def redis() -> Iterator[Server]:
    """A Redis server, one for each pytest process."""
    with ExitStack() as stack:
        yield _start(redis_server, stack)


@pytest.fixture
def new_database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """Makes a fresh empty database: `new_database("sqlite" | "postgresql" | "mariadb" | "redis")` gives its URL."""
    with ExitStack() as stack:

        def make(kind: str) -> str:
            if kind == "sqlite":
                number = len(list(tmp_path.glob("database-*.db")))
                path = tmp_path / f"database-{number}.db"
                path.touch()
                return f"sqlite:///{path}"
            server: Server = request.getfixturevalue({"postgresql": "postgres"}.get(kind, kind))
            url = server.create_database()
            stack.callback(_give_back, server, url)
            return url

        yield make


def _give_back(server: Server, url: str) -> None:
    # A test may leave the server dead; the next database is a new one then.
    with contextlib.suppress(Exception):
        server.give_back(url)


@pytest.fixture
def sqlite_url(new_database: Callable[[str], str]) -> str:
    """URL of a fresh SQLite file."""
    return new_database("sqlite")


@pytest.fixture
def postgres_url(new_database: Callable[[str], str]) -> str:
    """URL of a fresh PostgreSQL database."""
    return new_database("postgresql")


@pytest.fixture
def mariadb_url(new_database: Callable[[str], str]) -> str:
    """URL of a fresh MariaDB database."""
    return new_database("mariadb")


@pytest.fixture
def redis_url(new_database: Callable[[str], str]) -> str:
    """URL of a Redis database that holds one key, which is not ours."""
    return new_database("redis")


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def database_url(request: pytest.FixtureRequest, new_database: Callable[[str], str]) -> str:
    """URL of a fresh database, of each of the three kinds in turn."""
    return new_database(request.param)


@pytest.fixture
def tcp_proxy() -> Iterator[Callable[[str], TCPProxy]]:
    """Opens a proxy in front of the server of a URL; all are closed after the test."""
    with ExitStack() as stack:
        yield lambda url: stack.enter_context(open_proxy(url))
