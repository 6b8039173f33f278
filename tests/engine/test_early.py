"""The store is asked for the job while the connector looks its fingerprint up."""

import contextlib
import gc
import threading
import weakref
from typing import Any

import pytest
from typing_extensions import override

from doubles import Numbers, Target
from resumable_sync import Job, MemoryJobStore, OffsetConnector, Retry, StoreError, TransientError, run_full_sync
from resumable_sync._attempts import early
from resumable_sync._attempts.early import EarlyLook

SECONDS = 20.0


class Noting(MemoryJobStore):
    """A store that says when and where it is first asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = threading.Event()
        self.threads: list[threading.Thread] = []
        self.fails: list[BaseException] = []

    @override
    def load(self, job_id: str) -> Job | None:
        self.threads.append(threading.current_thread())
        self.asked.set()
        if self.fails:
            raise self.fails.pop(0)
        return super().load(job_id)


class Looking(OffsetConnector[int]):
    """A connector whose fingerprint must be looked up."""

    until: threading.Event | None = None
    error: Exception | None = None

    @override
    def fetch(self, offset: int, limit: int) -> range:
        return range(offset, min(offset + limit, 3))

    @property
    def fingerprint(self) -> str:  # type: ignore[explicit-override, override]
        assert self.until is None or self.until.wait(SECONDS)
        if self.error is not None:
            raise self.error
        return "numbers"


@pytest.fixture
def store() -> Noting:
    return Noting()


def test_both_are_asked_at_once(store: Noting) -> None:
    connector = Looking()
    connector.until = store.asked
    target = Target()
    assert run_full_sync("j", connector, target, store=store).status == "completed"
    assert store.threads[0].name == "resumable_sync-look"
    assert set(store.threads[1:]) == {threading.current_thread()}


def test_what_needs_no_look_has_no_thread(store: Noting) -> None:
    run_full_sync("j", Numbers(3), Target(), store=store)
    assert set(store.threads) == {threading.current_thread()}


def test_an_error_of_the_store_is_tried_again_by_the_usual_rules(store: Noting) -> None:
    store.fails = [TransientError("not now")]
    retry = Retry(max_tries=2, wait_initial=0.001)
    assert run_full_sync("j", Looking(), Target(), store=store, retry=retry).status == "completed"
    assert [thread.name == "resumable_sync-look" for thread in store.threads[:2]] == [True, False]
    store.fails = [StoreError("damaged")]
    with pytest.raises(StoreError, match="damaged"):
        run_full_sync("j", Looking(), Target(), store=store)


def test_an_error_of_the_connector_comes_first_and_leaves_no_thread(store: Noting) -> None:
    connector, before = Looking(), set(threading.enumerate())
    connector.error = ValueError("no such table")
    store.fails = [StoreError("damaged")]
    with pytest.raises(ValueError, match="no such table"):
        run_full_sync("j", connector, Target(), store=store)
    assert set(threading.enumerate()) == before


def test_a_store_that_does_not_answer_keeps_no_error_for_ever(monkeypatch: Any) -> None:
    monkeypatch.setattr(early, "PATIENCE_SECONDS", 0.01)
    answer = threading.Event()

    class Silent(MemoryJobStore):
        @override
        def load(self, job_id: str) -> Job | None:
            answer.wait(SECONDS)
            return None

    look = EarlyLook(Silent(), "j", Looking())
    try:
        look.close()
        thread = next(thread for thread in threading.enumerate() if thread.name == "resumable_sync-look")
    finally:
        answer.set()
    thread.join(SECONDS)
    assert not thread.is_alive()
    assert look.load("j") is None


@pytest.mark.parametrize("asked", [True, False])
def test_an_error_is_kept_by_nobody(store: Noting, asked: bool) -> None:
    store.fails = [StoreError("damaged")]
    kept = weakref.ref(store.fails[0])
    gc.disable()
    try:
        look = EarlyLook(store, "j", Looking())
        if asked:
            with contextlib.suppress(StoreError):
                look.load("j")
        look.close()
        assert kept() is None
    finally:
        gc.enable()
