"""The pages of docs/ do what they say: Python blocks run, commands are run, and what they print is what is shown.

Blocks of a page run one after the other in a folder of its own: `python` in one namespace; any block with a caption
goes into the file that it names; `console` line by line, `$` and its continuations `>`, against the lines below. A
`text` block is what the Python block above it printed. `...` stands for anything.
"""

import contextlib
import doctest
import gc
import io
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

DOCS = Path(__file__).parent.parent / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
BLOCK = re.compile(r"^```(?:\{code-block\} )?(\w+)\n(?::caption: (\S+)\n)?(.*?)^```$", re.DOTALL | re.MULTILINE)
CHECK = doctest.OutputChecker().check_output


class Command(NamedTuple):
    line: str
    output: str


def blocks(page: Path) -> list[tuple[str, str, str]]:
    return [(found[1], found[2] or "", found[3]) for found in BLOCK.finditer(page.read_text(encoding="utf-8"))]


def commands(text: str) -> list[Command]:
    found = []
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        lines = part.splitlines()
        more = 1
        while more < len(lines) and lines[more].startswith("> "):
            more += 1
        line = "\n".join([lines[0], *(each.removeprefix("> ") for each in lines[1:more])])
        found.append(Command(line, "".join(f"{each}\n" for each in lines[more:])))
    return found


def run(command: Command) -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "PYTHONWARNINGS": "error"}
    ended = subprocess.run(
        command.line, shell=True, check=False, capture_output=True, text=True, timeout=120, env=environment
    )
    compare(command.output, ended.stdout, f"$ {command.line}\n{ended.stderr}")


def compare(expected: str, printed: str, what: str) -> None:
    assert CHECK(expected, printed, doctest.ELLIPSIS), f"{what}\nshown:\n{expected}\nprinted:\n{printed}"


def parameters() -> list[Any]:
    # Commands take longer, and what they show does not differ from Python to Python.
    return [
        pytest.param(page, id=str(page.relative_to(DOCS)), marks=[pytest.mark.kills] if commands_in(page) else [])
        for page in PAGES
    ]


def commands_in(page: Path) -> bool:
    return any(kind == "console" for kind, _, _ in blocks(page))


@pytest.mark.once
@pytest.mark.parametrize("page", parameters())
def test_page(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RESUMABLE_SYNC_STORE", raising=False)
    namespace: dict[str, object] = {"__name__": "page"}
    printed = io.StringIO()
    for kind, caption, text in blocks(page):
        if caption:
            Path(caption).write_text(text, encoding="utf-8")
        elif kind == "python":
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(compile(text, f"{page.name}", "exec"), namespace)
        elif kind == "console":
            for command in commands(text):
                run(command)
        elif kind == "text":
            compare(text, printed.getvalue(), page.name)
    gc.collect()


def test_there_are_pages() -> None:
    """Else nothing above would have been checked."""
    assert len(PAGES) > 1 or not DOCS.exists()
