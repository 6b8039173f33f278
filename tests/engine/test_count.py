"""The total of a source is a convenience: it may be unknown."""

import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine

from doubles import Target
from resumable_sync import Batch, FullSync, JobStatus, MemoryJobStore, Page, run_full_sync
from resumable_sync.stores.sql import SQLJobStore


class Counted:
    fingerprint = None

    def __init__(self) -> None:
        self.began = threading.Event()

    def read(self, cursor: Any, batch_size: int) -> Iterator[Page[int]]:
        yield from (Page([number], [number]) for number in range(2))

    def count(self) -> int:
        self.began.set()
        return 2


def test_the_first_batch_has_the_source_to_itself(store: MemoryJobStore) -> None:
    connector = Counted()
    began = []

    def sink(batch: Batch[int]) -> None:
        began.append(connector.began.wait(5.0 if batch.sequence else 0.05))

    result = run_full_sync("j", connector, sink, store=store, batch_size=1)
    assert began == [False, True]
    assert result.job.total_records == 2


def test_one_batch_is_enough_to_be_counted(store: MemoryJobStore) -> None:
    connector = Counted()
    result = run_full_sync("j", connector, Target(), store=store, max_records=1)
    assert (result.status, result.job.processed_batches) == (JobStatus.INTERRUPTED, 1)
    assert connector.began.is_set()


def test_a_loop_that_was_left_is_not_counted(tmp_path: Path) -> None:
    connector = Counted()
    engine = create_engine(f"sqlite:///{tmp_path}/warehouse.db")
    with SQLJobStore(engine) as store, FullSync("j", connector, store=store) as sync:
        for batch in sync:
            with engine.begin() as connection:
                sync.commit(batch, connection)
            break
    engine.dispose()
    assert (sync.result.status, sync.result.batches) == (JobStatus.INTERRUPTED, 1)
    assert not connector.began.wait(0.05)


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
