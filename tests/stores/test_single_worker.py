"""`SingleWorkerJobStore`: what the base adds around two methods."""

import pickle
import threading
from datetime import datetime
from decimal import Decimal
from typing import Any

import attrs
import pytest
from typing_extensions import override

from resumable_sync._errors import ConfigurationError, JobHeldError, LeaseLostError, StateCorruptError
from resumable_sync._model import Job, JobStatus, Lease
from resumable_sync.stores.single_worker import SingleWorkerJobStore


class Rows(SingleWorkerJobStore):
    def __init__(self, rows: dict[str, Any]) -> None:
        self.rows = rows
        self.seen: list[Lease] = []

    @override
    def load(self, job_id: str) -> Job | None:
        value: Job | None = self.rows.get(job_id)
        return value

    @override
    def save(self, job: Job, lease: Lease) -> Lease:
        self.seen.append(lease)
        self.rows[job.id] = job
        return lease


def test_two_methods_are_enough() -> None:
    store = Rows({"job": Job(id="job", status=JobStatus.FAILED, processed_records=7)})
    lease = store.acquire("job", owner="one", ttl=60.0)
    job = store.load("job")
    assert job is not None
    assert (job.processed_records, job.lease) == (7, lease)
    saved = store.save(Job(id="job", processed_records=8), lease)
    assert saved.expires_at > lease.expires_at
    assert store.seen == [lease]
    store.request_stop("job")
    assert store.renew(lease, 60.0).stop_requested
    store.release(lease)
    assert [job.processed_records for job in store.jobs()] == [8]


def test_what_save_returns_does_not_matter() -> None:
    class Untyped(Rows):
        @override
        def save(self, job: Job, lease: Lease) -> Any:
            super().save(job, lease)

    store = Untyped({})
    assert store.save(Job(id="job"), store.acquire("job", owner="one", ttl=60.0)).owner == "one"


def test_one_of_them_is_not_enough() -> None:
    class OnlyLoad(SingleWorkerJobStore):
        @override
        def load(self, job_id: str) -> Job | None:
            return None

    with pytest.raises(TypeError, match="save"):
        OnlyLoad()  # type: ignore[abstract]


def test_a_late_writer_does_not_reach_the_table() -> None:
    store = Rows({})
    old = store.acquire("job", owner="one", ttl=60.0)
    store.acquire("job", owner="two", ttl=60.0, replacing=old.fencing_token)
    with pytest.raises(LeaseLostError):
        store.save(Job(id="job", processed_records=1), old)
    assert store.rows == {}


def test_nobody_acquires_while_a_save_runs() -> None:
    saving, go_on = threading.Event(), threading.Event()

    class Slow(Rows):
        @override
        def save(self, job: Job, lease: Lease) -> Lease:
            saving.set()
            assert go_on.wait(30)
            return super().save(job, lease)

    store = Slow({})
    lease = store.acquire("job", owner="one", ttl=0.01)
    outcome: list[BaseException] = []

    def successor() -> None:
        try:
            store.acquire("job", owner="two", ttl=60.0)
        except JobHeldError as error:
            outcome.append(error)

    writer = threading.Thread(target=lambda: store.save(Job(id="job"), store.renew(lease, 60.0)))
    writer.start()
    assert saving.wait(30)
    taker = threading.Thread(target=successor)
    taker.start()
    assert taker.is_alive()
    go_on.set()
    writer.join()
    taker.join()
    assert len(outcome) == 1
    assert set(store.rows) == {"job"}


def test_errors_of_the_table_arrive_as_they_are() -> None:
    error = RuntimeError("the table is gone")

    class Broken(SingleWorkerJobStore):
        @override
        def load(self, job_id: str) -> Job | None:
            raise error

        @override
        def save(self, job: Job, lease: Lease) -> Lease:
            raise error

    store = Broken()
    lease = store.acquire("job", owner="one", ttl=60.0)
    with pytest.raises(RuntimeError) as caught:
        store.load("job")
    assert caught.value is error
    with pytest.raises(RuntimeError) as caught:
        store.save(Job(id="job"), lease)
    assert caught.value is error
    assert store.renew(lease, 60.0).fencing_token == lease.fencing_token


@pytest.mark.parametrize("value", [{"id": "job"}, "job", 5])
def test_a_load_that_gives_no_job(value: Any) -> None:
    with pytest.raises(ConfigurationError, match="give a Job or None"):
        Rows({"job": value}).load("job")


def test_a_status_of_the_table() -> None:
    store = Rows({"job": Job(id="job", status="completed"), "odd": Job(id="odd", status="done")})  # type: ignore[arg-type]
    job = store.load("job")
    assert job is not None
    assert job.status is JobStatus.COMPLETED
    with pytest.raises(StateCorruptError) as caught:
        store.load("odd")
    assert (caught.value.job_id, caught.value.field) == ("odd", "status")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("processed_records", value) for value in (None, "1200", -5, True, 7.0, Decimal(7))),
        *((field, "1") for field in ("run", "attempt", "processed_batches", "dead_letters", "stalled_attempts")),
        *((field, value) for field in ("total_records", "batch_size") for value in ("1200", -1, True, 7.5)),
        *((field, 5) for field in ("run_id", "fingerprint", "error")),
        *((field, "2026-01-31") for field in ("created_at", "started_at", "updated_at", "finished_at")),
        ("updated_at", datetime(2026, 1, 31)),  # noqa: DTZ001 - without a time zone is what it shows
        ("cursor", {1, 2}),
        ("id", "JOB"),
        ("id", None),
    ],
)
def test_a_field_of_the_table_that_cannot_be_one(field: str, value: Any) -> None:
    damaged = attrs.evolve(Job(id="job", status=JobStatus.FAILED), **{field: value})
    store = Rows({"job": damaged})
    with pytest.raises(StateCorruptError) as caught:
        store.load("job")
    assert (caught.value.job_id, caught.value.field) == ("job", field)
    assert store.rows["job"] is damaged


def test_delete_asks_to_be_written() -> None:
    with pytest.raises(ConfigurationError, match="override delete"):
        Rows({}).delete("job")


def test_leases_do_not_travel() -> None:
    store = Rows({"job": Job(id="job")})
    store.acquire("job", owner="one", ttl=60.0)
    copy = pickle.loads(pickle.dumps(store))
    assert copy.load("job").lease is None
    assert copy.acquire("job", owner="two", ttl=60.0).owner == "two"
