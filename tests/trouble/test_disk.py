"""A disk that is full or broken under SQLite: a clear error, the file intact, and the next start exact."""

import errno
import os
import shutil
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import attrs
import pytest

from crash.programs import JOB_ID, Program
from resumable_sync.stores.sql import SQLJobStore
from resumable_sync.testing import Ended, SyncProcesses
from trouble.disks import FAILURES, Failing, Limited, OnDisk, build

SINKS = ["store", "own"]
"""Store and target in one file, and in two."""
ERRORS = [errno.EIO, errno.ENOSPC]
BATCHES, BATCH_SIZE = 6, 6
PAGE = 4096


def program_in(folder: Path, sink: str) -> OnDisk:
    """Give the sync of six batches; its source lies elsewhere."""
    disk = folder / "disk"
    disk.mkdir()
    store = f"sqlite:///{disk}/store.db"
    return OnDisk(
        source=f"sqlite:///{folder}/source.db",
        store=store,
        target=store if sink == "store" else f"sqlite:///{disk}/target.db",
        sink=sink,
        rows=BATCHES * BATCH_SIZE,
        options={"batch_size": BATCH_SIZE},
        folder=disk,
        notes=folder / "calls",
    )


class Trial:
    """Runs a sync on a bad disk, judges what it leaves, and lets another process finish it on a good one."""

    def __init__(self, processes: SyncProcesses, program: OnDisk) -> None:
        self.outcomes: Counter[str] = Counter()
        self._processes, self._program = processes, program
        program.fill()

    def run(self, on_bad_disk: OnDisk) -> Ended:
        """Run it, from nothing, to its end."""
        for path in self._program.folder.iterdir():
            path.unlink()
        self.spoil()
        ended = self._end_of(on_bad_disk)
        self.repair()
        self.outcomes[ended.error or str(ended.status)] += 1
        said = f"{on_bad_disk}: {ended}\n{ended.trace}"
        if ended.how == "raised":
            assert ended.error in {"StoreError", "OperationalError"}, said
            assert repr(JOB_ID) in ended.trace, said
            assert "run again" in ended.trace or "call again" in ended.trace, said
        else:
            assert (ended.how, ended.status) == ("returned", "completed"), said
        self._check_files(said, exact=ended.how == "returned")
        finished = self._end_of(attrs.evolve(self._program, options=self._program.options | {"if_completed": "skip"}))
        assert (finished.how, finished.status) == ("returned", "completed"), (
            f"{finished}\n{finished.trace} after {said}"
        )
        self._check_files(said, exact=True)
        return ended

    def spoil(self) -> None:
        """Make the disk bad, where the process does not do that itself."""

    def repair(self) -> None:
        """Make the disk good again."""

    def _end_of(self, program: Program) -> Ended:
        process = self._processes.start(program.make)
        ended = process.wait(60)
        assert ended is not None, f"{program} did not end"
        return ended

    def _check_files(self, said: str, *, exact: bool) -> None:
        program = self._program
        for path in program.folder.glob("*.db"):
            with closing(sqlite3.connect(path)) as connection:
                assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)], said
        with SQLJobStore(program.store) as store:
            job = store.load(JOB_ID)
        rows = list(program.delivered())
        saved = 0 if job is None else job.processed_records
        assert rows == program.expected()[: len(rows)], said
        assert len(rows) % BATCH_SIZE == 0, said
        # In two files the target may be ahead: it keeps a checkpoint of its own.
        assert len(rows) == saved if program.sink == "store" else 0 <= len(rows) - saved <= BATCH_SIZE, said
        if exact:
            assert rows == program.expected(), said


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SyncProcesses]:
    """Processes whose disk can be made to fail."""
    library = build(tmp_path_factory.mktemp("library"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LD_PRELOAD", str(library))
        started = SyncProcesses()
        with started:
            patch.undo()
            yield started


@pytest.fixture(params=SINKS)
def program(request: pytest.FixtureRequest, tmp_path: Path) -> OnDisk:
    return program_in(tmp_path, request.param)


def failing(program: OnDisk, **how: Any) -> Failing:
    given = {field.name: getattr(program, field.name) for field in attrs.fields(OnDisk)}
    return Failing(**given, **how)


def count_calls(trial: Trial, program: OnDisk) -> int:
    """Give how many calls the sync makes when all of them succeed."""
    assert trial.run(failing(program)).status == "completed"
    calls = int(program.notes.read_text())
    if not calls:
        pytest.skip("this Python's SQLite does not call the C library's functions, so none of them can be made to fail")
    return calls


def test_some_calls_fail(processes: SyncProcesses, program: OnDisk) -> None:
    trial = Trial(processes, program)
    calls = count_calls(trial, program)
    assert calls > 5 * BATCHES
    step = calls // 10 + 1
    for number, at in enumerate(range(2, calls, step)):
        trial.run(failing(program, at=at, error=ERRORS[number % 2], failure=list(FAILURES)[number % 3]))
    assert trial.outcomes.keys() > {"completed"}


@pytest.mark.crash
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("error", ERRORS, ids=errno.errorcode.get)
def test_every_call_fails(processes: SyncProcesses, program: OnDisk, error: int, failure: str) -> None:
    trial = Trial(processes, program)
    calls = count_calls(trial, program)
    for at in range(1, calls + 1):
        trial.run(failing(program, at=at, error=error, failure=failure))
    print(f"{program.sink} {errno.errorcode[error]} {failure}: {calls} calls, {dict(trial.outcomes)}")
    assert trial.outcomes.keys() > {"completed"}


@pytest.mark.parametrize("step", [pytest.param(1, marks=[pytest.mark.crash, pytest.mark.timeout(3600)]), 5])
def test_files_that_may_not_grow(processes: SyncProcesses, program: OnDisk, step: int) -> None:
    trial = Trial(processes, program)
    given = {field.name: getattr(program, field.name) for field in attrs.fields(OnDisk)}
    for pages in range(0, 1_000, step):
        ended = trial.run(Limited(**given, size=pages * PAGE + pages % 3 * 1_000))
        if ended.how == "returned":
            break
    print(f"{program.sink} up to {pages} pages: {dict(trial.outcomes)}")
    assert trial.outcomes["completed"] == 1
    assert sum(trial.outcomes.values()) > 3


IN_A_SMALL_FILE_SYSTEM = """
import subprocess, sys
from pathlib import Path
from resumable_sync.testing import SyncProcesses
from trouble.test_disk import Trial, program_in

class Small(Trial):
    kilobytes = 0

    def resize(self, *options):
        subprocess.run(["mount", *options, "tmpfs", program.folder], check=True)

    def spoil(self):
        self.resize("-o", f"remount,size={self.kilobytes}k")

    def repair(self):
        self.resize("-o", "remount,size=16m")

program = program_in(Path(sys.argv[1]), sys.argv[2])
with SyncProcesses() as processes:
    trial = Small(processes, program)
    trial.resize("-t", "tmpfs", "-o", "size=16m")
    while "completed" not in trial.outcomes:
        trial.kilobytes += int(sys.argv[3])
        trial.run(program)
print(trial.kilobytes, dict(trial.outcomes))
"""


@pytest.mark.parametrize(
    ("sink", "step"),
    [
        pytest.param(SINKS[0], 96, marks=pytest.mark.crash),
        *(pytest.param(sink, 4, marks=[pytest.mark.crash, pytest.mark.timeout(3600)]) for sink in SINKS),
    ],
)
def test_a_file_system_that_is_full(tmp_path: Path, sink: str, step: int) -> None:
    # Nobody else sees what is mounted in a name space of its own, and it is gone with the process.
    apart = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]
    can = shutil.which("unshare") and shutil.which("mount")
    if not can or subprocess.run([*apart, "mount", "-t", "tmpfs", "tmpfs", tmp_path], check=False).returncode:
        pytest.skip("needs the right to mount a small file system, in a name space of its own")
    done = subprocess.run(
        [*apart, sys.executable, "-c", IN_A_SMALL_FILE_SYSTEM, tmp_path, sink, str(step)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
        timeout=3600,
        check=False,
    )
    print(sink, done.stdout)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "StoreError" in done.stdout
