"""The real command in real processes, and a shop to copy from."""

import contextlib
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import attrs
from sqlalchemy import create_engine, text

from resumable_sync import Job
from resumable_sync.stores.sql import SQLJobStore
from waiting import until

__all__ = ["ROWS", "Shop", "rows_of", "write"]

ROWS = 2_000
SECONDS = 120


def write(url: str, *statements: str) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()


def rows_of(url: str, table: str) -> list[tuple[Any, ...]]:
    engine = create_engine(url)
    with engine.connect() as connection:
        rows = [tuple(row) for row in connection.execute(text(f"SELECT * FROM {table} ORDER BY 1, 2"))]
    engine.dispose()
    return rows


@attrs.frozen
class Shop:
    """A folder with a sync file in it, a source with orders, and a store."""

    folder: Path
    source: str
    target: str

    def build(self, rows: int = ROWS) -> None:
        values = ", ".join(f"({number}, 'customer {number}')" for number in range(rows))
        write(
            self.source,
            "CREATE TABLE orders (id INTEGER PRIMARY KEY, customer VARCHAR(30) NOT NULL)",
            f"INSERT INTO orders VALUES {values}",
        )
        self.configure()

    def configure(self, *options: str, mode: str = "append", more: str = "") -> None:
        (self.folder / "sync.toml").write_text(
            f"""
            job = "orders"
            source = {{ type = "sql", url = "${{SHOP}}", table = "orders" }}
            sink = {{ type = "sql", table = "copies", mode = "{mode}" }}
            store = {{ type = "sql", url = "${{WAREHOUSE}}" }}
            {more}
            [options]
            batch_size = 100
            """
            + "\n".join(options),
            encoding="utf-8",
        )

    @property
    def environment(self) -> dict[str, str]:
        # The package is found by the child as it was found here.
        paths = {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONWARNINGS": "error::ResourceWarning"}
        return {**os.environ, **paths, "SHOP": self.source, "WAREHOUSE": self.target}

    def start(self, *arguments: str, **environment: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-m", "resumable_sync", *arguments],
            cwd=self.folder,
            env=self.environment | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        with self.start(*arguments, **environment) as process:
            out, err = process.communicate(timeout=SECONDS)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def in_terminal(self, *arguments: str) -> tuple[int, str]:
        """Run in a terminal of 150 columns; give the status and what was written there, without control sequences."""
        ours, theirs = pty.openpty()
        with os.fdopen(ours, "rb", 0) as screen:
            process = subprocess.Popen(
                [sys.executable, "-m", "resumable_sync", *arguments],
                cwd=self.folder,
                env=self.environment | {"TERM": "xterm", "COLUMNS": "150", "LINES": "40"},
                stdin=theirs,
                stdout=theirs,
                stderr=theirs,
            )
            os.close(theirs)
            written = b""
            # The end of a terminal is an error on Linux.
            with contextlib.suppress(OSError):
                while found := screen.read(65_536):
                    written += found
            status = process.wait(SECONDS)
        return status, re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written.decode())

    def kill_in_the_middle(self, number: signal.Signals, records: int) -> tuple[int, str, str]:
        """Run so slowly that it cannot get to the end, and send a signal once some records have arrived."""
        self.configure("throttle = 1000")
        with self.start("run") as process:
            until(lambda: process.poll() is not None or self.records() >= records, SECONDS)
            process.send_signal(number)
            out, err = process.communicate(timeout=SECONDS)
        self.configure()
        return process.returncode, out, err

    def records(self) -> int:
        job = self.job()
        return 0 if job is None else job.processed_records

    def job(self) -> Job | None:
        with SQLJobStore(self.target) as store:
            return store.load("orders")

    def check_exact(self) -> None:
        assert rows_of(self.target, "copies") == rows_of(self.source, "orders")
