"""What observers are told and the log says."""

import logging

import pytest
from typing_extensions import override

from doubles import Numbers, Target
from resumable_sync import BatchCommitted, Event, MemoryJobStore, SyncFinished, SyncStarted, run_full_sync


def test_observers_are_told_in_order_and_never_matter(store: MemoryJobStore, caplog: pytest.LogCaptureFixture) -> None:
    events: list[Event] = []
    calls: list[Event] = []

    def broken(event: Event) -> None:
        calls.append(event)
        raise RuntimeError("observer")

    run_full_sync("j", Numbers(25), Target(), store=store, batch_size=10, observers=[broken, events.append])
    assert [type(event) for event in events] == [
        SyncStarted,
        BatchCommitted,
        BatchCommitted,
        BatchCommitted,
        SyncFinished,
    ]
    assert len(calls) == 1
    assert "observer" in caplog.text


def test_a_failing_count_is_a_warning(store: MemoryJobStore, caplog: pytest.LogCaptureFixture) -> None:
    class Uncountable(Numbers):
        @override
        def count(self) -> int | None:
            raise OSError("password=hunter2")

    assert run_full_sync("j", Uncountable(10), Target(), store=store).status == "completed"
    assert "could not be counted" in caplog.text
    assert "hunter2" not in caplog.text


def test_fewer_records_than_counted_is_a_warning(store: MemoryJobStore, caplog: pytest.LogCaptureFixture) -> None:
    class Shrinking(Numbers):
        @override
        def count(self) -> int | None:
            return 12

    run_full_sync("j", Shrinking(10), Target(), store=store)
    assert "10 records although 12" in caplog.text


def test_the_decision_is_one_line_of_the_log(store: MemoryJobStore, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "resumable_sync"):
        run_full_sync("a\nb", Numbers(10), Target(), store=store)
    line = caplog.messages[0]
    assert "\n" not in line
    assert all(word in line for word in ("'a\\nb'", "new", "record 0", "at_least_once"))
