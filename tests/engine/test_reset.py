"""A reset job starts over: never one that is at work, and with nothing left of the run before but its number."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, inspect, text
from typing_extensions import override

from doubles import Numbers, Picky, Target, delivered, fail_at, saved
from resumable_sync import (
    ConfigurationError,
    CrashLoopError,
    FullSync,
    Job,
    JobHeldError,
    JobStatus,
    JobStore,
    Lease,
    LeaseLostError,
    MemoryJobStore,
    SingleWorkerJobStore,
    SourceChangedError,
    StateCorruptError,
    plan_full_sync,
    reset_job,
    run_full_sync,
)
from resumable_sync.sinks.sql import SQLSink
from resumable_sync.stores.sql import SQLJobStore
from resumable_sync.testing import FaultyStore, lose_answer


class Minimal(SingleWorkerJobStore):
    """A table with an id, a status and a number."""

    def __init__(self) -> None:
        self.rows: dict[str, tuple[JobStatus, int]] = {}

    @override
    def load(self, job_id: str) -> Job | None:
        row = self.rows.get(job_id)
        return row and Job(id=job_id, status=row[0], processed_records=row[1])

    @override
    def save(self, job: Job, lease: Lease) -> Lease:
        self.rows[job.id] = job.status, job.processed_records
        return lease


@pytest.fixture(params=["memory", "single worker", "sqlite", "postgresql", "mariadb"])
def store(request: pytest.FixtureRequest, new_database: Any) -> Iterator[JobStore]:
    if request.param == "memory":
        yield MemoryJobStore()
    elif request.param == "single worker":
        yield Minimal()
    else:
        with SQLJobStore(new_database(request.param)) as made:
            yield made


@pytest.fixture
def sql_store(engine: Engine) -> Iterator[SQLJobStore]:
    with SQLJobStore(engine) as made:
        yield made


def check_new(store: JobStore, connector: Any, run: int) -> None:
    """See that the next call starts at the beginning, and let it."""
    plan = plan_full_sync("j", connector, Target(), store=store)
    assert (plan.action, plan.cursor, plan.processed_records) == ("new", None, 0)
    target = Target()
    result = run_full_sync("j", connector, target, store=store, batch_size=10)
    assert (result.action, result.status, target.records) == ("new", "completed", list(range(connector.total)))
    if not isinstance(store, Minimal):
        assert (result.job.run, result.job.attempt) == (run, 1)


@pytest.mark.parametrize("left", ["interrupted", "failed", "completed", "untouched"])
def test_a_reset_job_is_new(store: JobStore, left: str) -> None:
    if left == "untouched":
        store.release(store.acquire("j", owner="one", ttl=60.0))
    elif left == "failed":
        with pytest.raises(ValueError, match="no"):
            run_full_sync("j", Numbers(50), Target(fail_at(2, ValueError("no"))), store=store, batch_size=10)
    else:
        run_full_sync(
            "j", Numbers(50), Target(), store=store, batch_size=10, max_records=20 if left[0] == "i" else None
        )
    before = store.load("j")
    for _ in range(2):
        job = reset_job("j", store=store)
        assert job == Job(id="j", run=job.run, created_at=job.created_at)
        if before is not None and not isinstance(store, Minimal):
            assert (job.run, job.created_at) == (before.run, before.created_at)
        assert saved(store) == job
    check_new(store, Numbers(30), 1 if left == "untouched" else 2)


def test_a_new_run_is_another_run(store: JobStore) -> None:
    if isinstance(store, Minimal):
        pytest.skip("the table does not keep the run")
    first = run_full_sync("j", Numbers(50), Target(), store=store, batch_size=10, max_records=20).job
    reset_job("j", store=store)
    second = run_full_sync("j", Numbers(50), Target(), store=store).job
    assert (first.run, second.run) == (1, 2)
    assert first.run_id != second.run_id


def test_an_unknown_job_is_refused(store: JobStore) -> None:
    with pytest.raises(ConfigurationError, match="there is no job 'j'"):
        reset_job("j", store=store)
    assert store.load("j") is None
    with pytest.raises(ConfigurationError):
        reset_job("", store=store)


def test_a_job_at_work_is_not_reset(store: JobStore) -> None:
    with FullSync("j", Numbers(50), store=store, batch_size=10) as sync:
        for batch in sync:
            with pytest.raises(JobHeldError) as caught:
                reset_job("j", store=store)
            assert caught.value.job_id == "j"
            assert saved(store).processed_records == batch.sequence * 10
    assert sync.result.status == "completed"


def test_what_kept_it_from_going_on_is_gone(sql_store: SQLJobStore) -> None:
    """A source that changed, a crash loop, and dead letters."""
    run_full_sync("j", Numbers(50, "one"), Target(), store=sql_store, batch_size=10, max_records=20)
    with pytest.raises(SourceChangedError):
        run_full_sync("j", Numbers(50, "two"), Target(), store=sql_store)
    reset_job("j", store=sql_store)
    check_new(sql_store, Numbers(50, "two"), 2)
    reset_job("j", store=sql_store)
    lease = sql_store.acquire("j", owner="one", ttl=60.0)
    sql_store.save(Job(id="j", status=JobStatus.RUNNING, run=2, cursor=[1], stalled_attempts=5), lease)
    sql_store.release(lease)
    with pytest.raises(CrashLoopError, match="reset_job"):
        run_full_sync("j", Numbers(50), Target(), store=sql_store)
    reset_job("j", store=sql_store)
    check_new(sql_store, Numbers(50), 3)


def test_dead_letters_go_and_the_lineage_stays(sql_store: SQLJobStore, engine: Engine) -> None:
    options: Any = {"store": sql_store, "batch_size": 10, "on_refused": "dead_letter"}
    result = run_full_sync("j", Numbers(50), Picky(3, 4), **options)
    assert result.job.dead_letters == len(list(sql_store.dead_letters("j"))) == 2
    lineage = list(sql_store.attempts("j"))
    assert [one.outcome for one in lineage] == ["incomplete"]
    assert reset_job("j", store=sql_store).dead_letters == 0
    assert list(sql_store.dead_letters("j")) == []
    assert list(sql_store.attempts("j")) == lineage
    assert run_full_sync("j", Numbers(50), Picky(), **options).status == "completed"
    assert [(one.run, one.outcome) for one in sql_store.attempts("j")] == [(1, "incomplete"), (2, "completed")]
    assert delivered(engine) == sorted([*range(50), *(set(range(50)) - {3, 4})])


@pytest.mark.parametrize("call", ["acquire", "purge_dead_letters", "save", "commit", "release"])
def test_a_lost_answer(sql_store: SQLJobStore, call: str) -> None:
    run_full_sync("j", Numbers(50), Target(), store=sql_store, batch_size=10, max_records=20)
    job = reset_job("j", store=FaultyStore(sql_store, [lose_answer(call)]))
    assert saved(sql_store) == job
    check_new(sql_store, Numbers(50), 2)


def test_a_zombie_writes_nothing_after_a_reset(sql_store: SQLJobStore, engine: Engine) -> None:
    job = Job(id="")
    with pytest.raises(LeaseLostError), FullSync("j", Numbers(50), store=sql_store, batch_size=10) as sync:
        for batch in sync:
            if batch.sequence == 2:
                with engine.begin() as connection:
                    connection.execute(text("UPDATE resumable_sync_jobs SET lease_expires_at = 1"))
                job = reset_job("j", store=sql_store)
            with engine.begin() as connection:
                connection.execute(text("INSERT INTO numbers VALUES (:n)"), [{"n": number} for number in batch.records])
                sync.commit(batch, connection)
    assert saved(sql_store) == job
    assert delivered(engine) == list(range(20))
    assert [one.outcome for one in sql_store.attempts("j")] == ["died"]


HOLD = """
import sys
from resumable_sync._attempts.host import new_owner
from resumable_sync.stores.sql import SQLJobStore
SQLJobStore(sys.argv[1]).acquire("j", owner=new_owner(), ttl=600.0)
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc to see that a process is gone")
def test_a_dead_owner_on_this_host_is_taken_over_from(sqlite_url: str) -> None:
    with SQLJobStore(sqlite_url) as store:
        run_full_sync("j", Numbers(50), Target(), store=store, batch_size=10, max_records=20)
        subprocess.run([sys.executable, "-c", HOLD, sqlite_url], check=True, timeout=60)
        assert saved(store).lease is not None
        reset_job("j", store=store)
        check_new(store, Numbers(50), 2)


