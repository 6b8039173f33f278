"""`FullSync`: the loop in the caller's hands, on a real database."""

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, create_engine, text
from typing_extensions import override

from doubles import Numbers, saved
from resumable_sync import (
    Batch,
    ConfigurationError,
    FullSync,
    Guarantee,
    JobHeldError,
    LeaseLostError,
    MemoryJobStore,
    _lease,
    transactional,
)
from resumable_sync.stores.sql import SQLJobStore


@pytest.fixture
def store(engine: Engine) -> Iterator[SQLJobStore]:
    with SQLJobStore(engine) as made:
        yield made


def insert(connection: Connection, batch: Batch[int]) -> None:
    connection.execute(text("INSERT INTO numbers VALUES (:n)"), [{"n": n} for n in batch.records])


def delivered(engine: Engine) -> list[int]:
    with engine.connect() as connection:
        return sorted(connection.execute(text("SELECT n FROM numbers")).scalars())


def test_a_batch_is_committed_when_the_next_one_is_asked_for(store: SQLJobStore) -> None:
    seen: list[int] = []
    with FullSync("j", Numbers(50), store=store, batch_size=10) as sync:
        for batch in sync:
            seen.append(saved(store).processed_records)
            assert sync.job.processed_records == seen[-1]
            assert len(batch) == 10
    assert seen == [0, 10, 20, 30, 40]
    assert (sync.result.status, sync.result.records, sync.result.guarantee) == (
        "completed",
        50,
        Guarantee.AT_LEAST_ONCE,
    )


def test_leaving_the_loop_interrupts_and_the_batch_in_hand_comes_again(store: SQLJobStore) -> None:
    with FullSync("j", Numbers(50), store=store, batch_size=10) as sync:
        for batch in sync:
            if batch.sequence == 2:
                break
    assert (sync.result.status, saved(store).cursor) == ("interrupted", [20])
    with FullSync("j", Numbers(50), store=store, batch_size=10) as sync:
        for batch in sync:
            sync.commit(batch)
            sync.commit(batch)
            break
    assert (sync.result.status, saved(store).cursor, sync.result.action) == ("interrupted", [30], "resume")


def test_an_exception_in_the_loop_fails_the_job_before_its_batch(store: SQLJobStore) -> None:
    with (
        pytest.raises(ValueError, match="no") as caught,
        FullSync("j", Numbers(50), store=store, batch_size=10) as sync,
    ):
        for batch in sync:
            if batch.sequence == 2:
                raise ValueError("no")
    assert (saved(store).status, saved(store).cursor) == ("failed", [20])
    assert "batch 2" in caught.value.__notes__[0]


def test_rows_and_checkpoint_commit_together(store: SQLJobStore, engine: Engine) -> None:
    for attempt in range(4):
        try:
            with FullSync("j", Numbers(50), store=store, batch_size=10) as sync:
                for batch in sync:
                    with engine.begin() as connection:
                        insert(connection, batch)
                        sync.commit(batch, connection)
                        if batch.sequence == attempt:
                            raise ValueError("rolled back")
        except ValueError:
            assert saved(store).processed_records == len(delivered(engine)) == attempt * 10
    assert delivered(engine) == list(range(50)) or saved(store).status == "failed"
    with FullSync("j", Numbers(50), store=store, batch_size=10) as sync:
        for batch in sync:
            with engine.begin() as connection:
                insert(connection, batch)
                sync.commit(batch, connection)
    assert delivered(engine) == list(range(50))
    assert (sync.result.status, sync.result.guarantee) == ("completed", Guarantee.EXACTLY_ONCE)


def test_several_batches_in_one_transaction(store: SQLJobStore, engine: Engine) -> None:
    with FullSync("j", Numbers(50), store=store, batch_size=10) as sync:
        with engine.begin() as connection:
            for batch in sync:
                insert(connection, batch)
                sync.commit(batch, connection)
                assert sync.job.processed_records == 0
        assert saved(store).processed_records == 50
    assert (sync.result.status, sync.result.records) == ("completed", 50)
    assert delivered(engine) == list(range(50))


