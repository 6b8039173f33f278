"""The lease in the hands of one attempt, and its heartbeat: to the letter, what whole syncs leave open."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from itertools import accumulate, islice
from types import SimpleNamespace

import pytest
from typing_extensions import override

from doubles import FAST
from resumable_sync import Lease, LeaseLostError, MemoryJobStore, _lease
from resumable_sync._attempts.stop import Stop
from resumable_sync._lease import LeaseKeeper, beats
from resumable_sync._retry import Retrier

QUICK = 0.03
PATIENCE = 10.0
"""Seconds after which an event that a test waits for will not come any more."""

Keep = Callable[..., LeaseKeeper]


class Watched(MemoryJobStore):
    """A store in memory that tells what the heartbeat asked for and got."""

    def __init__(self) -> None:
        super().__init__()
        self.renewals: list[float] = []
        self.renewed = threading.Event()
        self.refusals = threading.Semaphore(0)

    @override
    def renew(self, lease: Lease, ttl: float) -> Lease:
        try:
            renewed = super().renew(lease, 60)  # it shall not end while a test waits
        except LeaseLostError:
            self.refusals.release()
            raise
        self.renewals.append(ttl)
        self.renewed.set()
        return renewed

    def overtake(self) -> Lease:
        job = self.load("j")
        assert job is not None
        assert job.lease is not None
        return self.acquire("j", owner="successor", ttl=60, replacing=job.lease.fencing_token)


@pytest.fixture
def store() -> Watched:
    return Watched()


@pytest.fixture
def stop() -> Stop:
    return Stop(None, None)


@pytest.fixture
def retrier(stop: Stop) -> Retrier:
    return Retrier(FAST, stop.wait, lambda *_: None)


@pytest.fixture
def keep(store: Watched, stop: Stop) -> Iterator[Keep]:
    """Acquires the lease of a job and gives who keeps it; nobody beats any more after the test."""
    with ExitStack() as stack:

        def make(ttl: float = 60.0) -> LeaseKeeper:
            keeper = LeaseKeeper(store, store.acquire("j", owner="me", ttl=60), ttl, stop)
            stack.callback(keeper.close)
            return keeper

        yield make


def test_the_heartbeat_is_a_daemon_with_a_name_that_ends_when_it_is_closed(keep: Keep) -> None:
    keeper = keep()
    keeper.close()  # not begun yet
    keeper = keep()
    keeper.start()
    (beating,) = [thread for thread in threading.enumerate() if thread.name == "resumable_sync-heartbeat"]
    assert beating.daemon
    keeper.close()
    keeper.close()
    assert not beating.is_alive()


def test_it_renews_for_the_whole_ttl_every_third_of_it_or_sooner(
    store: Watched, keep: Keep, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float | None] = []

    class Impatient(threading.Event):
        @override
        def wait(self, timeout: float | None = None) -> bool:
            waits.append(timeout)
            return super().wait(0.001)

    monkeypatch.setattr(
        _lease, "threading", SimpleNamespace(Event=Impatient, Lock=threading.Lock, Thread=threading.Thread)
    )
    keeper = keep(90.0)
    keeper.start()
    assert store.renewed.wait(PATIENCE)
    keeper.close()
    assert waits == list(islice(beats(90.0, "me"), len(waits)))
    assert set(store.renewals) == {90.0}


def test_no_wait_for_a_heartbeat_is_longer_than_a_third_of_the_ttl_or_much_shorter() -> None:
    for owner in range(100):
        first, *later = islice(beats(90.0, str(owner)), 100)
        assert 15.0 <= first <= 30.0
        assert 22.5 <= min(later) <= max(later) <= 30.0
        assert len(set(later)) > 90


def test_workers_that_begin_together_do_not_beat_together() -> None:
    times: list[float] = []
    for owner in range(1_000):
        times += accumulate(islice(beats(60.0, str(owner)), 20))
    a_second = Counter(int(time) for time in times)
    # In step they would be 1,000 in one second of twenty.
    assert max(a_second.values()) <= 1_000 / 20 * 3
    later = [count for second, count in a_second.items() if 120 <= second < 300]
    assert max(later) <= 1_000 / 20 * 2


def test_a_heartbeat_that_is_refused_ends_and_asks_to_stop(store: Watched, keep: Keep, stop: Stop) -> None:
    keeper = keep(QUICK)
    mine = keeper.lease
    store.overtake()
    keeper.start()
    assert stop.wait(PATIENCE)
    assert stop.reason == "the lease was lost"
    with pytest.raises(LeaseLostError):
        _ = keeper.lease
    assert keeper.last == mine


def test_a_requested_stop_is_seen_at_the_next_beat(store: Watched, keep: Keep, stop: Stop) -> None:
    keeper = keep(QUICK)
    keeper.start()
    store.request_stop("j")
    assert stop.wait(PATIENCE)
    assert stop.reason == "a stop was requested"


def test_the_newest_answer_counts_and_an_outdated_one_does_not(store: Watched, keep: Keep) -> None:
    keeper = keep()
    first = keeper.lease
    renewed = store.renew(first, 60)
    keeper.took(renewed)
    assert keeper.lease == renewed
    anew = store.acquire("j", owner="me", ttl=60)
    keeper.took(anew)
    keeper.took(renewed)
    assert keeper.lease == anew


class Slow(Watched):
    """A store that answers to `acquire(replacing=...)` only when the heartbeat was refused twice."""

    waited = True

    @override
    def acquire(self, job_id: str, *, owner: str, ttl: float, replacing: int | None = None) -> Lease:
        lease = super().acquire(job_id, owner=owner, ttl=60, replacing=replacing)  # as with `renew`
        if replacing is not None and owner == "me":
            self.waited = all(self.refusals.acquire(timeout=PATIENCE) for _ in range(2))
        return lease


class TestInDoubt:
    @pytest.fixture
    def store(self) -> Slow:
        return Slow()

    def test_a_refusal_of_the_old_token_is_no_loss(self, store: Slow, keep: Keep, stop: Stop, retrier: Retrier) -> None:
        keeper = keep(QUICK)
        mine = keeper.lease
        keeper.start()
        keeper.acquire_anew(retrier)
        assert store.waited
        assert keeper.lease.fencing_token > mine.fencing_token
        store.renewed.clear()
        assert store.renewed.wait(PATIENCE)
        assert stop.reason is None

    def test_when_the_doubt_has_ended_a_refusal_is_a_loss(
        self, store: Slow, keep: Keep, stop: Stop, retrier: Retrier
    ) -> None:
        keeper = keep(QUICK)
        keeper.start()
        keeper.acquire_anew(retrier)
        store.overtake()
        assert stop.wait(PATIENCE)
        assert stop.reason == "the lease was lost"


def test_a_late_refusal_of_a_token_that_is_outdated_by_now_is_no_loss(
    store: Watched, keep: Keep, stop: Stop, retrier: Retrier, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, go_on, renew = threading.Event(), threading.Event(), store.renew

    def late(lease: Lease, ttl: float) -> Lease:
        asked.set()
        assert go_on.wait(PATIENCE)
        return renew(lease, ttl)

    monkeypatch.setattr(store, "renew", late)
    keeper = keep(QUICK)
    keeper.start()
    assert asked.wait(PATIENCE)
    keeper.acquire_anew(retrier)
    go_on.set()
    assert store.renewed.wait(PATIENCE)  # under the new token, at the next beat
    assert store.refusals.acquire(blocking=False)
    assert stop.reason is None


def test_a_lost_answer_to_acquire_is_got_over(
    store: Watched, keep: Keep, retrier: Retrier, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper, acquire, answers = keep(90.0), store.acquire, [ConnectionError("cut")]
    mine = keeper.lease

    def lossy(job_id: str, *, owner: str, ttl: float, replacing: int | None = None) -> Lease:
        assert ttl == 90
        lease = acquire(job_id, owner=owner, ttl=ttl, replacing=replacing)
        if answers:
            raise answers.pop()
        return lease

    monkeypatch.setattr(store, "acquire", lossy)
    keeper.acquire_anew(retrier)
    assert keeper.lease.fencing_token >= mine.fencing_token + 2
    assert store.renew(keeper.lease, 60).owner == "me"


@pytest.mark.parametrize("released", [False, True])
def test_a_lease_that_a_successor_had_is_not_got_anew(
    store: Watched, keep: Keep, retrier: Retrier, *, released: bool
) -> None:
    keeper = keep()
    lease = store.overtake()
    if released:
        store.release(lease)
    with pytest.raises(LeaseLostError):
        keeper.acquire_anew(retrier)


@pytest.mark.parametrize("seconds", [59.0, 60.0])
def test_a_lease_is_in_doubt_from_the_moment_it_may_have_ended(
    store: Watched, keep: Keep, retrier: Retrier, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    now = [1000.0]
    monkeypatch.setattr(_lease, "time", SimpleNamespace(monotonic=lambda: now[0]))
    keeper = keep(60.0)
    now[0] += seconds
    keeper.assure(retrier)
    assert store.renewals == ([60.0] if seconds == 60 else [])


def test_the_time_of_the_store_goes_on_from_its_last_answer(keep: Keep, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=1_000.0)
    clock.monotonic = lambda: clock.now
    monkeypatch.setattr(_lease, "time", clock)
    keeper = keep(60.0)
    clock.now += 7
    assert keeper.store_time() == keeper.lease.expires_at - timedelta(seconds=53)
