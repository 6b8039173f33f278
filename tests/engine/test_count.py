"""The total of a source is a convenience: it may be unknown."""

import logging

import pytest

from doubles import Pages, Target
from resumable_sync import MemoryJobStore, Page, run_full_sync


def test_without_count_the_total_is_unknown_and_nothing_is_said(
    store: MemoryJobStore, caplog: pytest.LogCaptureFixture
) -> None:
    connector = Pages(Page([1], [1]))
    assert not hasattr(connector, "count")
    with caplog.at_level(logging.WARNING, "resumable_sync"):
        result = run_full_sync("j", connector, Target(), store=store)
    assert result.job.total_records is None
    assert caplog.messages == []
