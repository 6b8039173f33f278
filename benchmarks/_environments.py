"""Environments of the peers: one for each group `peer-*` of pyproject.toml, so that none depends on another's versions.

    nox -s peers            # makes them, in .nox/peers; `nox -s bench` does too, where they are needed

`RESUMABLE_SYNC_BENCH_PEERS` names another folder.
"""

import os
from pathlib import Path

from benchmarks._common import HERE

__all__ = ["FOLDER", "executable", "versions"]

TOOLS = ("connectorx", "dlt", "duckdb", "meltanolabs", "pandas", "petl", "singer_sdk", "sling")
FOLDER = Path(os.environ.get("RESUMABLE_SYNC_BENCH_PEERS", HERE.parent / ".nox" / "peers"))


def executable(peer: str, pattern: str) -> str:
    """Give a program of a peer's environment, or an empty text if there is none.

    Args:
        peer: Which environment.
        pattern: Where it is in there, as for `glob`.
    """
    return next(map(str, sorted((FOLDER / peer).glob(pattern))), "")


def versions() -> dict[str, str]:
    """Give the version of each tool that has an environment."""
    found = (path.name.removesuffix(".dist-info") for path in FOLDER.glob("*/lib/python*/site-packages/*.dist-info"))
    every = (name.rpartition("-") for name in found)
    return {name: version for name, _, version in sorted(every) if name.startswith(TOOLS)}
