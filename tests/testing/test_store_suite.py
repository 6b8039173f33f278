"""The store suite passes a correct store, and finds every mistake by a test that names it."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from typing_extensions import override

from resumable_sync import JobStore, Lease, MemoryJobStore, ResumableSyncError, StoreTransaction
from resumable_sync.stores.sql import SQLJobStore
from resumable_sync.testing import JobStoreSuite
from resumable_sync.testing._store_base import wait_until
from testing import tiny_history, tiny_lineage
from testing.tiny_history import TinyHistory
from testing.tiny_lineage import TinyLineage
from testing.tiny_store import BrokenStore, TinyStore

FOUND_BY = {
    "a zombie may save": "a_zombie_changes_nothing[expired]",
    "a zombie may renew": "a_zombie_changes_nothing[replaced]",
    "a zombie may release": "a_zombie_changes_nothing[same owner]",
    "replacing or free": "replacing_an_older_token_fails[released]",
    "tokens repeat after delete": "tokens_never_repeat",
    "ids ignore case": "ids_are_exact",
    "ids ignore accents": "ids_are_exact",
    "ids ignore trailing blanks": "ids_are_exact",
    "acquire is not atomic": "of_many_threads_one_acquires[known=False]",
    "same owner keeps its token": "the_same_owner_acquires_again",
    "load shows expired leases": "an_expired_lease_is_free",
    "an expired lease is lost": "a_lease_that_merely_ran_out_is_good",
    "save does not tell of a stop": "a_stop_is_seen_at_the_next_save",
    "a grant keeps the stop": "a_grant_clears_a_requested_stop[released]",
    "an owner forgets the stop": "the_same_owner_is_still_to_stop[False]",
    "a stop waits for a worker": "a_stop_without_a_worker_does_nothing[expired]",
    "an error is cut off": "every_field_is_kept",
    "tuples become lists": "every_cursor_is_kept",
    "save does not extend the lease": "a_lease_that_merely_ran_out_is_good",
    "jobs are not ordered": "jobs_are_ordered_by_id",
}


def _run(store: JobStore, test: str, pass_time: Callable[[Lease], object]) -> None:
    name, _, parameter = test.rstrip("]").partition("[")
    suite = JobStoreSuite()
    method = getattr(suite, f"test_{name}")
    wanted = method.__code__.co_varnames[1 : 1 + method.__code__.co_argcount - 1 + method.__code__.co_kwonlyargcount]
    known, _, _ = parameter.rpartition("=")
    fixtures = {"store": store, "lineage": store, "histories": store, "make_store": lambda: store, "expire": pass_time}
    arguments = {one: fixtures.get(one, False if known else parameter) for one in wanted}
    method(**arguments)


@pytest.mark.parametrize("test", sorted(set(FOUND_BY.values())))
def test_a_correct_store_passes(test: str) -> None:
    store = TinyStore()
    _run(store, test, store.pass_time)


@pytest.mark.parametrize("bug", list(FOUND_BY))
def test_a_mistake_is_found(bug: str) -> None:
    store = TinyStore(bug)
    try:
        _run(store, FOUND_BY[bug], store.pass_time)
    except (AssertionError, pytest.fail.Exception, ResumableSyncError):
        return
    pytest.fail(f"the suite did not find: {bug}")


@pytest.mark.parametrize("call", ["load", "jobs", "request_stop", "delete"])
def test_a_call_that_hides_what_it_cannot_do_is_found(call: str) -> None:
    suite = JobStoreSuite()
    suite.test_what_cannot_be_done_is_an_error(BrokenStore())
    with pytest.raises(pytest.fail.Exception):
        suite.test_what_cannot_be_done_is_an_error(BrokenStore(call))


def test_a_transaction_that_may_end_only_once_is_found(tmp_path: Path) -> None:
    class Block:
        def __init__(self, inner: AbstractContextManager[StoreTransaction]) -> None:
            self.inner, self.left = inner, False

        def __enter__(self) -> StoreTransaction:
            return self.inner.__enter__()

        def __exit__(
            self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
        ) -> None:
            assert not self.left, "it was left before"
            self.left = True
            self.inner.__exit__(kind, error, traceback)

    class Store(SQLJobStore):
        @override
        def transaction(self) -> Any:
            return Block(super().transaction())

    suite, url = JobStoreSuite(), f"sqlite:///{tmp_path}/jobs.db"
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE resumable_sync_suite_rows (n INTEGER NOT NULL)"))
    with SQLJobStore(url) as right, Store(url) as wrong:
        suite.test_leaving_a_transaction_twice_is_harmless(right, engine, None)
        with pytest.raises(AssertionError, match="left before"):
            suite.test_leaving_a_transaction_twice_is_harmless(wrong, engine, None)
    engine.dispose()


@pytest.mark.parametrize("bug", [None, *tiny_lineage.FOUND_BY])
def test_a_mistake_in_the_lineage_is_found(bug: str | None) -> None:
    if bug is None:
        for test in set(tiny_lineage.FOUND_BY.values()):
            _run_lineage(TinyLineage(), test)
        return
    with pytest.raises((AssertionError, ValueError)):
        _run_lineage(TinyLineage(bug), tiny_lineage.FOUND_BY[bug])


@pytest.mark.parametrize("bug", [None, *tiny_history.FOUND_BY])
def test_a_mistake_in_the_history_is_found(bug: str | None) -> None:
    if bug is None:
        for test in set(tiny_history.FOUND_BY.values()):
            _run_lineage(TinyHistory(), test)
        return
    with pytest.raises((AssertionError, KeyError, pytest.fail.Exception)):
        _run_lineage(TinyHistory(bug), tiny_history.FOUND_BY[bug])


def _run_lineage(store: MemoryJobStore, test: str) -> None:
    _run(
        store, test, lambda lease: wait_until(lambda: next(iter(store.jobs())).lease is None, f"{lease} did not expire")
    )


class TestTinyStore(JobStoreSuite):
    own_clock = False

    @pytest.fixture
    @override
    def store(self) -> TinyStore:
        return TinyStore()

    @pytest.fixture
    @override
    def expire(self, store: TinyStore) -> Callable[[Lease], None]:
        return store.pass_time
