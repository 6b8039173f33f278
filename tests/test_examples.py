"""The examples of README and docstrings do what they say."""

import doctest
import gc
import importlib
import pkgutil
import sqlite3
from contextlib import closing
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


def test_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RESUMABLE_SYNC_STORE", raising=False)
    with closing(sqlite3.connect("shop.db")) as shop, shop:
        shop.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, customer TEXT)")
        shop.executemany("INSERT INTO orders VALUES (?, ?)", [(n, f"customer {n}") for n in range(7)])
    # One after the other in one namespace, and whatever files they make in a folder of their own.
    for example in readme_examples():
        example.evaluate()
    assert capsys.readouterr().out.splitlines() == [
        "completed 7",
        "completed 2500 at_least_once",
        "completed exactly_once",
    ]
    gc.collect()


@pytest.mark.parametrize("module", ["resumable_sync", *MODULES])
def test_docstrings(module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert doctest.testmod(importlib.import_module(module), optionflags=doctest.ELLIPSIS).failed == 0
