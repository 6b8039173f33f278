"""Log records with fields."""

import json
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from doubles import FAST, Numbers, Target, fail_at
from resumable_sync import MemoryJobStore, TransientError, run_full_sync, run_partitioned_sync
from resumable_sync.observers.log import StructuredLog

USUAL = set(vars(logging.makeLogRecord({}))) | {"message", "taskName"}
JOB = {"event", "job_id", "run", "attempt", "status", "processed_records", "dead_letters", "total_records"}


def fields(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in USUAL}


def test_every_event_is_logged_with_its_facts(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "resumable_sync.events")
    sink = Target(fail_at(1, TransientError("password=hunter2")))
    run_full_sync(
        "numbers", Numbers(20), sink, store=MemoryJobStore(), batch_size=10, retry=FAST, observers=[StructuredLog()]
    )
    records = [record for record in caplog.records if record.name == "resumable_sync.events"]
    told = [fields(record) for record in records]
    assert [record.levelname for record in records] == ["INFO", "DEBUG", "WARNING", "DEBUG", "INFO"]
    started, first, failed, second, finished = told
    assert set(started) == JOB | {"action", "reason", "guarantee", "format", "durability"}
    assert (started["action"], started["job_id"], started["attempt"]) == ("new", "numbers", 1)
    assert set(first) == JOB | {"sequence", "records", "read_seconds", "write_seconds", "commit_seconds"}
    assert 0 < second["commit_seconds"] <= second["write_seconds"]
    assert (second["sequence"], second["records"], second["processed_records"]) == (1, 10, 20)
    assert set(failed) == {"event", "job_id", "call", "tries", "wait_seconds", "error"}
    assert (failed["call"], failed["error"]) == ("write", "TransientError: password=***")
    assert set(finished) == JOB | {"action", "records", "batches", "seconds", "reason", "guarantee", "format", "error"}
    assert (finished["event"], finished["status"], finished["records"]) == ("sync_finished", "completed", 20)
    assert json.loads(json.dumps(told)) == told


def test_a_failure_is_a_warning_with_its_error(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "mine")
    observer = StructuredLog(logging.getLogger("mine"))
    with pytest.raises(OSError, match="gone"):
        run_full_sync(
            "numbers", Numbers(20), Target(fail_at(0, OSError("gone"))), store=MemoryJobStore(), observers=[observer]
        )
    last = [record for record in caplog.records if record.name == "mine"][-1]
    assert (last.levelname, fields(last)["error"]) == ("WARNING", "OSError: gone")


def test_the_progress_of_parts_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "resumable_sync.events")
    store = MemoryJobStore()
    with ThreadPoolExecutor(2) as executor:
        run_partitioned_sync(
            "numbers", Numbers(20), lambda _: None, store=store, executor=executor, parts=4, observers=[StructuredLog()]
        )
    told = [fields(record) for record in caplog.records if record.name == "resumable_sync.events"]
    (*_, progressed, _) = told
    assert set(progressed) == JOB | {"parts_completed", "parts"}
    assert (progressed["parts_completed"], progressed["parts"], progressed["processed_records"]) == (4, 4, 20)
