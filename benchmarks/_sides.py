"""Ways to copy a table: the library, loops by hand, and other tools; and how one is run and measured."""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import attrs
from benchmarks._common import HERE
from benchmarks._environments import FOLDER, executable

__all__ = ["QUIET", "Commands", "Side", "Task", "Took", "run", "script", "sides", "started"]

BATCH = 10_000
QUIET = {
    "PYTHONWARNINGS": "ignore",
    "SLING_DISABLE_TELEMETRY": "TRUE",
    "SLING_HOME_DIR": str(FOLDER / "sling" / "home"),
    "SLING_LOADED_AT_COLUMN": "FALSE",
}
"""What other tools are to leave out: warnings, messages to their makers, files in the user's home, a column more."""

Task = Literal["postgres", "parquet", "sqlite"]
Commands = list[list[str]]


@attrs.frozen
class Took:
    """What a copy took.

    Attributes:
        seconds: Of the copy.
        cpu: Seconds of CPU, without those of the server.
        megabytes: The most memory, in mebibytes.
    """

    seconds: float
    cpu: float
    megabytes: float


@attrs.frozen(kw_only=True)
class Side:
    """One way to copy.

    Attributes:
        name: What it is called.
        tasks: What it can do.
        commands: Gives a pipeline for a task, a source, a target and a folder for files of its own.
        peer: The environment that it needs; empty: this one.
        table: Where it writes to, in PostgreSQL.
        version: Gives a pipeline that does nothing but start, where that is not to count.
    """

    name: str
    tasks: Sequence[Task]
    commands: Callable[[Task, str, str, Path], Commands]
    peer: str = ""
    table: str = "orders"
    version: Callable[[], Commands] = list

    @property
    def installed(self) -> bool:
        """Whether its environment is there."""
        return not self.peer or bool(executable(self.peer, "bin/python"))


def script(name: str, tasks: Sequence[Task], module: str, peer: str = "", **options: Any) -> Side:
    """Give the side that a script in `benchmarks/_peers` makes."""

    def commands(task: Task, source: str, target: str, folder: Path) -> Commands:
        interpreter = executable(peer, "bin/python") if peer else sys.executable
        settings = json.dumps(options | ({"folder": str(folder / "dlt")} if peer == "dlt" else {}))
        return [[interpreter, "-m", f"benchmarks._peers.{module}", task, source, target, settings]]

    return Side(
        name=name, tasks=tasks, commands=commands, peer=peer, table="shop.orders" if peer == "dlt" else "orders"
    )


def singer_programs() -> tuple[str, str]:
    """Give tap and target."""
    return executable("singer", "bin/tap-postgres"), executable("singer", "bin/target-postgres")


def singer(_task: Task, source: str, target: str, folder: Path, **options: Any) -> Commands:
    """Give the commands of a tap and a target; the tap looks for tables first, which is not measured."""
    tap, load = singer_programs()
    configuration, catalog, settings = (folder / f"{name}.json" for name in ("tap", "catalog", "target"))
    url = source.replace("://", "+psycopg://", 1)
    configuration.write_text(json.dumps({"sqlalchemy_url": url, "filter_schemas": ["public"]}), "utf-8")
    settings.write_text(json.dumps({"sqlalchemy_url": target.replace("://", "+psycopg://", 1)} | options), "utf-8")
    command = [tap, "--config", str(configuration)]
    found: dict[str, Any] = json.loads(subprocess.run([*command, "--discover"], check=True, capture_output=True).stdout)
    (stream,) = found["streams"]
    (table,) = (entry["metadata"] for entry in stream["metadata"] if not entry["breadcrumb"])
    stream["replication_method"] = table["replication-method"] = "FULL_TABLE"
    table["selected"] = True
    catalog.write_text(json.dumps(found), "utf-8")
    return [[*command, "--catalog", str(catalog)], [load, "--config", str(settings)]]