def test_a_damaged_job_is_left_as_it_is(sql_store: SQLJobStore, engine: Engine) -> None:
    run_full_sync("j", Numbers(50), Target(), store=sql_store, batch_size=10, max_records=20)
    with engine.begin() as connection:
        connection.execute(text("UPDATE resumable_sync_jobs SET status = 'done'"))
    with pytest.raises(StateCorruptError):
        reset_job("j", store=sql_store)


def test_the_default_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESUMABLE_SYNC_STORE", f"sqlite:///{tmp_path}/jobs.db")
    run_full_sync("j", Numbers(50), Target(), batch_size=10, max_records=20)
    assert reset_job("j").status == "pending"


class Rows(Numbers):
    """Numbers as rows."""

    def rows(self, offset: int, limit: int) -> list[dict[str, int]]:
        return [{"n": number} for number in super().fetch(offset, limit)]

    fetch: Any = rows


@pytest.mark.parametrize("mode", ["replace", "append in another database"])
def test_sinks_that_keep_something_take_it_for_a_new_run(engine: Engine, sqlite_url: str, mode: str) -> None:
    url = engine.url.render_as_string(hide_password=False)
    sink = SQLSink("numbers", mode="replace") if mode == "replace" else SQLSink("numbers", mode="append", url=url)
    before = set(inspect(engine).get_table_names())
    with SQLJobStore(url if mode == "replace" else sqlite_url) as store:
        run_full_sync("j", Rows(50), sink, store=store, batch_size=10, max_records=20)
        reset_job("j", store=store)
        result = run_full_sync("j", Rows(30), sink, store=store, batch_size=7)
        assert (result.action, result.status, result.records) == ("new", "completed", 30)
    gone_before = [] if mode == "replace" else list(range(20))
    assert delivered(engine) == sorted([*gone_before, *range(30)])
    known = {
        f"resumable_sync_{name}"
        for name in ("jobs", "dead_letters", "attempts", "history", "meta", "staging", "checkpoints")
    }
    assert set(inspect(engine).get_table_names()) - before <= known
