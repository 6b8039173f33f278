"""Real database servers, as plain context managers for tests, benchmarks and scripts.

    with postgres_server() as server:
        url = server.create_database()      # "postgresql+psycopg://postgres@127.0.0.1:41234/d1"
        server.kill()
        server.restart()

A server is taken from the environment (`RESUMABLE_SYNC_TEST_POSTGRES`, `RESUMABLE_SYNC_TEST_MARIADB`: a SQLAlchemy URL
of a role that may create databases; `RESUMABLE_SYNC_TEST_REDIS`: `redis://host:port`, of whose numbered databases the
empty ones from 1 on are used, and emptied afterwards), else started on a free loopback port with its data in a
temporary folder. However the process that started it dies, the server is killed and its folder removed.
"""

import contextlib
import getpass
import itertools
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import URL, Engine, create_engine, make_url, text
from sqlalchemy.exc import DBAPIError
from typing_extensions import override

from installations import (
    ServerUnavailableError,
    copy_postgres,
    find_mariadb,
    find_postgres,
    find_redis,
    readable_by_others,
)

__all__ = ["ManagedServer", "Server", "ServerUnavailableError", "mariadb_server", "postgres_server", "redis_server"]

START_TIMEOUT = 60.0
UNPRIVILEGED_USER = "nobody"
# PostgreSQL refuses to run as root, and MariaDB asks to be told.
_AS_ROOT = os.geteuid() == 0
# Waits for the end of its input, which comes however its parent dies, then ends the server and removes its folder.
_WATCHDOG = """
read -r _
if [ -f "$1" ]; then
    pid=$(cat "$1")
    kill -s "$3" "$pid"
    for _ in 1 2 3 4 5 6 7 8 9 10; do kill -0 "$pid" || break; sleep 0.1; done
    kill -s KILL "$pid"
fi
rm -rf "$2"
"""

_numbers = itertools.count(1)
# Empties a PostgreSQL database as far as its privileges and settings are still those of a new one.
_EMPTY = """
DO $$
DECLARE name text;
BEGIN
    IF EXISTS (SELECT FROM pg_database WHERE datname = current_database() AND datacl IS NOT NULL)
    OR EXISTS (SELECT FROM pg_db_role_setting s JOIN pg_database d ON d.oid = setdatabase
               WHERE datname = current_database())
    THEN RAISE EXCEPTION 'altered'; END IF;
    FOR name IN SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema' LOOP
        EXECUTE format('DROP SCHEMA %I CASCADE', name);
    END LOOP;
    CREATE SCHEMA public AUTHORIZATION pg_database_owner;
    GRANT USAGE ON SCHEMA public TO PUBLIC;
END $$
"""


def _new_name() -> str:
    return f"resumable_sync_{os.getpid()}_{next(_numbers)}"


class Server:
    """A server that stands somewhere else: databases can be made, but it cannot be killed."""

    managed = False

    def __init__(self, url: URL) -> None:
        self._url = url
        self._engines: dict[URL, Engine] = {}  # by port, which is chosen anew where somebody else has it

    def url(self, database: str) -> str:
        """Give the SQLAlchemy URL of one of its databases."""
        return self._url.set(database=database).render_as_string(hide_password=False)

    def create_database(self) -> str:
        """Make an empty database and give its URL, which is never used again."""
        name = _new_name()
        self.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def give_back(self, url: str) -> None:
        """Say that a database is no longer needed: whoever is connected to it is thrown out."""
        self.drop_database(url)

    def drop_database(self, url: str) -> None:
        """Remove a database, and whoever is connected to it."""
        name = make_url(url).database
        if self._url.get_backend_name() == "postgresql":
            self.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
            return
        # A connection that a test left behind would hold its locks against the DROP.
        for (connection_id,) in self.execute("SELECT id FROM information_schema.processlist WHERE db = :db", db=name):
            with contextlib.suppress(Exception):
                self.execute(f"KILL {connection_id}")
        self.execute(f"DROP DATABASE IF EXISTS {name}")

    def execute(self, statement: str, **parameters: Any) -> list[Any]:
        """Run one statement as administrator, in autocommit mode."""
        if self._url not in self._engines:
            # One connection is kept, and tried before it is used: whoever is killed here may be this one.
            self._engines[self._url] = create_engine(
                self._url, isolation_level="AUTOCOMMIT", pool_size=1, pool_pre_ping=True
            )
        with self._engines[self._url].connect() as connection:
            result = connection.execute(text(statement), parameters)
            return list(result) if result.returns_rows else []

    def stop(self) -> None:
        """Let go of the server."""
        for engine in self._engines.values():
            engine.dispose()


