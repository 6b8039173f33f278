"""Waits, in bounded time, for something that happens elsewhere."""

import time
from collections.abc import Callable
from typing import Any


def until(condition: Callable[[], Any], seconds: float = 60.0, *, otherwise: str = "it did not happen in time") -> None:
    """Ask again and again until it is so; after these seconds, fail with what `otherwise` says."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.002)
