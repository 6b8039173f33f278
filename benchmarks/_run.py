"""Run benchmarks: all, or those that are named; `nox -s bench` and `nox -s bench_check` come here.

    python -m benchmarks._run [--check | --keep] [NAME ...]

Each runs in a process of its own. Exits 1 if one missed a bound or failed.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path

from benchmarks._common import HERE
from benchmarks._page import RESULTS
from benchmarks._report import BUDGET, FOLDER, bounds


def names() -> list[str]:
    """Give the names of all benchmarks."""
    return sorted(path.stem for path in HERE.glob("[!_]*.py"))


def run(name: str, folder: Path) -> bool:
    """Run one, with its figures into a folder; give whether it kept its bounds."""
    begun = time.monotonic()
    command = [sys.executable, "-m", f"benchmarks.{name}"]
    status = subprocess.run(command, cwd=HERE.parent, env=os.environ | {FOLDER: str(folder)}, check=False).returncode
    print(f"{name}: {time.monotonic() - begun:.0f} s", flush=True)
    return status == 0


def not_measured(name: str, folder: Path) -> list[str]:
    """Give the lines of the budget that a benchmark has no figure for."""
    path = folder / f"{name}.json"
    reports = json.loads(path.read_text("utf-8"))["reports"] if path.exists() else []
    measured = {line["name"] for report in reports for line in report["lines"]}
    return [line for line in bounds(name) if line not in measured]


def main(arguments: Sequence[str]) -> int:
    """Run them; give the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks._run")
    parser.add_argument("names", nargs="*", metavar="NAME", help="which benchmarks; all by default")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--check", action="store_true", help="those with bounds, each of which must be measured and kept")
    what.add_argument("--keep", action="store_true", help="keep the figures, and write the page that shows them")
    options = parser.parse_args(arguments)
    chosen: list[str] = options.names or (list(tomllib.loads(BUDGET.read_text("utf-8"))) if options.check else names())
    failures = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = RESULTS if options.keep else Path(temporary)
        for name in chosen:
            if not run(name, folder):
                failures.append(f"{name}: a bound was missed, or it failed; see above")
            if options.check:
                failures += [f"{name}: not measured: {line}" for line in not_measured(name, folder)]
    if options.keep:
        subprocess.run([sys.executable, "-m", "benchmarks._page"], cwd=HERE.parent, check=True)
    print(*failures, sep="\n")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
