"""Write what was measured into `docs/explanation/performance.md`: tables, and bar charts as SVG beside the page.

    python -m benchmarks._page

The figures are those in `benchmarks/results`, which `nox -s bench -- --keep` takes. Between the lines
`<!-- measured: NAME -->` and `<!-- end -->` everything is written anew; what stands around is left alone.
"""

import json
import re
import sys
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Any

__all__ = ["CHARTS", "PAGE", "charts", "page"]

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
PAGE = HERE.parent / "docs" / "explanation" / "performance.md"
CHARTS = PAGE.parent / "measured"
PART = re.compile(r"(<!-- measured: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
OURS = "resumable_sync"
WIDTH, LABEL, NUMBER, ROW = 760, 280, 90, 26

Results = Mapping[str, Mapping[str, Any]]
"""What was measured, by benchmark."""


def results() -> dict[str, dict[str, Any]]:
    """Read what was kept."""
    return {path.stem: json.loads(path.read_text("utf-8")) for path in sorted(RESULTS.glob("*.json"))}


def page(text: str, found: Results) -> str:
    """Give the page with the tables of these results."""

    def part(match: re.Match[str]) -> str:
        name = match[2]
        told = "".join(f"{line}\n" for line in (machines(found) if name == "machine" else block(name, found)))
        return f"{match[1]}\n{told}\n{match[3]}"

    return PART.sub(part, text)


def block(name: str, found: Results) -> Iterator[str]:
    """Give the lines of one benchmark: each table, and its charts."""
    if name not in found:
        yield f"Not measured: `nox -s bench -- --keep {name}` does."
        return
    for report in found[name]["reports"]:
        yield from table(report)
        yield ""
        for chart in report["charts"]:
            yield from (":::{raw} html", f":file: measured/{chart['name']}.svg", ":::", "")
    yield f"`nox -s bench -- {name}`, {found[name]['taken']}, load {found[name]['machine']['load']}."


def table(report: Mapping[str, Any]) -> Iterator[str]:
    """Give the lines of a table; a bound that was missed is said."""
    headings = [report["title"], *report["columns"], "figure", "bound"]
    yield f"| {' | '.join(headings)} |"
    yield f"| {' | '.join('---' for _ in headings)} |"
    for line in report["lines"]:
        (bound,) = [f"{sign} {line['form'].format(limit)}" for sign, limit in limits(line["bound"])] or [""]
        cells = [line["name"], *line["cells"], line["form"].format(line["figure"]), bound + " missed" * missed(line)]
        yield f"| {' | '.join(cells)} |"


def limits(bound: Mapping[str, float]) -> Iterator[tuple[str, float]]:
    """Give the sign and the number of a bound."""
    for kind, limit in bound.items():
        yield "≥" if kind == "least" else "≤", limit


def missed(line: Mapping[str, Any]) -> bool:
    """Whether a figure is beyond its bound."""
    figure, bound = line["figure"], line["bound"]
    return not bound.get("least", figure) <= figure <= bound.get("most", figure)


def machines(found: Results) -> Iterator[str]:
    """Say on what it was measured, and with what."""
    told: dict[str, list[str]] = {}
    for name, result in found.items():
        machine = result["machine"]
        versions = ", ".join(f"{package} {version}" for package, version in machine["versions"].items())
        told.setdefault(f"{machine['processors']}, {machine['system']}; {versions}", []).append(name)
    for machine, names in told.items():
        yield f"{machine}." if len(told) == 1 else f"{machine}: {', '.join(names)}."


def charts(found: Results) -> dict[str, str]:
    """Give the text of each chart, by the name of its file."""
    every = (chart for result in found.values() for report in result["reports"] for chart in report["charts"])
    return {f"{chart['name']}.svg": svg(chart) for chart in every}


def svg(chart: Mapping[str, Any]) -> str:
    """Draw bars, in the colour of the text around them, so that they are seen on light and on dark ground."""
    bars: Mapping[str, float] = chart["bars"]
    most = max(bars.values(), default=0) or 1
    height = ROW * len(bars) + 34
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img"',
        '  font-family="sans-serif" font-size="13" fill="currentColor" style="max-width:100%;height:auto">',
        f"  <title>{escape(chart['title'])}</title>",
        f'  <text x="0" y="16" font-weight="bold">{escape(chart["title"])}</text>',
    ]
    for place, (name, value) in enumerate(bars.items()):
        y = 30 + ROW * place
        length = max(1.0, (WIDTH - LABEL - NUMBER) * value / most)
        colour = 'fill="#0a84c6"' if name.startswith(OURS) else 'opacity="0.45"'
        lines += [
            f'  <text x="{LABEL - 8}" y="{y + 14}" text-anchor="end">{escape(name)}</text>',
            f'  <rect x="{LABEL}" y="{y}" width="{length:.1f}" height="{ROW - 8}" rx="2" {colour}/>',
            f'  <text x="{LABEL + length + 6:.1f}" y="{y + 14}">{escape(chart["form"].format(value))}</text>',
        ]
    return "\n".join([*lines, "</svg>"]) + "\n"


def main() -> int:
    """Write page and charts."""
    found = results()
    PAGE.write_text(page(PAGE.read_text("utf-8"), found), "utf-8")
    CHARTS.mkdir(exist_ok=True)
    for file in CHARTS.glob("*.svg"):
        file.unlink()
    for name, text in charts(found).items():
        (CHARTS / name).write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
