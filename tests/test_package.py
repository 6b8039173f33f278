"""What is installed is what is promised: types, version, and an import that loads nothing heavy."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml

import resumable_sync

PROJECT = Path(__file__).parent.parent / "pyproject.toml"


def python(code: str) -> str:
    # The package is found by the child as it was found here.
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True)
    return done.stdout


def test_the_import_loads_neither_sqlalchemy_nor_an_extra() -> None:
    loaded = python("import resumable_sync, sys; print(*{name.partition('.')[0] for name in sys.modules})").split()
    assert "resumable_sync" in loaded
    assert {
        "sqlalchemy",
        "stamina",
        "tenacity",
        "psycopg",
        "pymysql",
        "httpx2",
        "fsspec",
        "pyarrow",
        "pytest",
    }.isdisjoint(loaded)


def test_every_public_name_is_there() -> None:
    assert [name for name in resumable_sync.__all__ if not hasattr(resumable_sync, name)] == []
    assert sorted(set(resumable_sync.__all__)) == sorted(resumable_sync.__all__)


def test_the_type_of_every_public_name_is_checked() -> None:
    """`nox -s typing` has two checkers look at this file; an import that it does not use is an error of the linter."""
    tree = ast.parse((PROJECT.parent / "tests/typing/api.py").read_text(encoding="utf-8"))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module == "resumable_sync"]
    assert set(resumable_sync.__all__) <= {alias.name for node in imports for alias in node.names}


@pytest.mark.once
def test_the_workflow_tests_every_python_on_every_server() -> None:
    folder = PROJECT.parent
    workflow = (folder / ".github/workflows/ci.yml").read_text(encoding="utf-8")
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    pythons = {name.rpartition(" ")[2] for name in project["classifiers"] if re.search(r":: 3\.\d+$", name)}
    assert pythons <= set(re.findall(r'- python: "([\d.]+)"', workflow))
    assert pythons == set(re.findall(r"^ +(3\.\d+)$", workflow, re.MULTILINE))
    variables = re.findall(r'"(RESUMABLE_SYNC_TEST_\w+)", "', (folder / "tests/servers.py").read_text(encoding="utf-8"))
    assert len(variables) == 3
    assert [name for name in variables if f"{name}: " not in workflow] == []
    sessions = set(
        re.findall(r"^def (\w+)\(session", (folder / "noxfile.py").read_text(encoding="utf-8"), re.MULTILINE)
    )
    listed = re.search(r"session: \[(.*)\]", workflow)
    assert listed is not None
    assert {*re.findall(r"nox -s (\w+)", workflow), *listed[1].split(", ")} <= sessions


@pytest.mark.once
def test_the_citation_names_the_newest_release() -> None:
    cited = yaml.safe_load((PROJECT.parent / "CITATION.cff").read_text(encoding="utf-8"))
    changelog = (PROJECT.parent / "CHANGELOG.md").read_text(encoding="utf-8")
    released = re.search(r"^## \[(.+)\] - (\S+)$", changelog, re.MULTILINE)
    assert released is not None
    assert cited["version"] == released[1] == tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]["version"]
    # It has a date from the day on that the changelog has one.
    assert str(cited.get("date-released", "unreleased")) == released[2]


def distribution() -> metadata.Distribution:
    from_source = Path(resumable_sync.__file__).is_relative_to(PROJECT.parent / "src")
    if from_source and not os.environ.get("CI"):
        pytest.skip("resumable_sync is run from the source folder, not from its wheel")
    assert not from_source
    return metadata.distribution("resumable_sync")


def test_the_wheel_is_typed() -> None:
    assert (Path(resumable_sync.__file__).parent / "py.typed").exists()
    assert any(path.match("py.typed") for path in distribution().files or [])


def test_the_version_is_that_of_the_project() -> None:
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    assert distribution().version == project["version"]


def test_the_command_says_which_extra_it_needs() -> None:
    code = """if True:
        import sys
        sys.modules["click"], sys.stderr = None, sys.stdout
        from resumable_sync.__main__ import main
        print(main())
    """
    assert python(code) == "click is not installed; install it with: pip install 'resumable_sync[cli]'\n2\n"


def test_the_command_is_installed() -> None:
    scripts = {entry.name: entry.value for entry in distribution().entry_points if entry.group == "console_scripts"}
    assert scripts == {"resumable-sync": "resumable_sync.__main__:main"}
