"""The examples of README and docstrings do what they say."""

import doctest
import importlib
import pkgutil
from pathlib import Path

import pytest
from sybil import Sybil
from sybil.example import Example
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser

import resumable_sync

README = Path(__file__).parent.parent / "README.md"
MODULES = [module.name for module in pkgutil.walk_packages(resumable_sync.__path__, "resumable_sync.")]


def readme_examples() -> list[Example]:
    sybil = Sybil(parsers=[PythonCodeBlockParser(), SkipParser()], patterns=["*.md"])
    return list(sybil.parse(README).examples()) if README.exists() else []


def test_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    examples = readme_examples()
    if not examples:
        pytest.skip("README.md has no Python blocks")
    # One after the other in one namespace, and whatever files they make in a folder of their own.
    monkeypatch.chdir(tmp_path)
    for example in examples:
        example.evaluate()


@pytest.mark.parametrize("module", ["resumable_sync", *MODULES])
def test_docstrings(module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert doctest.testmod(importlib.import_module(module), optionflags=doctest.ELLIPSIS).failed == 0
