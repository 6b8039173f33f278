"""A lock on a file that a frozen process cannot keep for ever."""

import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path

__all__ = ["LOCK_TIMEOUT", "Lock", "sync_to_disk"]

LOCK_TIMEOUT = 10.0
"""Seconds that a lock is waited for; whoever holds it longer is frozen."""

_POLL = 0.01


class Lock:
    """Held by one process of a host at a time; the kernel releases it when that dies.

    Args:
        path: Its file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._held: int | None = None

    def acquire(self, left_behind: Callable[[], object]) -> None:
        """Wait for the lock; after ten seconds take it away from whoever holds it.

        Args:
            left_behind: Is called once the lock was taken away, to take away too what its holder may still write to.
        """
        waited_for, deadline = -1, 0.0
        while self._held is None:
            descriptor = _open(self._path)
            try:
                if _locked(descriptor):
                    if _is_at(descriptor, self._path):
                        self._held, descriptor = descriptor, -1
                    continue
                holder, now = os.fstat(descriptor).st_ino, time.monotonic()
                if holder != waited_for:
                    waited_for, deadline = holder, now + LOCK_TIMEOUT
                elif now > deadline and self._replace(descriptor):
                    left_behind()
                    return
            finally:
                if descriptor >= 0:
                    os.close(descriptor)
            time.sleep(_POLL)

    def _replace(self, old: int) -> bool:
        """Put another file in the place of the locked one, and hold that."""
        new = self._path.with_name(f"lock.{os.getpid()}")
        descriptor = _open(new)
        if _locked(descriptor) and _is_at(old, self._path):
            new.replace(self._path)
            self._held = descriptor
            return True
        os.close(descriptor)
        return False

    @property
    def held(self) -> bool:
        """Whether it is held, and was not taken away."""
        return self._held is not None and _is_at(self._held, self._path)

    def release(self) -> None:
        """Give it back."""
        held, self._held = self._held, None
        if held is not None:
            os.close(held)


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(descriptor), there)


def sync_to_disk(path: Path) -> None:
    """Have a file, or the names in a folder, on disk when this returns."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
