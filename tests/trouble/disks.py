"""Syncs into SQLite files on a disk that fails: the library that is preloaded for that, and how a child arms it."""

import ctypes
import errno
import os
import resource
import shutil
import subprocess
from pathlib import Path
from typing import Any

import attrs
import pytest
from typing_extensions import override

from crash.programs import Program
from resumable_sync import run_full_sync
from resumable_sync.testing import SyncParts

FAILURES = {"once": 0, "lasting": 1, "torn": 2}


def build(folder: Path) -> Path:
    """Compile the library; skips the test where that cannot be done."""
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if compiler is None:
        pytest.skip("needs a C compiler, to let the disk fail")
    library = folder / "faulty_disk.so"
    source = Path(__file__).with_name("faulty_disk.c")
    command = [compiler, "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        pytest.skip(f"the library that lets the disk fail cannot be compiled here: {done.stderr[-500:]}")
    return library


@attrs.frozen(kw_only=True)
class OnDisk(Program):
    """A sync whose store and target lie in one folder.

    Attributes:
        folder: The folder.
        notes: Where the child writes how many calls it made.
    """

    folder: Path
    notes: Path

    @override
    def make(self) -> SyncParts:
        """Give the parts, in the child."""
        return attrs.evolve(super().make(), run=self.run)

    def run(self, *arguments: Any, **options: Any) -> Any:
        """Run the sync with whatever is wrong with its disk."""
        return run_full_sync(*arguments, **options)


@attrs.frozen(kw_only=True)
class Failing(OnDisk):
    """... on a disk of which a call fails.

    Attributes:
        at: Which call, from 1; 0 is none.
        error: Its error.
        failure: `"once"`, `"lasting"` (every later one fails too), or `"torn"` (half of the write is done before).
    """

    at: int = 0
    error: int = errno.EIO
    failure: str = "lasting"

    @override
    def run(self, *arguments: Any, **options: Any) -> Any:
        """Run the sync, and note how many calls it made."""
        library = ctypes.CDLL(None)
        library.disk_arm(os.fsencode(f"{self.folder}/"), ctypes.c_long(self.at), self.error, FAILURES[self.failure])
        try:
            return super().run(*arguments, **options)
        finally:
            library.disk_calls.restype = ctypes.c_long
            self.notes.write_text(str(library.disk_calls()))


@attrs.frozen(kw_only=True)
class Limited(OnDisk):
    """... with files that may not grow beyond a size.

    Attributes:
        size: Bytes.
    """

    size: int

    @override
    def run(self, *arguments: Any, **options: Any) -> Any:
        """Run the sync."""
        # Python ignores the signal that comes with it, so that the write fails.
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.size, resource.RLIM_INFINITY))
        return super().run(*arguments, **options)