class ManagedServer(Server, ABC):
    """A server of our own: it can be killed and restarted, and ends with this process.

    Args:
        url: URL of the administrator, without a port; a free one is chosen here.
    """

    managed = True
    end_signal = "KILL"

    def __init__(self, url: URL) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="resumable_sync-"))
        self.data = self.folder / "data"
        self._pid_file = self.folder / "pid"
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog = subprocess.Popen(
            ["/bin/sh", "-c", _WATCHDOG, "watchdog", self._pid_file, self.folder, self.end_signal],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            # A Ctrl-C in the terminal must not end the watchdog before its server.
            start_new_session=True,
        )
        super().__init__(url)
        try:
            if _AS_ROOT:
                shutil.chown(self.folder, UNPRIVILEGED_USER)
            self._initialize()
            self._start(choose_port=True)
        except BaseException:
            self.stop()
            raise

    @property
    def is_running(self) -> bool:
        """Whether the server runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """End the server with SIGKILL, as the kernel does when memory is short."""
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._pid_file.unlink(missing_ok=True)
            self._process = None

    def restart(self) -> None:
        """Start the server, on the same port with the same data; it is killed first if it runs."""
        self.kill()
        self._start(choose_port=False)

    @override
    def create_database(self) -> str:
        # A test that killed the server and failed must not take the others with it.
        if not self.is_running:
            self.restart()
        return super().create_database()

    def _start(self, *, choose_port: bool) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            if choose_port:
                self._url = self._url.set(port=_free_port())
            self._process = self._run(self._command())
            self._pid_file.write_text(f"{self._process.pid}\n")
            error = self._wait_until_ready(deadline)
            if error is None:
                return
            self.kill()
            # A killed PostgreSQL's children keep its shared memory for a moment, and the new one does not start then;
            # or somebody else got the port first.
            if time.monotonic() >= deadline:
                msg = f"{self._command()[0]} does not start: {error}\n{self.log()[-4000:]}"
                raise RuntimeError(msg)

    @override
    def stop(self) -> None:
        """End the server and remove its data."""
        super().stop()
        self._end(getattr(signal, f"SIG{self.end_signal}"))
        self._watchdog.communicate()

    def log(self) -> str:
        """Give what the server has written."""
        path = self.folder / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    @abstractmethod
    def _initialize(self) -> None:
        """Make the data folder."""

    @abstractmethod
    def _command(self) -> list[str]:
        """Give the command that runs the server in the foreground."""

    def _run(self, command: list[str]) -> subprocess.Popen[bytes]:
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "LC_ALL": "C.UTF-8",
            "TZ": "UTC",
            # A MariaDB that starts removes the temporary tables it finds, those of others too.
            "TMPDIR": str(self.folder),
        }
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                command,
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                user=UNPRIVILEGED_USER if _AS_ROOT else None,
                start_new_session=True,
            )

    def _run_to_end(self, command: list[str]) -> None:
        if self._run(command).wait(START_TIMEOUT):
            msg = f"{command[0]} failed:\n{self.log()[-4000:]}"
            raise RuntimeError(msg)

    def _wait_until_ready(self, deadline: float) -> Exception | None:
        error: Exception = TimeoutError(f"no answer within {START_TIMEOUT:g} s")
        while self.is_running and time.monotonic() < deadline:
            try:
                self.execute("SELECT 1")
            except Exception as failure:
                error = failure
                time.sleep(0.02)
            else:
                return None
        return error


class PostgresServer(ManagedServer):
    """A PostgreSQL of our own."""

    # At once, but with its children: in a container nobody else would collect them.
    end_signal = "QUIT"

    def __init__(self) -> None:
        self._bin = find_postgres()
        self._spare: list[str] = []
        super().__init__(URL.create("postgresql+psycopg", "postgres", host="127.0.0.1", database="postgres"))

    @override
    def create_database(self) -> str:
        if self._spare and self.is_running:
            return self._spare.pop()
        return super().create_database()

    @override
    def give_back(self, url: str) -> None:
        """Empty the database for another use, under another name: making one costs ten times as much."""
        name, spare = make_url(url).database, _new_name()
        self.execute("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = :name", name=name)
        try:
            # Whoever still has the old name, such as a process that a test left behind, cannot disturb the next test.
            self.execute(f"ALTER DATABASE {name} RENAME TO {spare}")
            self._empty(spare)
        except (DBAPIError, psycopg.Error):
            self.drop_database(url)
            self.drop_database(self.url(spare))
        else:
            self._spare.append(self.url(spare))

    def _empty(self, name: str) -> None:
        # An engine for the one statement would first ask the server about itself.
        url = self._url
        with psycopg.connect(
            host=url.host, port=url.port, user=url.username, dbname=name, autocommit=True
        ) as connection:
            connection.execute(_EMPTY)

    @override
    def _initialize(self) -> None:
        if _AS_ROOT and not readable_by_others(self._bin):
            self._bin = copy_postgres(self._bin, self.folder)
        self._run_to_end([
            f"{self._bin}/initdb",
            f"--pgdata={self.data}",
            "--username=postgres",
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
            "--no-sync",
        ])

    @override
    def _command(self) -> list[str]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "port": self._url.port,
            # What these give up is lost when the machine dies, not when a process does.
            "fsync": "off",
            "full_page_writes": "off",
            "max_connections": 200,
            "shared_buffers": "64MB",
            "max_wal_size": "256MB",
            "autovacuum_naptime": "1h",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [f"{self._bin}/postgres", "-D", str(self.data), *options]


class MariaDBServer(ManagedServer):
    """A MariaDB of our own."""

    def __init__(self) -> None:
        self._server, self._install = find_mariadb()
        # TLS would hide a COMMIT from the proxy, and costs 25 ms per connect for reading certificates.
        query = {"ssl_disabled": "true"}
        super().__init__(URL.create("mysql+pymysql", "root", host="127.0.0.1", database="mysql", query=query))

    @override
    def _initialize(self) -> None:
        self._run_to_end([
            self._install,
            "--no-defaults",
            f"--datadir={self.data}",
            "--auth-root-authentication-method=normal",
            "--skip-name-resolve",
            "--skip-test-db",
        ])

    @override
    def _command(self) -> list[str]:
        return [
            self._server,
            "--no-defaults",
            f"--user={UNPRIVILEGED_USER if _AS_ROOT else getpass.getuser()}",
            f"--datadir={self.data}",
            f"--port={self._url.port}",
            f"--socket={self.folder / 'socket'}",
            f"--pid-file={self.data / 'pid'}",
            "--bind-address=127.0.0.1",
            "--skip-name-resolve",
            "--max-connections=200",
            "--innodb-buffer-pool-size=64M",
            "--innodb-log-file-size=32M",
            # A commit reaches the kernel at once and the disk within a second: enough when only processes die.
            "--innodb-flush-log-at-trx-commit=2",
            "--innodb-doublewrite=0",
        ]


class RedisDatabases(Server):
    """The databases of a Redis, which have numbers."""

    _claim = "resumable_sync test"

    @override
    def create_database(self) -> str:
        """Claim an empty database and give its URL."""
        (_, limit) = self._command_in("0", "CONFIG", "GET", "databases")
        for number in map(str, range(1, int(limit))):
            # Database 0 is left to whoever uses the server otherwise, and so is any that holds something.
            if self._command_in(number, "SET", self._claim, str(os.getpid()), "NX"):
                if self._command_in(number, "DBSIZE") == 1:
                    return self.url(number)
                self._command_in(number, "DEL", self._claim)
        msg = f"all of the {limit} databases are in use"
        raise RuntimeError(msg)

    @override
    def drop_database(self, url: str) -> None:
        """Empty a database that was claimed."""
        number = make_url(url).database
        assert number not in {None, "0"}
        self._command_in(str(number), "FLUSHDB")

    @override
    def execute(self, statement: str, **parameters: Any) -> list[Any]:
        """Run one command in database 0."""
        return [self._command_in("0", *statement.split())]

    def _command_in(self, number: str, *command: str) -> Any:
        import redis

        client: Any = redis.Redis.from_url(self.url(number), protocol=2, decode_responses=True)
        with contextlib.closing(client):
            # Without the driver's own forms of the answers.
            client.response_callbacks.clear()
            return client.execute_command(*command)


class RedisServer(ManagedServer, RedisDatabases):
    """A Redis of our own."""

    def __init__(self) -> None:
        self._server = find_redis()
        super().__init__(URL.create("redis", host="127.0.0.1", database="0"))

    @override
    def _initialize(self) -> None:
        self.data.mkdir()
        if _AS_ROOT:
            shutil.chown(self.data, UNPRIVILEGED_USER)

    @override
    def _command(self) -> list[str]:
        settings = {
            "port": self._url.port,
            "bind": "127.0.0.1",
            "dir": self.data,
            "databases": 200,
            "save": "",
            "appendonly": "yes",
            # Every write reaches the kernel before its answer is sent, which is enough when only processes die; with
            # `everysec` it may come two seconds later.
            "appendfsync": "no",
        }
        return [self._server, *(part for name, value in settings.items() for part in (f"--{name}", str(value)))]


@contextlib.contextmanager
def postgres_server(*, own: bool = False) -> Iterator[Server]:
    """Give a PostgreSQL for the length of the block.

    Args:
        own: Start one even if the environment names one, so that it can be killed.

    Raises:
        ServerUnavailableError: If there is none.
    """
    with _serve("RESUMABLE_SYNC_TEST_POSTGRES", "postgresql+psycopg", PostgresServer, own=own) as server:
        yield server


@contextlib.contextmanager
def mariadb_server(*, own: bool = False) -> Iterator[Server]:
    """Give a MariaDB (or a MySQL that the environment names) for the length of the block; as `postgres_server`."""
    with _serve("RESUMABLE_SYNC_TEST_MARIADB", "mysql+pymysql", MariaDBServer, own=own) as server:
        yield server


@contextlib.contextmanager
def redis_server(*, own: bool = False) -> Iterator[Server]:
    """Give a Redis (or a Valkey) for the length of the block; as `postgres_server`."""
    with _serve("RESUMABLE_SYNC_TEST_REDIS", "redis", RedisServer, own=own, given_one=RedisDatabases) as server:
        yield server


@contextlib.contextmanager
def _serve(
    variable: str,
    driver: str,
    start: Callable[[], Server],
    *,
    own: bool,
    given_one: Callable[[URL], Server] = Server,
) -> Iterator[Server]:
    given = None if own else os.environ.get(variable)
    server = given_one(make_url(given).set(drivername=driver)) if given else start()
    try:
        yield server
    finally:
        server.stop()


def _free_port() -> int:
    """Give a port that nobody uses, and that the kernel gives to no connection while its server is down."""
    chance = random.Random()  # not the seed of a test
    for _ in range(1_000):
        port = chance.randrange(15_000, _first_ephemeral_port())
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    msg = "no port is free"
    raise RuntimeError(msg)


def _first_ephemeral_port() -> int:
    setting = Path("/proc/sys/net/ipv4/ip_local_port_range")
    first = int(setting.read_text().split()[0]) if setting.exists() else 32_768
    return first if first > 16_000 else 32_768


if __name__ == "__main__":
    # Shows the URL of a new database of one server, for work by hand: python tests/servers.py mariadb
    kinds = {"mariadb": mariadb_server, "redis": redis_server}
    with kinds.get("".join(sys.argv[1:]), postgres_server)() as shown:
        print(shown.create_database(), flush=True)
        sys.stdin.read()