def sling(task: Task, source: str, target: str, _folder: Path) -> Commands:
    """Give the command of sling, a program of its own. (For Parquet files it would fetch DuckDB's from the network.)"""
    read, stream, write, made = {
        "postgres": (f"{source}?sslmode=disable", "public.orders", f"{target}?sslmode=disable", "public.orders"),
        "sqlite": (f"sqlite://{source}", "main.orders", f"sqlite://{target}", "main.orders"),
    }[task]
    source_options, target_options = ["--src-conn", read, "--src-stream", stream], ["--tgt-conn", write]
    return [
        [program_of_sling(), "run", *source_options, *target_options, "--tgt-object", made, "--mode", "full-refresh"]
    ]


def program_of_sling() -> str:
    """Give the program."""
    return executable("sling", "lib/python*/site-packages/sling_*/bin/sling-*")


def sides(task: Task) -> list[Side]:
    """Give all ways to do a task; the first one is what the others are compared with."""
    every: tuple[Task, ...] = ("postgres", "parquet", "sqlite")
    tables: tuple[Task, ...] = ("postgres", "sqlite")
    fast: dict[str, Any] = {"peer": "dlt", "chunk": 50_000, "workers": 2}
    programs: dict[str, Any] = {"tasks": ["postgres"], "peer": "singer", "table": "melty.orders"}

    def version() -> Commands:
        return [[singer_programs()[1], "--version"]]  # the tap starts at the same time

    def sling_version() -> Commands:
        return [[program_of_sling(), "--version"]]

    every_side = [
        script("resumable_sync", every, "with_library", batch_size=BATCH),
        script("resumable_sync, rows as Python values", tables, "with_library", batch_size=BATCH, fast_path=False),
        script("one COPY into another, no checkpoint", ["postgres"], "by_hand", way="stream"),
        script("loop by hand", every, "by_hand", batch=BATCH),
        script("dlt, default", every, "with_dlt", "dlt"),
        script("dlt, pyarrow and CSV", ["postgres"], "with_dlt", backend="pyarrow", file_format="csv", **fast),
        script(
            "dlt, connectorx and Parquet", ["postgres"], "with_dlt", backend="connectorx", file_format="parquet", **fast
        ),
        script("dlt, pyarrow", ["parquet", "sqlite"], "with_dlt", backend="pyarrow", **fast),
        script("dlt, connectorx", ["parquet"], "with_dlt", backend="connectorx", **fast),
        Side(name="Singer", commands=singer, version=version, **programs),
        Side(name="Singer, COPY", commands=partial(singer, use_copy=True), version=version, **programs),
        Side(
            name="sling",
            tasks=tables,
            commands=sling,
            peer="sling",
            version=lambda: [[program_of_sling(), "--version"]],
        ),
        script("DuckDB", every, "with_duckdb", "duckdb"),
        script("connectorx and ADBC", ["postgres"], "with_connectorx", "connectorx", batch=BATCH),
        script("connectorx and pyarrow", ["parquet"], "with_connectorx", "connectorx", batch=BATCH),
        script("pandas", every, "with_pandas", "pandas", chunk=BATCH),
        script("petl", tables, "with_petl", "petl"),
    ]
    return [side for side in every_side if task in side.tasks]


def run(commands: Commands) -> Took:
    """Run a pipeline, and measure it."""
    measure = [sys.executable, "-I", "-S", str(HERE / "_measure.py"), json.dumps(commands)]
    done = subprocess.run(measure, cwd=HERE.parent, env=os.environ | QUIET, capture_output=True, text=True, check=False)
    if done.returncode:
        msg = f"{commands}\n{done.stdout[-2_000:]}\n{done.stderr[-4_000:]}"
        raise RuntimeError(msg)
    lines = done.stdout.splitlines()
    took: dict[str, float] = json.loads(lines[-1])
    if len(lines) > 1 and lines[-2].startswith('{"seconds"'):
        took |= json.loads(lines[-2])
    return Took(**took)


def started(side: Side) -> float:
    """Give the seconds that a program takes to do nothing; 0 for a script, which measures itself."""
    commands = side.version()
    return statistics.median(run(commands).seconds for _ in range(3)) if commands else 0.0
