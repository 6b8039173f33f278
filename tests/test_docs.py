"""The pages of docs/ do what they say: Python blocks run, commands are run, and what they print is what is shown.

Blocks of a page run one after the other in a folder of its own: `python` in one namespace; any block with a caption
goes into the file that it names; `console` line by line, `$` and its continuations `>`, against the lines below. A
`text` block is what the Python block above it printed. `...` stands for anything. What others read (`toml`, `yaml`,
`ini`, `sh`, a crontab) is checked as far as it can be without them, and a language that is not known here is an error.
"""

import configparser
import contextlib
import doctest
import gc
import io
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any, NamedTuple, get_args

import pytest
import yaml
from packaging.requirements import Requirement

from resumable_sync import registry
from resumable_sync.cli._config import read_sync_file

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
    # "... passed" would do for it as well.
    assert " failed" not in ended.stdout, ended.stdout


def compare(expected: str, printed: str, what: str) -> None:
    assert CHECK(expected, printed, doctest.ELLIPSIS), f"{what}\nshown:\n{expected}\nprinted:\n{printed}"


def check_toml(text: str) -> None:
    """A sync file, as the command line reads it before anything runs."""
    data = tomllib.loads(text)
    if "project" in data:  # of a package that declares types of its own
        assert data["project"].keys() == {"entry-points"}
        assert data["project"]["entry-points"].keys() <= {f"resumable_sync.{port}" for port in get_args(registry.Port)}
        return
    path = Path("checked.toml")
    path.write_text(text, encoding="utf-8")
    variables = dict.fromkeys(re.findall(r"\$\{(\w+)\}", text), "sqlite:///checked.db")
    read = read_sync_file(path, variables)
    assert read.jobs
    assert read.warnings == ()
    path.unlink()


def check_command(words: list[str]) -> None:
    """Python, and a file that the page or the folder of examples holds."""
    program, *arguments = words
    assert Path(program).name == "python"
    (script,) = [one for one in arguments if one.endswith(".py")]
    assert Path(script).exists() or (DOCS.parent / "examples" / script).exists(), script


def check_yaml(text: str) -> None:
    """Jobs of Kubernetes, which start again what did not end with 0."""
    for job in yaml.safe_load_all(text):
        assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job")
        pod = job["spec"]["template"]["spec"]
        assert pod["restartPolicy"] in {"OnFailure", "Never"}
        for container in pod["containers"]:
            check_command(container["command"])
        if job["spec"].get("completionMode") == "Indexed":
            assert job["spec"]["completions"] >= job["spec"]["parallelism"] > 0


def check_ini(text: str) -> None:
    """A unit of systemd."""
    unit = configparser.ConfigParser(strict=True, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(text)
    assert set(unit) - {"DEFAULT"} <= {"Unit", "Service", "Install"}
    assert unit["Service"]["Restart"] == "on-failure"
    check_command(shlex.split(unit["Service"]["ExecStart"]))


def check_sh(text: str) -> None:
    """Commands that need the network: they can be parsed, and what they install is ours."""
    subprocess.run(["sh", "-n", "-c", text], check=True)
    project = tomllib.loads((DOCS.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for line in text.splitlines():
        assert line.startswith("python -m pip install "), line
        wanted = Requirement(shlex.split(line)[-1])
        assert wanted.name == project["name"]
        assert wanted.extras <= set(project["optional-dependencies"])


def check_crontab(text: str) -> None:
    for line in text.splitlines():
        if not line.startswith("#"):
            *times, command = line.split(maxsplit=5)
            assert all(re.fullmatch(r"[\d*/,-]+", one) for one in times), line
            subprocess.run(["sh", "-n", "-c", command], check=True)
            check_command(shlex.split(command.rpartition("&& ")[2].partition(" >")[0]))


CHECKED = {"toml": check_toml, "yaml": check_yaml, "ini": check_ini, "sh": check_sh, "none": check_crontab}


LEFT_ALONE = {"diff", "raw", "sql"}
"""The difference that `tests/worked/test_etl.py` looks at, drawings, and the shape of statements."""


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
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("RESUMABLE_SYNC_STORE", raising=False)
    namespace: dict[str, object] = {"__name__": "page"}
    printed = io.StringIO()
    for kind, caption, text in blocks(page):
        if caption:
            Path(caption).write_text(text, encoding="utf-8")
            if kind == "python":
                compile(text, caption, "exec")
        if kind in CHECKED:
            CHECKED[kind](text)
        elif caption:
            continue
        elif kind == "python":
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(compile(text, f"{page.name}", "exec"), namespace)
        elif kind == "console":
            for command in commands(text):
                run(command)
        elif kind == "text":
            compare(text, printed.getvalue(), page.name)
        else:
            assert kind in LEFT_ALONE, f"{page.name} has a block of {kind}, which nothing here looks at"
    gc.collect()


def test_there_are_pages() -> None:
    """Else nothing above would have been checked."""
    assert len(PAGES) > 1 or not DOCS.exists()
