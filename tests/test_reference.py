"""The pages of docs/reference say what is there: nothing is missing, and nothing is made up."""

import importlib
import inspect
import pkgutil
import re
import runpy
import tomllib
from pathlib import Path
from typing import Any

import attrs
import pytest

import resumable_sync
from resumable_sync import registry, run_full_sync, run_partitioned_sync
from resumable_sync._attempts.options import SyncOptions
from resumable_sync._retry import Retry
from resumable_sync.cli._config import VERIFY
from resumable_sync.cli._status import ExitStatus
from resumable_sync.sinks import _checkpoint, _registry
from resumable_sync.stores import _schema

pytestmark = pytest.mark.once

PAGES = Path(__file__).parent.parent / "docs/reference"
PUBLIC: dict[str, Any] = {name: getattr(resumable_sync, name) for name in resumable_sync.__all__}


def page(name: str) -> str:
    return (PAGES / f"{name}.md").read_text(encoding="utf-8")


def cells(name: str, *, below: str = "") -> list[list[str]]:
    """Give the rows of a page's tables, without their heads; those below a heading alone."""
    text = page(name)
    if below:
        text = re.split(r"^## ", text.partition(f"\n## {below}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    rows = [re.split(r" \| ", line.strip("| ")) for line in text.splitlines() if line.startswith("| ")]
    heads = [number for number, row in enumerate(rows) if set("".join(row)) <= set("- |")]
    return [row for number, row in enumerate(rows) if number not in heads and number + 1 not in heads]


def names(cell: str) -> list[str]:
    return re.findall(r"`(\w+)`", cell)


def documented() -> set[str]:
    pages = page("api") + page("protocols") + page("registry")
    return set(re.findall(r"^\.\. auto\w+:: ([\w.]+)$", pages, re.MULTILINE))


def test_every_public_name_is_documented() -> None:
    told = documented()
    told |= {name.rpartition(".")[2] for name in told}
    plain = {name for name, one in PUBLIC.items() if not callable(one) or name in {"Cursor", "Observer"}}
    assert [name for name in PUBLIC if name not in told | plain] == []
    # What is a value has no docstring of its own to be taken over.
    assert [name for name in plain if f"`{name}`" not in page("api")] == []


def test_every_name_of_a_public_module_is_documented() -> None:
    modules = [found.name for found in pkgutil.walk_packages(resumable_sync.__path__, "resumable_sync.")]
    public = [name for name in modules if "._" not in name and ".cli" not in name]
    assert {"resumable_sync.registry", "resumable_sync.testing", "resumable_sync.sinks.sql"} <= set(public)
    # The first are for entry points, the others types of an argument.
    plain = {"from_data", "Paging", "Port"}
    assert [name for name in plain - {"from_data"} if f"`{name}`" not in page("api") + page("registry")] == []
    told = documented()
    missing = [
        f"{module}.{name}"
        for module in public
        for name in getattr(importlib.import_module(module), "__all__", ())
        if name not in plain | told and f"{module}.{name}" not in told
    ]
    assert missing == []


def test_every_adapter_is_documented() -> None:
    told = page("api")
    for port in ("connectors", "sinks", "stores"):
        for entry in registry._found(port).values():
            module, _, made = entry.value.partition(":")
            if made != "from_data":
                assert f"{module}.{made}" in told
            assert f"`{entry.name}`" in page("configuration")


def test_errors() -> None:
    errors = {name for name, one in PUBLIC.items() if inspect.isclass(one) and issubclass(one, Exception)}
    assert {names(row[0])[0] for row in cells("errors")} == errors - {"ResumableSyncError"}


def test_events() -> None:
    told = {names(row[0])[0]: names(row[2]) for row in cells("events") if len(row) == 3}
    events = resumable_sync.Event.__args__
    assert told == {event.__name__: [field.name for field in attrs.fields(event)] for event in events}


def test_tables() -> None:
    stored = _schema.tables(_schema.Names("resumable_sync_"))
    for table in (
        stored.jobs,
        stored.attempts,
        stored.history,
        stored.dead_letters,
        stored.meta,
        _checkpoint._table(None),
        _registry._table(None),
    ):
        told = [name for row in cells("tables", below=f"`{table.name}`") for name in names(row[0])]
        assert sorted(told) == sorted(column.name for column in table.columns), table.name


def options(heading: str) -> dict[str, object]:
    """Give the options below a heading, and their defaults; none for those that must be given."""
    told = {names(row[0])[0]: row[1].strip("`") for row in cells("configuration", below=heading)}
    namespace = {"Retry": Retry, "needed": inspect.Parameter.empty}
    return {name: eval(cell, namespace) for name, cell in told.items()}


def test_options_and_their_defaults() -> None:
    defaults = {name: found.default for name, found in inspect.signature(run_full_sync).parameters.items()}
    assert options("Options of a sync") == {name: defaults[name] for name in SyncOptions.__annotations__}
    retry = re.search(r"`(Retry\(on=[^`]*\))`", page("configuration"))
    assert retry is not None
    assert eval(retry[1], {"Retry": Retry}) == Retry()


def test_options_of_a_sync_in_parts() -> None:
    taken = inspect.signature(run_partitioned_sync).parameters.values()
    assert options("Options of a sync in parts") == {
        one.name: one.default for one in taken if one.kind is inspect.Parameter.KEYWORD_ONLY
    }


def test_variables_and_keys() -> None:
    sources = Path(resumable_sync.__file__).parent.rglob("*.py")
    used = {name for source in sources for name in re.findall(r'"(RESUMABLE_SYNC_\w+)"', source.read_text("utf-8"))}
    assert {names(row[0])[0] for row in cells("configuration", below="Environment")} == used
    keys = {name for row in cells("configuration", below="Sync file") for name in names(row[0])}
    assert keys == {"job", "jobs", "source", "sink", "store", "options", "verify"}
    (verify,) = (row for row in cells("configuration", below="Sync file") if row[0] == "`verify`")
    assert set(names(verify[1])) == set(VERIFY)


def test_figures_are_those_of_the_benchmarks() -> None:
    benchmarks = PAGES.parent.parent / "benchmarks"
    shown = runpy.run_path(str(benchmarks / "_page.py"))
    found = shown["results"]()
    text = shown["PAGE"].read_text(encoding="utf-8")
    assert text == shown["page"](text, found), "python -m benchmarks._page writes the page anew"
    drawn = {path.name: path.read_text(encoding="utf-8") for path in shown["CHARTS"].glob("*.svg")}
    assert drawn == shown["charts"](found)
    measured = set(re.findall(r"<!-- measured: (\w+) -->", text)) - {"machine"}
    every = {path.stem for path in benchmarks.glob("[!_]*.py")}
    listed = re.findall(r"^\| `(\w+)` \|", (benchmarks / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert measured == set(listed) == every
    assert set(tomllib.loads((benchmarks / "budget.toml").read_text(encoding="utf-8"))) <= every


def test_exit_statuses() -> None:
    told = {names(row[1])[0]: int(row[0]) for row in cells("exit-statuses")}
    assert told == {status.name: status.value for status in ExitStatus}
