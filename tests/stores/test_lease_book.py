"""Leases in memory, to the letter: what the conformance suite leaves open."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from resumable_sync import ConfigurationError, JobHeldError, Lease, LeaseLostError
from resumable_sync.stores._leases import LATER_ATTEMPT, MAX_TTL, LeaseBook, check_owner, check_ttl, microseconds

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
TOKEN = microseconds(NOW)


class Clock:
    now = NOW

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def book(clock: Clock) -> LeaseBook:
    return LeaseBook(clock)


def test_a_lease_ends_at_the_very_moment(book: LeaseBook, clock: Clock) -> None:
    book.acquire("j", "one", 10.0, None)
    clock.now += timedelta(seconds=10) - timedelta(microseconds=1)
    assert book.live("j") is not None
    clock.now += timedelta(microseconds=1)
    assert book.live("j") is None
    assert book.acquire("j", "other", 10.0, None).owner == "other"


def test_tokens_begin_at_the_clock_and_grow_by_at_least_one(book: LeaseBook) -> None:
    assert [book.acquire("j", "one", 10.0, None).fencing_token for _ in range(3)] == [TOKEN, TOKEN + 1, TOKEN + 2]
    book.forget("j")
    assert book.acquire("j", "one", 10.0, None).fencing_token == TOKEN + 3
    assert book.acquire("other", "one", 10.0, None).fencing_token == TOKEN + 3  # above all that were deleted
    book.forget("other")
    book.acquire("older", "one", 10.0, None)
    book.forget("older")
    assert book.acquire("j", "one", 10.0, None).fencing_token > TOKEN + 3


def test_a_clock_that_goes_back_gives_no_token_again(book: LeaseBook, clock: Clock) -> None:
    first = book.acquire("a", "one", 10.0, None).fencing_token
    book.forget("a")
    clock.now -= timedelta(days=1)
    lesser = book.acquire("b", "one", 10.0, None).fencing_token
    assert lesser == first + 1
    book.forget("b")
    assert book.acquire("a", "one", 10.0, None).fencing_token == lesser + 1


def test_held_says_by_whom_and_until_when(book: LeaseBook) -> None:
    lease = book.acquire("j", "one", 10.0, None)
    with pytest.raises(JobHeldError) as held:
        book.acquire("j", "other", 10.0, None)
    assert (held.value.owner, held.value.expires_at, held.value.job_id) == ("one", NOW + timedelta(seconds=10), "j")
    book.release(lease)
    with pytest.raises(JobHeldError) as passed:
        book.acquire("j", "other", 10.0, lease.fencing_token - 1)
    assert (passed.value.owner, passed.value.expires_at, passed.value.job_id) == (LATER_ATTEMPT, None, "j")
    with pytest.raises(JobHeldError) as unknown:
        book.acquire("nobody's", "other", 10.0, 1)
    assert (unknown.value.owner, unknown.value.expires_at, unknown.value.job_id) == (LATER_ATTEMPT, None, "nobody's")
    assert not book.knows("nobody's")


def test_what_is_lost_names_job_and_token(book: LeaseBook) -> None:
    old = book.acquire("j", "one", 10.0, None)
    newer = book.acquire("j", "one", 10.0, None)
    calls = (lambda: book.renew(old, 5.0), lambda: book.release(old), lambda: book.hold(old, lambda: None))
    for call in calls:
        with pytest.raises(LeaseLostError) as lost:
            call()
        assert (lost.value.job_id, lost.value.fencing_token) == ("j", old.fencing_token)
    book.forget("j")
    with pytest.raises(LeaseLostError) as gone:
        book.renew(newer, 5.0)
    assert (gone.value.job_id, gone.value.fencing_token) == ("j", newer.fencing_token)


def test_renewing_changes_the_ttl_that_saving_extends_by(book: LeaseBook, clock: Clock) -> None:
    lease = book.acquire("j", "one", 10.0, None)
    assert book.renew(lease, 3.0).expires_at == NOW + timedelta(seconds=3)
    clock.now += timedelta(seconds=1)
    assert book.hold(lease, lambda: None).expires_at == NOW + timedelta(seconds=4)


def test_a_stop_is_for_the_live_lease_alone(book: LeaseBook, clock: Clock) -> None:
    book.request_stop("nobody's")
    lease = book.acquire("j", "one", 10.0, None)
    assert not lease.stop_requested
    book.request_stop("j")
    assert book.renew(lease, 10.0).stop_requested
    again = book.acquire("j", "one", 10.0, None)
    assert again.stop_requested is True
    assert book.acquire("j", "two", 10.0, again.fencing_token).stop_requested is False
    clock.now += timedelta(seconds=10)
    book.request_stop("j")
    clock.now -= timedelta(seconds=5)
    live = book.live("j")
    assert live is not None
    assert not live.stop_requested


@pytest.mark.parametrize("ttl", [0, -1, MAX_TTL + 1, float("inf"), float("nan"), True, "1", None])
def test_an_impossible_ttl_is_refused(ttl: object) -> None:
    with pytest.raises(ConfigurationError):
        check_ttl(ttl)


def test_the_least_and_the_greatest_ttl_are_possible() -> None:
    assert [check_ttl(0.001), check_ttl(1), check_ttl(MAX_TTL)] == [0.001, 1, MAX_TTL]


@pytest.mark.parametrize("owner", ["", "x" * 256, "a\0", chr(0xD800), chr(0xDFFF), None, 1])
def test_an_owner_that_cannot_be_kept_is_refused(owner: object) -> None:
    with pytest.raises(ConfigurationError):
        check_owner(owner)


@pytest.mark.parametrize("owner", ["x", "x" * 255, "\ud7ff", "\ue000"])
def test_every_other_owner_is_taken(owner: str) -> None:
    assert check_owner(owner) == owner


class DeletedMeanwhile:
    """In place of a grant's lock: the job is deleted while somebody waits for it."""

    def __init__(self, book: LeaseBook) -> None:
        self.book = book
        self.entered = False

    def __enter__(self) -> None:
        if not self.entered:
            self.entered = True
            self.book.forget("j")

    def __exit__(self, *_: object) -> None:
        pass


