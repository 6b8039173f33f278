"""Mutation testing of the modules that promises rest on: change the code a little, and see whether a test notices.

    nox -s mutants                              all modules
    nox -s mutants -- _lease stores/_leases     some of them

Each module has its own selection of fast tests, on SQLite and in memory. What mutmut changes and no test notices must
have a written reason in `survivors.toml`; a survivor without one makes the session fail, and so does a reason without
a survivor. mutmut passes over decorated functions, so `@override`, which does nothing, is taken out of its copy.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import attrs
from typing_extensions import override

ROOT = Path(__file__).parents[2]
REASONS = Path(__file__).with_name("survivors.toml")
NOT_HERE = "not postgresql and not mariadb and not postgres and not pickle and not process"
ENGINE = tuple(
    f"tests/engine/test_{name}.py"
    for name in (
        "bad_sources",
        "checkpoints",
        "checkpointing_sinks",
        "dead_letters",
        "delivery",
        "full_sync",
        "held",
        "leases",
        "rotten_input",
        "stops",
        "telling",
        "tries",
    )
)

MODULES: dict[str, tuple[str, ...]] = {
    "_restart": ("tests/test_restart.py",),
    "_lease": ("tests/engine/test_leases.py", "tests/engine/test_held.py"),
    "_attempts/checkpoint": ENGINE,
    "_attempts/acquire": ("tests/engine/test_acquire.py",),
    "_attempts/start": ("tests/engine/test_start.py",),
    "_history": ("tests/engine/test_history.py",),
    "_attempts/recorder": ("tests/engine/test_history.py",),
    "_attempts/attempt": ("tests/engine/test_attempt.py", "tests/engine/test_history.py"),
    "_attempts/deliver": ("tests/engine/test_bisection.py",),
    "_attempts/dead_letters": ("tests/engine/test_bisection.py",),
    "_attempts/pages": ("tests/engine/test_reading.py",),
    "_attempts/reader": ("tests/engine/test_reading.py",),
    "stores/_leases": ("tests/stores/test_conformance.py::TestMemoryJobStore", "tests/stores/test_lease_book.py"),
    "stores/_statements": ("tests/stores/test_sql_statements.py",),
    "stores/_rows": ("tests/stores/test_rows.py",),
    "stores/sql": ("tests/stores/test_sql_store.py",),
    "stores/_upkeep": ("tests/stores/test_sql_store.py",),
    "stores/_histories": ("tests/stores/test_sql_store.py",),
    "stores/_durability": ("tests/stores/test_sql_durability.py",),
}
"""The modules, and the tests that must notice a change in each; those that are not there are passed over."""

SURVIVED, NO_TESTS = "survived", "no tests"

SHOW = """
import json, sys
from mutmut.mutation.diff_apply import find_mutant, get_diff_for_mutant
print(json.dumps([get_diff_for_mutant(name, path=find_mutant(name).path) for name in sys.argv[1:]]))
"""
"""`mutmut show` for many at once."""


class Mutant(NamedTuple):
    """A change that nobody noticed."""

    module: str
    was: str
    now: str


@attrs.frozen
class Result:
    """What became of the mutants of a module."""

    module: str
    counts: dict[str, int]
    survivors: list[Mutant]

    @override
    def __str__(self) -> str:
        counts = ", ".join(f"{count} {what}" for what, count in sorted(self.counts.items()))
        return f"{self.module}: {sum(self.counts.values())} mutants: {counts}"


def main() -> None:
    """Run the modules that are named, or all."""
    parser = argparse.ArgumentParser()
    parser.add_argument("modules", nargs="*")
    parser.add_argument(
        "--work", type=Path, default=Path(tempfile.gettempdir()) / "mutants", help="folder for the copies"
    )
    parser.add_argument("--children", type=int, default=os.cpu_count() or 2, help="processes at a time")
    parser.add_argument("--timeout", type=float, default=3600.0, help="seconds for one module")
    arguments = parser.parse_args()
    names = arguments.modules or list(MODULES)
    reasons = tomllib.loads(REASONS.read_text(encoding="utf-8"))
    kinds = [pattern for kind in reasons["kind"] for pattern in kind["patterns"]]
    excused = {Mutant(one["module"], one["was"], one["now"]) for one in reasons.get("survivor", [])}
    faults = []
    for name in names:
        folder = copy(arguments.work / name.replace("/", "-"), name, kinds)
        result = mutate(folder, name, arguments.children, arguments.timeout)
        print(result, flush=True)
        faults += [f"survived without a reason: {told(mutant)}" for mutant in result.survivors if mutant not in excused]
        faults += [
            f"did not survive, the reason can go: {told(mutant)}"
            for mutant in excused
            if mutant.module == name and mutant not in result.survivors
        ]
    print("\n".join(faults))
    sys.exit(bool(faults))


def copy(folder: Path, name: str, kinds: list[str]) -> Path:
    """Make a copy of the project that mutmut can work on."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for part in ("src", "tests"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__", "mutants"))
    for path in (folder / "src").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        path.write_text(re.sub(r"^ *@override\n", "", text, flags=re.MULTILINE), encoding="utf-8")
    shutil.copy(ROOT / "README.md", folder)
    tests = [test for test in MODULES[name] if (ROOT / test.partition("::")[0]).exists()]
    settings = {
        "source_paths": ["src/"],
        "only_mutate": [f"src/resumable_sync/{name}.py"],
        "pytest_add_cli_args_test_selection": [*tests, "-k", NOT_HERE],
        "pytest_add_cli_args": ["-p", "no:cacheprovider", "-p", "no:xdist", "-o", "timeout=60"],
        "also_copy": ["README.md", "pyproject.toml"],
        "do_not_mutate_patterns": kinds,
        "timeout_constant": 5.0,
    }
    lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (folder / "pyproject.toml").write_text(f"{project}\n[tool.mutmut]\n" + "\n".join(lines) + "\n", encoding="utf-8")
    return folder


def mutate(folder: Path, name: str, children: int, timeout: float) -> Result:
    """Run mutmut, and read what it says."""
    environment = {**os.environ, "PYTHONPATH": "", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "mutmut"]
    done = subprocess.run(
        [*command, "run", "--max-children", str(children)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    listed = subprocess.run(
        [*command, "results", "--all", "true"], cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    outcomes = dict(re.findall(r"^ +(\S+): (.+)$", listed.stdout, flags=re.MULTILINE))
    if not outcomes:
        sys.exit(f"{name}: mutmut made no mutants\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    counts: dict[str, int] = {}
    for outcome in outcomes.values():
        counts[outcome] = counts.get(outcome, 0) + 1
    names = [mutant for mutant, outcome in outcomes.items() if outcome in (SURVIVED, NO_TESTS)]
    return Result(name, counts, list(shown(folder, environment, name, names)))


def shown(folder: Path, environment: dict[str, str], module: str, names: list[str]) -> Iterator[Mutant]:
    """Give the lines that each of some mutants changes."""
    show = [sys.executable, "-c", SHOW, *names]
    done = subprocess.run(show, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    for diff in json.loads(done.stdout):
        lines = [line for line in diff.splitlines() if not line.startswith(("---", "+++"))]
        was, now = ("\n".join(line[1:].strip() for line in lines if line.startswith(sign)) for sign in "-+")
        yield Mutant(module, was, now)


def told(mutant: Mutant) -> str:
    """Write a mutant as an entry of the file of reasons."""
    values: dict[str, Any] = mutant._asdict()
    return "\n[[survivor]]\n" + "\n".join(f"{key} = {json.dumps(value)}" for key, value in values.items())


if __name__ == "__main__":
    main()
