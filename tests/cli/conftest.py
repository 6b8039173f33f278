"""The commands in this process, for what needs no process of its own."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest

from cli.commands import Shop
from resumable_sync.cli import main


@attrs.frozen
class Told:
    """What a command told."""

    status: int
    out: str
    err: str


@pytest.fixture
def call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., Told]]:
    """Runs a command in a folder of its own; `call("run", "sync.toml")` gives status and output."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RESUMABLE_SYNC_STORE", raising=False)
    logger = logging.getLogger("resumable_sync")
    handlers, level = logger.handlers[:], logger.level

    def run(*arguments: str) -> Told:
        status = main(arguments)
        captured = capsys.readouterr()
        return Told(status, captured.out, captured.err)

    yield run
    logger.handlers[:] = handlers
    logger.setLevel(level)


@pytest.fixture
def shop(tmp_path: Path, new_database: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> Shop:
    """A shop of 2,000 orders on SQLite, with its sync file in the working directory of `call`."""
    made = Shop(tmp_path, new_database("sqlite"), new_database("sqlite"))
    made.build()
    monkeypatch.setenv("SHOP", made.source)
    monkeypatch.setenv("WAREHOUSE", made.target)
    return made
