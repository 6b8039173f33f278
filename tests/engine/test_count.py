"""The total of a source is a convenience: it may be unknown."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from doubles import Target
from resumable_sync import MemoryJobStore, Page, run_full_sync


class Uncounted:
    fingerprint = None

    def read(self, cursor: Any, batch_size: int) -> Iterator[Page[int]]:
        yield Page([1], [1])


def test_without_count_the_total_is_unknown_and_nothing_is_said(
    store: MemoryJobStore, caplog: pytest.LogCaptureFixture
) -> None:
    connector: Any = Uncounted()
    with caplog.at_level(logging.WARNING, "resumable_sync"):
        result = run_full_sync("j", connector, Target(), store=store)
    assert result.job.total_records is None
    assert caplog.messages == []
