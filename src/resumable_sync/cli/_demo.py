"""`demo`: a sync that is killed, started again, and loses nothing, before your eyes."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import attrs
import click

from resumable_sync import JobStore, registry
from resumable_sync._close import close_if_closable
from resumable_sync.cli._common import json_and_verbose
from resumable_sync.cli._output import Output
from resumable_sync.cli._status import ExitStatus

__all__ = ["demo"]

SYNC_FILE = """\
job = "orders"
source = { type = "sql", url = "sqlite:///shop.db", table = "orders" }
sink = { type = "sql", table = "orders", mode = "append" }
store = { type = "sql", url = "sqlite:///warehouse.db" }
options = { batch_size = 500, if_completed = "skip" }
"""
STANDARD_ERROR = 2
COLUMNS = "(id INTEGER{key}, customer TEXT, status TEXT, cents INTEGER, ordered_at TEXT, note TEXT)"


@click.command
@click.option("--orders", type=click.IntRange(1_000), default=300_000, show_default=True, help="How many there are.")
@click.option("--kills", type=click.IntRange(0, 100), default=3, show_default=True, help="How often it is killed.")
@click.option("--folder", type=click.Path(file_okay=False, path_type=Path), help="Where. Default: a temporary folder.")
@json_and_verbose
def demo(output: Output, *, orders: int, kills: int, folder: Path | None) -> ExitStatus:
    """Copy a shop's orders into a warehouse, be killed three times by `kill -9`, and count what arrived.

    Before each start resumable-sync plan says what it will do; each start is the same command, resumable-sync run
    sync.toml, in a process of its own; look how it goes on. In the end source and target are compared row by row,
    without this library, and resumable-sync report tells the story on a page. The exit status is 1 if one row were lost
    or duplicated.

    With --folder the databases and the sync file stay, to try the other commands on them.
    """
    if folder is not None and (folder / "shop.db").exists():
        msg = f"{folder} holds a shop.db; give an empty folder, or one that does not exist"
        raise click.UsageError(msg)
    with tempfile.TemporaryDirectory() if folder is None else nullcontext(folder) as place:
        return _Demo(Path(place), orders, kills, output, kept=folder is not None).run()


@attrs.frozen
class _Demo:
    folder: Path
    orders: int
    kills: int
    output: Output
    kept: bool

    def run(self) -> ExitStatus:
        """Build, sync, kill, go on, compare."""
        self._say(f"a shop with {self.orders:,} orders, and sync.toml:")
        self._build()
        for line in SYNC_FILE.splitlines():
            self.output.say(f"  {line}", "dim")
        step = self.orders // (self.kills + 1)
        for number in range(self.kills):
            # Somewhere, but not where the last one was.
            self._killed_at(step * number + random.randrange(step // 10, step))  # noqa: S311 - no secret
        self._plan()
        self._say("resumable-sync run sync.toml")
        status = self._start("run", "sync.toml").wait()
        page = self._report()
        lost, duplicated, count = self._compared()
        exact = status == lost == duplicated == 0
        facts: dict[str, Any] = {
            "orders": self.orders,
            "kills": self.kills,
            "lost": lost,
            "duplicated": duplicated,
            "exact": exact,
        }
        facts |= {"report": page, "exit_status": int(not exact)}
        verdict = "nothing lost, nothing duplicated" if exact else "NOT EXACT"
        told = f"{count:,} rows in the target: {lost} lost or changed, {duplicated} duplicated or changed"
        self.output.result(facts, told, verdict, f"the story of it: {page}")
        return ExitStatus.COMPLETED if exact else ExitStatus.FAILED

    def _build(self) -> None:
        """Make the shop; ids have gaps, as they do. The target has no key: what arrives twice must show, not fail."""
        self.folder.mkdir(parents=True, exist_ok=True)
        rng = random.Random(7)  # noqa: S311 - no secret
        rows = (
            (
                number * 3 + rng.randrange(3),
                f"customer{rng.randrange(20_000)}@example.org",
                rng.choice(("new", "paid", "sent", "returned")),
                rng.randrange(100, 100_000),
                f"2026-{rng.randrange(1, 13):02}-{rng.randrange(1, 29):02}T{rng.randrange(24):02}:00:00",
                rng.choice((None, "gift", "fragile; leave at the door")),
            )
            for number in range(self.orders)
        )
        with closing(sqlite3.connect(self.folder / "shop.db")) as shop, shop:
            shop.execute("CREATE TABLE orders " + COLUMNS.format(key=" PRIMARY KEY"))
            shop.executemany("INSERT INTO orders VALUES (?, ?, ?, ?, ?, ?)", rows)
        with closing(sqlite3.connect(self.folder / "warehouse.db")) as warehouse, warehouse:
            warehouse.execute("CREATE TABLE orders " + COLUMNS.format(key=""))
        (self.folder / "sync.toml").write_text(SYNC_FILE, encoding="utf-8")

    def _start(self, *arguments: str) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "resumable_sync", *arguments]
        # What it prints is no result of this command.
        return subprocess.Popen(command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=STANDARD_ERROR)  # noqa: S603

    def _plan(self) -> None:
        """Have the next start say what it will do."""
        self._say("resumable-sync plan sync.toml")
        self._start("plan", "sync.toml").wait()

    def _report(self) -> str:
        """Write the report where it outlives the demo; give its path."""
        self._say("resumable-sync report orders")
        if self.kept:
            path = str(self.folder.absolute() / "report.html")
        else:
            descriptor, path = tempfile.mkstemp(prefix="resumable-sync-demo-", suffix=".html")
            os.close(descriptor)
        self._start("report", "orders", "--output", path).wait()
        return path

    def _killed_at(self, records: int) -> None:
        """Run the sync, and kill it once it has got past a record."""
        self._plan()
        self._say("resumable-sync run sync.toml")
        store = registry.store({"type": "sql", "url": f"sqlite:///{self.folder / 'warehouse.db'}"})
        child = self._start("run", "sync.toml")
        try:
            while child.poll() is None and _processed(store) < records:
                time.sleep(0.005)
        finally:
            child.send_signal(signal.SIGKILL)
            child.wait()
            close_if_closable(store)
        self.output.err.show_cursor()
        self.output.err.print()
        self._say(f"kill -9 after {records:,} records or a little later")

    def _compared(self) -> tuple[int, int, int]:
        """Compare source and target row by row; give how many are lost, how many too many, and how many there are."""
        lost = surplus = 0
        query = "SELECT * FROM orders ORDER BY id"
        with (
            closing(sqlite3.connect(self.folder / "shop.db")) as shop,
            closing(sqlite3.connect(self.folder / "warehouse.db")) as warehouse,
        ):
            source, target = shop.execute(query), warehouse.execute(query)
            expected, found = source.fetchone(), target.fetchone()
            while expected or found:
                if expected == found:
                    expected, found = source.fetchone(), target.fetchone()
                elif found is None or (expected is not None and expected[0] < found[0]):
                    lost, expected = lost + 1, source.fetchone()
                else:
                    surplus, found = surplus + 1, target.fetchone()
            (count,) = warehouse.execute("SELECT count(*) FROM orders").fetchone()
        return lost, surplus, count

    def _say(self, text: str) -> None:
        self.output.say(f"$ {text}" if text.startswith("resumable-sync") else text, "bold")


def _processed(store: JobStore) -> int:
    job = store.load("orders")
    return 0 if job is None else job.processed_records