def test_a_process_that_slept_in_its_own_transaction_does_not_wait_for_itself(
    store: SQLJobStore, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It asked the store for its lease on another connection, which its own transaction kept out until that gave up."""
    now = [1000.0]
    monkeypatch.setattr(_lease, "time", SimpleNamespace(monotonic=lambda: now[0]))
    with FullSync("j", Numbers(20), store=store, batch_size=10, lease_ttl=60) as sync, engine.begin() as connection:
        for batch in sync:
            insert(connection, batch)
            now[0] += 100
            sync.commit(batch, connection)
    assert (sync.result.status, delivered(engine)) == ("completed", list(range(20)))


def test_one_that_was_overtaken_in_its_sleep_cannot_commit(
    store: SQLJobStore, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(_lease, "time", SimpleNamespace(monotonic=lambda: now[0]))
    with (
        pytest.raises(LeaseLostError),
        FullSync("j", Numbers(20), store=store, batch_size=10, lease_ttl=60) as sync,
    ):
        for batch in sync:
            held = saved(store).lease
            assert held is not None
            store.acquire("j", owner="successor", ttl=60, replacing=held.fencing_token)
            now[0] += 100
            with engine.begin() as connection:
                insert(connection, batch)
                sync.commit(batch, connection)
    assert delivered(engine) == []


def test_a_transaction_that_was_rolled_back_quietly_is_found_out(store: SQLJobStore, engine: Engine) -> None:
    with (
        pytest.raises(ConfigurationError, match="not committed"),
        FullSync("j", Numbers(50), store=store, batch_size=10) as sync,
    ):
        for batch in sync:
            with engine.connect() as connection:
                insert(connection, batch)
                sync.commit(batch, connection)
                connection.rollback()
    assert saved(store).processed_records == len(delivered(engine)) == 0
    assert saved(store).status == "failed"


def test_a_transaction_that_is_still_open_at_the_end_is_an_error(store: SQLJobStore, engine: Engine) -> None:
    with engine.connect() as connection:
        with (
            pytest.raises(ConfigurationError, match="still open"),
            FullSync("j", Numbers(10), store=store, batch_size=10) as sync,
        ):
            for batch in sync:
                insert(connection, batch)
                sync.commit(batch, connection)
        connection.rollback()
    assert delivered(engine) == []


def test_commit_refuses_what_is_not_in_hand(store: SQLJobStore, engine: Engine, tmp_path: Any) -> None:
    elsewhere = create_engine(f"sqlite:///{tmp_path / 'elsewhere.db'}")
    with FullSync("j", Numbers(50), store=store, batch_size=10) as sync:
        for batch in sync:
            with elsewhere.begin() as connection, pytest.raises(ConfigurationError):
                sync.commit(batch, connection)
            break
    with FullSync("k", Numbers(50), store=store, batch_size=10) as other:
        for _ in other:
            with pytest.raises(ConfigurationError, match="not in hand"):
                other.commit(batch)
            break
    elsewhere.dispose()


def test_a_full_sync_is_used_once_and_inside_its_block(store: SQLJobStore) -> None:
    sync = FullSync("j", Numbers(5), store=store)
    with pytest.raises(ConfigurationError, match="with block"):
        list(sync)
    with pytest.raises(ConfigurationError, match="with block"):
        _ = sync.result
    with pytest.raises(ConfigurationError, match="with block"):
        _ = sync.job
    with pytest.raises(ConfigurationError, match="with block"):
        sync.commit(batch())
    with sync:
        with pytest.raises(ConfigurationError, match="ended"):
            _ = sync.result
        assert len(list(sync)) == 1
        assert list(sync) == []
        with pytest.raises(ConfigurationError, match="not in hand"):
            sync.commit("batch")  # type: ignore[arg-type]
    assert sync.job == sync.result.job
    with pytest.raises(ConfigurationError, match="with block"):
        list(sync)
    with pytest.raises(ConfigurationError, match="new one"), sync:
        pass


def test_nothing_to_do_is_an_empty_loop(store: SQLJobStore) -> None:
    with FullSync("j", Numbers(5), store=store) as sync:
        assert len(list(sync)) == 1
    with FullSync("j", Numbers(5), store=store, if_completed="skip") as sync:
        batches = list(sync)
    assert (batches, sync.result.action) == ([], "skip")


def test_a_store_without_transactions_cannot_take_part(engine: Engine) -> None:
    with (
        pytest.raises(ConfigurationError, match="transactional store"),
        FullSync("j", Numbers(5), store=MemoryJobStore()) as sync,
    ):
        for batch in sync:
            with engine.begin() as connection:
                sync.commit(batch, connection)


def test_the_default_store_is_a_file_in_the_working_directory(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RESUMABLE_SYNC_STORE", raising=False)
    with FullSync("j", Numbers(5)) as sync:
        assert len(list(sync)) == 1
    assert (tmp_path / "resumable_sync.db").exists()


def test_the_second_one_is_kept_out(store: SQLJobStore) -> None:
    with FullSync("j", Numbers(5), store=store) as sync:
        for _ in sync:
            with pytest.raises(JobHeldError), FullSync("j", Numbers(5), store=store):
                pass
    assert sync.result.status == "completed"


def sync_in_the_sink(store: SQLJobStore) -> Callable[[Batch[int], Connection], None]:
    def write(batch: Batch[int], connection: Connection) -> None:
        with FullSync("inner", Numbers(5), store=store):
            pass

    return write


def commit_in_the_sink(batch: Batch[int], connection: Connection) -> None:
    insert(connection, batch)
    connection.commit()


def roll_back_in_the_sink(batch: Batch[int], connection: Connection) -> None:
    insert(connection, batch)
    connection.rollback()


@pytest.mark.parametrize("kind", ["commit", "rollback", "sync"])
def test_a_sink_that_ends_the_transaction_is_stopped_before_it_can(
    store: SQLJobStore, engine: Engine, kind: str
) -> None:
    from resumable_sync import run_full_sync

    write = {"commit": commit_in_the_sink, "rollback": roll_back_in_the_sink, "sync": sync_in_the_sink(store)}[kind]
    with pytest.raises(ConfigurationError):
        run_full_sync("j", Numbers(50), transactional(write), store=store)
    assert delivered(engine) == []
    assert (saved(store).status, saved(store).cursor) == ("failed", None)
    assert store.load("inner") is None


def batch() -> Batch[int]:
    return Batch(
        records=[1], cursor=[1], previous_cursor=None, job_id="j", run=1, sequence=0, fencing_token=1, key="0" * 32
    )


def test_a_batch_that_is_written_again_by_the_callers_own_retry_is_not_written_twice(
    store: SQLJobStore, engine: Engine
) -> None:
    def copy(*, broken: bool) -> None:
        with FullSync("j", Numbers(30), store=store, batch_size=10) as sync:
            for batch in sync:
                for _ in range(2):
                    try:
                        with engine.begin() as connection:
                            insert(connection, batch)
                            sync.commit(batch, connection)
                            if broken and batch.sequence == 1:
                                broken = False
                                raise ConnectionError
                        break
                    except ConnectionError:
                        continue

    with pytest.raises(ConfigurationError, match="before"):
        copy(broken=True)
    assert delivered(engine) == list(range(saved(store).processed_records)) == list(range(10))
    copy(broken=False)
    assert delivered(engine) == list(range(30))


@pytest.mark.parametrize("prefetch", [0, 1])
def test_what_ended_reading_ends_it_again(store: SQLJobStore, prefetch: int) -> None:
    class Broken(Numbers):
        failed = False

        @override
        def fetch(self, offset: int, limit: int) -> list[int]:
            if offset == 20 and not self.failed:
                self.failed = True
                raise KeyError("once")
            return super().fetch(offset, limit)

    with (
        pytest.raises(KeyError, match="once"),
        FullSync("j", Broken(50), store=store, batch_size=10, prefetch=prefetch) as sync,
    ):
        with pytest.raises(KeyError, match="once"):
            list(sync)
        list(sync)
    assert (saved(store).status, saved(store).processed_records) == ("failed", 20)
