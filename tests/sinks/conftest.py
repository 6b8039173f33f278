"""Targets for sinks: every database, each with the sink's own url and in the store's database."""

from collections.abc import Iterator
from typing import Any

import pytest

from sinks.driving import Target, open_target


@pytest.fixture(params=[False, True], ids=["store's", "own"])
def target(request: Any, database_url: str) -> Iterator[Target]:
    made = open_target(database_url, own=request.param)
    yield made
    made.engine.dispose()
