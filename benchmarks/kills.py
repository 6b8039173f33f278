"""Kill a copy half-way, start it again, and see what is done twice: the library next to other tools.

Each copies the same table from PostgreSQL to PostgreSQL, once undisturbed, to see how long it takes; then it is killed
(SIGKILL, all its processes) in the middle of that time, imports left out, and started again with the same command and
the same folder for what it keeps of its own. Singer's tap gets the last state that its target said, as a runner would
give it.

Rows redone are those that were read again, by the server's own count: more than the table has, over both attempts. Rows
duplicated are in the target twice.
"""

import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import attrs
from benchmarks._common import HERE, postgres_server
from benchmarks._environments import versions
from benchmarks._report import Report
from benchmarks._sides import QUIET, Commands, Side, run, script, sides, started
from benchmarks._tables import plain, postgres_source

ROWS = int(os.environ.get("RESUMABLE_SYNC_BENCH_ROWS", "200000"))
ROUNDS = int(os.environ.get("RESUMABLE_SYNC_BENCH_ROUNDS", "3"))
OTHERS = ("dlt, default", "Singer", "sling", "pandas")
READ = "SELECT coalesce(sum(seq_tup_read + idx_tup_fetch), 0) FROM pg_stat_user_tables WHERE relname = 'orders'"
CONNECTED = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


@attrs.frozen
class Found:
    """What a kill did.

    Attributes:
        redone: Rows that were read again.
        duplicated: Rows that are in the target more than once.
        lost: Rows that are not there.
    """

    redone: int
    duplicated: int
    lost: int


class Source:
    """The table, and how many of its rows were read."""

    def __init__(self, url: str) -> None:
        import psycopg

        self.url = url
        self._connection = psycopg.connect(url, autocommit=True)

    def ask(self, query: str) -> int:
        """Give a number."""
        ((number,),) = self._connection.execute(query.encode()).fetchall()
        return int(number)

    def read(self) -> int:
        """Give how many rows were ever read, once nobody reads any more."""
        until = time.monotonic() + 60
        while self.ask(CONNECTED):
            assert time.monotonic() < until, "somebody is still connected to the source"
            time.sleep(0.05)
        return self.ask(READ)

    def close(self) -> None:
        """Disconnect."""
        self._connection.close()


@contextlib.contextmanager
def pipeline(commands: Commands, said: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Run a pipeline, whose last process writes into a file; kill what is left of it."""
    processes: list[subprocess.Popen[bytes]] = []
    environment = os.environ | QUIET
    with said.open("ab") as output, said.with_suffix(".log").open("ab") as errors:
        for place, command in enumerate(commands):
            stdin = processes[-1].stdout if processes else subprocess.DEVNULL
            stdout = output if place == len(commands) - 1 else subprocess.PIPE
            processes.append(
                subprocess.Popen(
                    command, cwd=HERE.parent, env=environment, stdin=stdin, stdout=stdout, stderr=errors
                )
            )  # fmt: skip
            if stdin not in {None, subprocess.DEVNULL}:
                stdin.close()  # type: ignore[union-attr]
        try:
            yield processes
        finally:
            for process in processes:
                process.kill()
                process.wait()


def with_state(commands: Commands, said: Path) -> Commands:
    """Give a tap the last state that its target said before it died."""
    states = said.read_text("utf-8").splitlines() if said.exists() else []
    if len(commands) == 1 or not states:
        return commands
    state = said.with_name("state.json")
    state.write_text(states[-1], "utf-8")
    return [[*commands[0], "--state", str(state)], *commands[1:]]


def undisturbed(server: Any, source: Source, side: Side) -> tuple[float, float]:
    """Give the seconds that a copy takes, and those before it copies anything, which a script tells by itself: 0."""
    url = server.create_database()
    with tempfile.TemporaryDirectory() as folder:
        commands = side.commands("postgres", source.url, plain(url), Path(folder))
        took = run(commands)
    server.drop_database(url)
    start = started(side)
    return took.seconds - start, start


def kill(server: Any, source: Source, side: Side, after: float) -> Found | None:
    """Kill a copy after so many seconds and start it again; None: it was done before."""
    url = server.create_database()
    before = source.read()
    with tempfile.TemporaryDirectory() as folder:
        said = Path(folder, "said.txt")
        commands = side.commands("postgres", source.url, plain(url), Path(folder))
        with pipeline(commands, said) as processes:
            while not side.version() and not said.stat().st_size and processes[-1].poll() is None:
                time.sleep(0.01)  # it still imports
            time.sleep(after)
            if processes[-1].poll() is not None:
                server.drop_database(url)
                return None
        source.read()
        with pipeline(with_state(commands, said), said) as processes:
            statuses = [process.wait() for process in processes]
        assert not any(statuses), said.with_suffix(".log").read_text("utf-8")[-4_000:]
    read = source.read() - before
    import psycopg

    with psycopg.connect(plain(url)) as connection:
        query = f"SELECT count(*), count(DISTINCT id) FROM {side.table}"
        ((count, distinct),) = connection.execute(query.encode()).fetchall()
    server.drop_database(url)
    return Found(max(0, read - ROWS), count - distinct, ROWS - distinct)


def main() -> int:
    """Measure and print."""
    title = f"A copy of {ROWS:,} rows is killed half-way and started again"
    report = Report("kills", title, "killed after", "redone", "lost", versions=versions())
    redone = {}
    with postgres_server(durable=True) as server:
        source = Source(postgres_source(server, ROWS))
        # Without counting the source, which reads it, too.
        ours = script("resumable_sync", ["postgres"], "with_library", count=False)
        for side in (ours, *(side for side in sides("postgres") if side.name in OTHERS)):
            if not side.installed:
                print(f"{side.name} is missing; `nox -s peers` makes its environment")
                continue
            seconds, start = undisturbed(server, source, side)
            tried = (kill(server, source, side, start + seconds / 2) for _ in range(3 * ROUNDS))
            found = list(islice((one for one in tried if one is not None), ROUNDS))
            redone[side.name] = statistics.median(one.redone for one in found)
            lost = max(one.lost for one in found)
            cells = f"{seconds / 2:.1f} s of {seconds:.1f} s", f"{redone[side.name]:,.0f}", f"{lost:,}"
            report.add(side.name, *cells, figure=max(one.duplicated for one in found), form="{:,.0f} duplicated")
        source.close()
    report.chart("kills", f"Rows read again after a kill half-way through {ROWS:,} rows", redone)
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