def delete_meanwhile(book: LeaseBook) -> None:
    grant: Any = book._grants["j"]
    grant.lock = DeletedMeanwhile(book)


def test_a_job_that_is_deleted_meanwhile_is_acquired_anew(book: LeaseBook) -> None:
    first = book.acquire("j", "one", 10.0, None)
    delete_meanwhile(book)
    second = book.acquire("j", "other", 10.0, None)
    assert second.fencing_token == first.fencing_token + 1
    assert book.renew(second, 10.0).owner == "other"


def test_the_lease_of_a_job_that_is_deleted_meanwhile_is_lost(book: LeaseBook) -> None:
    acts: list[Callable[[Lease], object]] = [
        lambda lease: book.renew(lease, 10.0),
        lambda lease: book.hold(lease, lambda: None),
        book.release,
    ]
    for act in acts:
        lease = book.acquire("j", "one", 10.0, None)
        delete_meanwhile(book)
        with pytest.raises(LeaseLostError):
            act(lease)


def test_what_is_deleted_meanwhile_is_not_alive_and_not_deleted_twice(book: LeaseBook) -> None:
    first = book.acquire("j", "one", 10.0, None)
    delete_meanwhile(book)
    assert book.live("j") is None
    book.acquire("j", "one", 10.0, None)
    delete_meanwhile(book)
    book.forget("j")
    assert not book.knows("j")
    assert book.acquire("j", "one", 10.0, None).fencing_token == first.fencing_token + 2


def test_jobs_are_named_in_order(book: LeaseBook) -> None:
    for job_id in "bca":
        book.acquire(job_id, "one", 10.0, None)
    assert book.job_ids() == ["a", "b", "c"]
    assert book.knows("a")
    assert not book.knows("d")


def test_a_released_lease_is_neither_renewed_nor_held(book: LeaseBook) -> None:
    lease = book.acquire("j", "one", 10.0, None)
    book.release(lease)
    with pytest.raises(LeaseLostError):
        book.renew(lease, 1.0)
    with pytest.raises(LeaseLostError):
        book.hold(lease, lambda: None)
