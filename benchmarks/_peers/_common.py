"""What the scripts of the peers share. They know nothing of the library: each runs in an environment of its own.

    python -m benchmarks._peers.with_pandas TASK SOURCE TARGET OPTIONS

TASK is `postgres`, `sqlite` or `parquet`; SOURCE and TARGET are `postgresql://` URLs or paths; OPTIONS is JSON. The
table `orders` is copied into one of that name, whose schema is in the list of sides in `benchmarks/peers.py`. The last
line printed is how many seconds the copy took, without the imports.
"""

import json
import sys
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

__all__ = ["BEGUN", "load", "main"]

BEGUN = "begun"
"""What is printed when everything is imported."""


def load(*modules: str) -> None:
    """Import what a copy would import while it runs, so that no side is measured with its imports."""
    for module in modules:
        import_module(module)


def main(**tasks: Callable[..., None]) -> None:
    """Do the task that the arguments name, and print how long it took.

    Args:
        tasks: For each name a function of source, target and the options.
    """
    task, source, target, options = sys.argv[1:]
    arguments: dict[str, Any] = json.loads(options)
    print(BEGUN, flush=True)
    begun = time.perf_counter()
    tasks[task](source, target, **arguments)
    print(json.dumps({"seconds": time.perf_counter() - begun}), flush=True)
