"""Getting a job to work on: what is decided at the first look, in a race, while it waits, and with the lease."""

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from typing_extensions import override

from doubles import FAST, saved
from resumable_sync import (
    ConfigurationError,
    CrashLoopError,
    Job,
    JobHeldError,
    JobStatus,
    Lease,
    LeaseLostError,
    MemoryJobStore,
)
from resumable_sync._attempts import acquire as _acquire
from resumable_sync._attempts.acquire import MAX_RACES, WAIT_SECONDS, Granted, acquire, give_back, look, take
from resumable_sync._attempts.stop import Stop
from resumable_sync._restart import IfHeld, Rules
from resumable_sync._retry import Retrier

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
OWNER = "the attempt"
COMPLETED = Job(id="j", status=JobStatus.COMPLETED, run=1, cursor=[9], processed_records=9)
INTERRUPTED = Job(id="j", status=JobStatus.INTERRUPTED, run=1, cursor=[5], processed_records=5, updated_at=LONG_AGO)
TOO_OLD = Rules(resume_within=60)

Act = Callable[[], object]


class Contested(MemoryJobStore):
    """A store in memory in which something may happen just before or just after each grant.

    Attributes:
        asked: The owner, ttl and `replacing` of each `acquire`.
        before: What happens before the grants to come; a JobHeldError is what they end with.
        after: What happens after them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[str, float, int | None]] = []
        self.before: list[Act] = []
        self.after: list[Act] = []

    @override
    def acquire(self, job_id: str, *, owner: str, ttl: float, replacing: int | None = None) -> Lease:
        if owner != OWNER:
            return super().acquire(job_id, owner=owner, ttl=ttl, replacing=replacing)
        self.asked.append((owner, ttl, replacing))
        if self.before:
            self.before.pop(0)()
        lease = super().acquire(job_id, owner=owner, ttl=ttl, replacing=replacing)
        if self.after:
            self.after.pop(0)()
        return lease

    def put(self, job: Job) -> None:
        """Have somebody else bring the job to where `job` is, and let it go."""
        newest = self.load("j")
        replacing = None if newest is None or newest.lease is None else newest.lease.fencing_token
        lease = self.acquire("j", owner="other", ttl=60, replacing=replacing)
        self.save(job, lease)
        self.release(lease)

    def hold(self) -> Lease:
        return self.acquire("j", owner="other", ttl=60)


class Waiting(Stop):
    """A stop whose waits end at once: with what the next act says, or else without one being asked for."""

    def __init__(self) -> None:
        super().__init__(None, None)
        self.waits: list[float] = []
        self.acts: list[Act] = []

    @override
    def wait(self, seconds: float) -> bool:
        self.waits.append(seconds)
        assert len(self.waits) < 100, "nobody ever lets the job go"
        return bool(self.acts.pop(0)()) if self.acts else False


@pytest.fixture(autouse=True)
def one_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_acquire, "new_owner", lambda: OWNER)
    monkeypatch.setattr(_acquire, "owner_gone", lambda owner: owner == "dead")


@pytest.fixture
def store() -> Contested:
    return Contested()


@pytest.fixture
def stop() -> Waiting:
    return Waiting()


@pytest.fixture
def retrier(stop: Stop) -> Retrier:
    return Retrier(FAST, lambda _: False, lambda *_: None)


@pytest.fixture
def get(store: Contested, stop: Stop, retrier: Retrier) -> Callable[..., Granted]:
    def call(rules: Rules = Rules(), if_held: IfHeld = "raise") -> Granted:  # noqa: B008 - a frozen value
        return acquire(store, "j", rules, ttl=45.0, if_held=if_held, retrier=retrier, stop=stop)

    return call


Get = Callable[..., Granted]


def raising(error: Exception) -> Act:
    def act() -> None:
        raise error

    return act


def lost_race() -> None:
    raise JobHeldError("other", None, None)  # who held it has let it go meanwhile


def live(store: MemoryJobStore) -> str | None:
    lease = saved(store).lease
    return None if lease is None else lease.owner


def test_a_free_job_is_got_with_its_lease_as_it_was_stored(store: Contested, get: Get) -> None:
    store.put(INTERRUPTED)
    granted = get()
    assert granted.lease is not None
    assert (granted.lease.owner, store.asked) == (OWNER, [(OWNER, 45.0, None)])
    assert granted.job == INTERRUPTED
    assert (granted.decision.action, granted.decision.cursor) == ("resume", [5])
    assert live(store) == OWNER


def test_an_unknown_job_is_got_as_a_new_one(store: Contested, get: Get) -> None:
    granted = get()
    assert granted.job is not None
    assert (granted.job.status, granted.job.lease, granted.decision.action) == ("pending", None, "new")
    assert live(store) == OWNER


def test_a_finished_run_that_was_finished_before_is_followed_by_another(store: Contested, get: Get) -> None:
    store.put(COMPLETED)
    granted = get()
    assert (granted.decision.action, granted.decision.fresh_run) == ("new", True)
    assert live(store) == OWNER


def test_nothing_to_do_takes_no_lease(store: Contested, get: Get) -> None:
    store.put(COMPLETED)
    granted = get(Rules(if_completed="skip"))
    assert (granted.job, granted.decision.action, granted.lease) == (COMPLETED, "skip", None)
    assert store.asked == []


@pytest.mark.parametrize("if_held", ["raise", "skip", "wait"])
def test_what_is_refused_is_an_error_whatever_is_asked_of_held_jobs(
    store: Contested, get: Get, if_held: IfHeld
) -> None:
    store.put(Job(id="j", status=JobStatus.FAILED, run=1, cursor=[5], stalled_attempts=5))
    with pytest.raises(CrashLoopError):
        get(if_held=if_held)
    assert store.asked == []


class TestHeld:
    def test_it_is_an_error(self, store: Contested, get: Get, stop: Waiting) -> None:
        lease = store.hold()
        with pytest.raises(JobHeldError) as caught:
            get()
        assert (caught.value.owner, caught.value.expires_at, caught.value.job_id) == ("other", lease.expires_at, "j")
        assert (store.asked, stop.waits) == ([], [])

    def test_it_is_passed_over(self, store: Contested, get: Get, stop: Waiting) -> None:
        lease = store.hold()
        granted = get(if_held="skip")
        assert granted.job is not None
        assert (granted.job.lease, granted.decision.action, granted.lease) == (lease, "held", None)
        assert (store.asked, stop.waits) == ([], [])

    def test_it_is_waited_for(self, store: Contested, get: Get, stop: Waiting) -> None:
        lease = store.hold()
        stop.acts = [lambda: False, lambda: store.release(lease)]
        granted = get(if_held="wait")
        assert granted.lease is not None
        assert (granted.lease.owner, stop.waits) == (OWNER, [WAIT_SECONDS, WAIT_SECONDS])

    def test_until_something_asks_to_stop(self, store: Contested, get: Get, stop: Waiting) -> None:
        lease = store.hold()
        stop.acts = [lambda: True]
        granted = get(if_held="wait")
        assert granted.job is not None
        assert (granted.job.lease, granted.decision.action, granted.lease) == (lease, "held", None)

    def test_until_it_is_deleted(self, store: Contested, get: Get, stop: Waiting) -> None:
        store.hold()
        stop.acts = [lambda: store.delete("j")]
        granted = get(if_held="wait")
        assert (granted.decision.action, live(store)) == ("new", OWNER)

    @pytest.mark.parametrize("known", [False, True])
    def test_what_was_finished_meanwhile_is_done(
        self, store: Contested, get: Get, stop: Waiting, *, known: bool
    ) -> None:
        if known:
            store.put(INTERRUPTED)
        lease = store.hold()

        def finish() -> None:
            store.save(COMPLETED, lease)
            store.release(lease)

        stop.acts = [finish]
        granted = get(if_held="wait")
        assert (granted.job, granted.decision.action, granted.lease) == (COMPLETED, "skip", None)
        assert "meanwhile" in granted.decision.reason
        assert store.asked == []

    def test_a_run_that_was_finished_before_it_was_held_is_followed_by_another(
        self, store: Contested, get: Get, stop: Waiting
    ) -> None:
        store.put(COMPLETED)
        lease = store.hold()
        stop.acts = [lambda: store.release(lease)]
        assert get(if_held="wait").decision.fresh_run

    def test_how_old_its_checkpoint_is_counts_from_now(self, store: Contested, get: Get, stop: Waiting) -> None:
        store.put(INTERRUPTED)
        lease = store.hold()
        stop.acts = [lambda: store.release(lease)]
        assert get(TOO_OLD, "wait").decision.fresh_run

    def test_a_holder_that_is_gone_is_replaced(self, store: Contested, get: Get, stop: Waiting) -> None:
        dead = store.acquire("j", owner="dead", ttl=60)
        granted = get()
        assert granted.lease is not None
        assert store.asked == [(OWNER, 45.0, dead.fencing_token)]
        assert (live(store), stop.waits) == (OWNER, [])

    def test_a_lost_answer_to_replacing_one_is_got_over(self, store: Contested, get: Get) -> None:
        dead = store.acquire("j", owner="dead", ttl=60)
        store.after = [raising(ConnectionError("cut"))]
        granted = get()
        assert store.asked == [(OWNER, 45.0, dead.fencing_token)] * 2 + [(OWNER, 45.0, None)]
        assert granted.lease is not None
        assert store.renew(granted.lease, 60).owner == OWNER


class TestRaces:
    """Somebody else was faster between the look and the grant."""

    def test_a_race_is_followed_by_another_try(self, store: Contested, get: Get, stop: Waiting) -> None:
        store.put(INTERRUPTED)
        store.before = [lost_race, lost_race]
        granted = get()
        assert (len(store.asked), stop.waits, granted.decision.action) == (3, [], "resume")
        assert live(store) == OWNER

    def test_who_was_faster_and_still_holds_it_is_named(self, store: Contested, get: Get) -> None:
        store.before = [store.hold]
        with pytest.raises(JobHeldError) as caught:
            get()
        assert (caught.value.owner, len(store.asked)) == ("other", 1)

    @pytest.mark.parametrize(("told", "job_id"), [(None, "j"), ("as the store says", "as the store says")])
    def test_too_many_in_a_row_are_an_error(self, store: Contested, get: Get, told: str | None, job_id: str) -> None:
        store.before = [raising(JobHeldError("other", None, told)) for _ in range(100)]
        with pytest.raises(JobHeldError) as caught:
            get()
        assert (len(store.asked), caught.value.job_id) == (MAX_RACES, job_id)

    def test_those_before_a_wait_do_not_count(self, store: Contested, get: Get, stop: Waiting) -> None:
        held: list[Lease] = []
        stop.acts = [lambda: store.release(held[0])]
        others: list[Act] = [lost_race] * (MAX_RACES - 2)
        store.before = [*others, lambda: held.append(store.hold()), *others, lost_race]
        assert get(if_held="wait").lease is not None
        assert (len(stop.waits), len(store.asked)) == (1, 2 * MAX_RACES - 1)

    @pytest.mark.parametrize("known", [False, True])
    def test_what_was_finished_meanwhile_is_done(self, store: Contested, get: Get, *, known: bool) -> None:
        if known:
            store.put(INTERRUPTED)

        def overtaken() -> None:
            store.put(COMPLETED)
            lost_race()

        store.before = [overtaken]
        granted = get()
        assert (granted.job, granted.decision.action, granted.lease) == (COMPLETED, "skip", None)
        assert len(store.asked) == 1

    def test_a_run_that_was_finished_before_them_is_followed_by_another(self, store: Contested, get: Get) -> None:
        store.put(COMPLETED)
        store.before = [lost_race]
        assert get().decision.fresh_run

    def test_how_old_the_checkpoint_is_counts_from_now(self, store: Contested, get: Get) -> None:
        store.put(INTERRUPTED)
        store.before = [lost_race]
        assert get(TOO_OLD).decision.fresh_run

    def test_a_holder_that_was_faster_and_died_is_replaced(self, store: Contested, get: Get) -> None:
        store.before = [lambda: store.acquire("j", owner="dead", ttl=60)]
        assert get().lease is not None
        assert store.asked[1][2] is not None
        assert live(store) == OWNER


class TestWithTheLease:
    """What another attempt did between the look and the grant is seen once the lease is there."""

    @pytest.mark.parametrize("known", [False, True])
    def test_what_was_finished_meanwhile_is_done(self, store: Contested, get: Get, *, known: bool) -> None:
        if known:
            store.put(INTERRUPTED)
        store.before = [lambda: store.put(COMPLETED)]
        granted = get()
        assert (granted.job, granted.decision.action, granted.lease) == (COMPLETED, "skip", None)
        assert live(store) is None

    def test_what_is_refused_now_is_given_back(self, store: Contested, get: Get) -> None:
        store.before = [lambda: store.put(Job(id="j", status=JobStatus.FAILED, cursor=[5], stalled_attempts=5))]
        with pytest.raises(CrashLoopError):
            get()
        assert live(store) is None

    def test_a_job_that_was_deleted_is_lost(self, store: Contested, get: Get) -> None:
        store.after = [lambda: store.delete("j")]
        with pytest.raises(LeaseLostError) as caught:
            get()
        assert (caught.value.job_id, type(caught.value.fencing_token)) == ("j", int)

    def test_a_lease_is_given_back_even_by_ctrl_c(
        self, store: Contested, get: Get, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def interrupted(_: str) -> Job:
            monkeypatch.undo()
            raise KeyboardInterrupt

        store.after = [lambda: monkeypatch.setattr(store, "load", interrupted)]
        with pytest.raises(KeyboardInterrupt):
            get()
        assert live(store) is None

    def test_how_old_the_checkpoint_is_counts_from_now(self, store: Contested, get: Get) -> None:
        store.before = [lambda: store.put(INTERRUPTED)]
        assert get(TOO_OLD).decision.fresh_run


def test_a_look_changes_nothing(store: Contested, retrier: Retrier) -> None:
    assert look(store.load, "j", Rules(), retrier)[0] is None
    store.put(INTERRUPTED)
    job, decision = look(store.load, "j", TOO_OLD, retrier)
    assert (job, decision.fresh_run) == (INTERRUPTED, True)
    dead = store.acquire("j", owner="dead", ttl=60)
    job, decision = look(store.load, "j", Rules(), retrier)
    assert job is not None
    assert (job.lease, decision.replacing, store.asked) == (dead, dead.fencing_token, [])


class TestTake:
    """A job that exists is got for something that is no run."""

    @pytest.fixture
    def got(self, store: Contested, retrier: Retrier) -> Callable[[], tuple[Job, Lease]]:
        return lambda: take(store, "j", ttl=45.0, retrier=retrier)

    def test_it_is_got_as_stored(self, store: Contested, got: Any) -> None:
        store.put(COMPLETED)
        job, lease = got()
        assert (job, lease.owner, store.asked) == (COMPLETED, OWNER, [(OWNER, 45.0, None)])

    def test_what_was_saved_before_the_grant_is_seen(self, store: Contested, got: Any) -> None:
        store.put(INTERRUPTED)
        store.before = [lambda: store.put(COMPLETED)]
        assert got()[0] == COMPLETED

    def test_an_unknown_one_is_not_made(self, store: Contested, got: Any) -> None:
        with pytest.raises(ConfigurationError, match="no job 'j'"):
            got()
        assert (store.load("j"), store.asked) == (None, [])

    @pytest.mark.parametrize(("told", "job_id"), [(None, "j"), ("as the store says", "as the store says")])
    def test_a_held_one_is_an_error(self, store: Contested, got: Any, told: str | None, job_id: str) -> None:
        store.put(COMPLETED)
        store.before = [raising(JobHeldError("other", None, told))]
        with pytest.raises(JobHeldError) as caught:
            got()
        assert (caught.value.job_id, caught.value.owner, len(store.asked)) == (job_id, "other", 1)

    def test_a_holder_that_lives_is_not_replaced(self, store: Contested, got: Any) -> None:
        store.hold()
        with pytest.raises(JobHeldError):
            got()
        assert (live(store), store.asked) == ("other", [(OWNER, 45.0, None)])

    def test_a_holder_that_is_gone_is_replaced(self, store: Contested, got: Any) -> None:
        dead = store.acquire("j", owner="dead", ttl=60)
        job, _ = got()
        assert (job.lease, store.asked) == (None, [(OWNER, 45.0, dead.fencing_token)])

    def test_one_that_is_deleted_meanwhile_is_unknown(self, store: Contested, got: Any) -> None:
        store.put(COMPLETED)
        store.after = [lambda: store.delete("j")]
        with pytest.raises(ConfigurationError, match="no job 'j'"):
            got()

    def test_a_lease_is_given_back_if_the_job_cannot_be_read(
        self, store: Contested, got: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def damaged(_: str) -> Job:
            monkeypatch.undo()
            raise LookupError("damaged")

        store.put(COMPLETED)
        store.after = [lambda: monkeypatch.setattr(store, "load", damaged)]
        with pytest.raises(LookupError):
            got()
        assert live(store) is None


@pytest.mark.parametrize("trouble", ["taken over", "cannot be reached"])
def test_a_lease_that_cannot_be_given_back_is_a_warning(
    store: Contested,
    retrier: Retrier,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    trouble: str,
) -> None:
    lease = store.hold()
    if trouble == "taken over":
        store.acquire("j", owner="successor", ttl=60, replacing=lease.fencing_token)
    else:
        monkeypatch.setattr(store, "release", lambda _: raising(LookupError("no route"))())
    with caplog.at_level(logging.WARNING, "resumable_sync"):
        give_back(store, lease, retrier)
    (record,) = caplog.records
    assert "'j'" in record.getMessage()
    assert ("taken over" in record.getMessage()) == (trouble == "taken over")


def test_a_lease_is_given_back_with_patience(
    store: Contested, retrier: Retrier, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease, release, cuts = store.hold(), store.release, [ConnectionError("cut")]

    def patchy(given: Lease) -> None:
        if cuts:
            raise cuts.pop()
        release(given)

    monkeypatch.setattr(store, "release", patchy)
    give_back(store, lease, retrier)
    assert live(store) is None
