"""`JobStoreSuite`, second part: one owner at a time, tokens that only grow, zombies that change nothing."""

import datetime as dt
import sys
import time
from functools import partial
from typing import Any

import attrs
import pytest
from typing_extensions import override

from resumable_sync._errors import JobHeldError, LeaseLostError
from resumable_sync._model import Job, JobStatus, Lease
from resumable_sync._protocols import JobStore
from resumable_sync.testing._store_base import LONG, SHORT, Expire, MakeStore, StoreBase, in_threads

__all__ = ["StoredLeases"]

_THREADS = 8
_HOUR = 3600.0

_OVERTAKEN = (
    "expired",
    "released",
    "same owner",
    "replaced",
    "overtaken and finished",
    "deleted",
    "deleted and new",
)


class StoredLeases(StoreBase):
    """Leases exclude, expire, extend and fence."""

    def test_a_lease_excludes_others(self, store: JobStore, make_store: MakeStore) -> None:
        """While a lease is alive another owner is told who holds it and until when."""
        lease = store.acquire("job", owner="one", ttl=LONG)
        for other in (store, self._shared(store, make_store)):
            with pytest.raises(JobHeldError) as caught:
                other.acquire("job", owner="two", ttl=LONG)
            assert caught.value.owner == "one"
            assert caught.value.expires_at == lease.expires_at
        assert store.renew(lease, LONG).owner == "one"

    def test_a_lease_says_whose_it_is(self, store: JobStore) -> None:
        """The answer of `acquire` carries job, owner, token and an aware time."""
        lease = store.acquire("job", owner="one", ttl=LONG)
        assert (lease.job_id, lease.owner, lease.stop_requested) == ("job", "one", False)
        assert type(lease.fencing_token) is int
        assert lease.fencing_token > 0
        assert lease.expires_at.utcoffset() == dt.timedelta(0)

    def test_owners_are_exact(self, store: JobStore) -> None:
        """Owners that differ only in case or blanks are two owners; 255 characters are kept."""
        store.acquire("job", owner="owner", ttl=LONG)
        for other in ("Owner", "owner ", "ownér"):
            with pytest.raises(JobHeldError):
                store.acquire("job", owner=other, ttl=LONG)
        assert store.acquire("long", owner="é" * 255, ttl=LONG).owner == "é" * 255

    @pytest.mark.parametrize("known", [False, True], ids=["new job", "known job"])
    def test_of_many_threads_one_acquires(self, store: JobStore, make_store: MakeStore, *, known: bool) -> None:
        """Of any number of concurrent callers exactly one gets the lease; the others learn that it is held."""
        for turn in range(3):
            job_id = f"job {turn}"
            if known:
                store.release(store.acquire(job_id, owner="earlier", ttl=LONG))
            stores = [self._shared(store, make_store) for _ in range(_THREADS)]
            answers = in_threads([
                partial(other.acquire, job_id, owner=f"thread {number}", ttl=LONG)
                for number, other in enumerate(stores)
            ])
            self._exactly_one(answers)

    def test_of_many_replacing_one_succeeds(self, store: JobStore, make_store: MakeStore) -> None:
        """Taking over from the same dead holder is a race with one winner."""
        token = store.acquire("job", owner="dead", ttl=LONG).fencing_token
        stores = [self._shared(store, make_store) for _ in range(_THREADS)]
        answers = in_threads([
            partial(other.acquire, "job", owner=f"thread {number}", ttl=LONG, replacing=token)
            for number, other in enumerate(stores)
        ])
        self._exactly_one(answers)

    def test_the_same_owner_acquires_again(self, store: JobStore) -> None:
        """An owner whose answer was lost gets a new token, which fences the old one."""
        first = store.acquire("job", owner="one", ttl=LONG)
        second = store.acquire("job", owner="one", ttl=LONG)
        assert second.fencing_token > first.fencing_token
        with pytest.raises(LeaseLostError):
            store.renew(first, LONG)
        assert store.renew(second, LONG).fencing_token == second.fencing_token

    def test_an_expired_lease_is_free(self, store: JobStore, expire: Expire) -> None:
        """A lease that is not renewed ends by itself, and is not shown any more."""
        first = store.acquire("job", owner="one", ttl=SHORT)
        expire(first)
        job = store.load("job")
        assert job is not None
        assert job.lease is None
        assert store.acquire("job", owner="two", ttl=LONG).fencing_token > first.fencing_token

    def test_expiry_is_measured_by_the_clock_of_the_store(
        self, store: JobStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A caller whose clock is an hour fast does not take a lease that is alive."""
        if not self.own_clock:
            pytest.skip("the clock of the process is the store's clock")
        store.acquire("job", owner="one", ttl=60.0)
        _shift_clock(monkeypatch, store)
        with pytest.raises(JobHeldError):
            store.acquire("job", owner="two", ttl=60.0)
        job = store.load("job")
        assert job is not None
        assert job.lease is not None

    def test_release_frees_the_job(self, store: JobStore) -> None:
        """A released job can be acquired at once; releasing again is fine."""
        lease = store.acquire("job", owner="one", ttl=LONG)
        store.release(lease)
        store.release(lease)
        job = store.load("job")
        assert job is not None
        assert job.lease is None
        assert store.acquire("job", owner="two", ttl=LONG).fencing_token > lease.fencing_token

    @pytest.mark.parametrize("state", ["alive", "expired", "released"])
    def test_replacing_the_newest_token(self, store: JobStore, expire: Expire, state: str) -> None:
        """`replacing` succeeds when it names the newest token, whatever became of its lease."""
        lease = store.acquire("job", owner="one", ttl=SHORT if state == "expired" else LONG)
        if state == "expired":
            expire(lease)
        if state == "released":
            store.release(lease)
        taken = store.acquire("job", owner="two", ttl=LONG, replacing=lease.fencing_token)
        assert taken.fencing_token > lease.fencing_token
        assert taken.owner == "two"
        with pytest.raises(LeaseLostError):
            store.renew(lease, LONG)

    @pytest.mark.parametrize("state", ["alive", "expired", "released"])
    def test_replacing_an_older_token_fails(self, store: JobStore, expire: Expire, state: str) -> None:
        """`replacing` fails when another token is the newest, even if the job is free.

        Read as "or free", it let a zombie run again what its successor had finished.
        """
        old = store.acquire("job", owner="one", ttl=LONG)
        store.release(old)
        newest = store.acquire("job", owner="two", ttl=SHORT if state == "expired" else LONG)
        if state == "expired":
            expire(newest)
        if state == "released":
            store.release(newest)
        for token in (old.fencing_token, newest.fencing_token + 1, 0):
            for owner in ("one", "three"):
                with pytest.raises(JobHeldError):
                    store.acquire("job", owner=owner, ttl=LONG, replacing=token)
        # It is still the newest.
        store.acquire("job", owner="four", ttl=LONG, replacing=newest.fencing_token)

    def test_replacing_in_an_unknown_job_fails(self, store: JobStore) -> None:
        """There is nobody to take over from."""
        with pytest.raises(JobHeldError):
            store.acquire("nobody", owner="one", ttl=LONG, replacing=1)

    def test_an_owner_replaces_itself(self, store: JobStore) -> None:
        """After a lost answer to a commit the owner fences out what may still be in flight."""
        first = store.acquire("job", owner="one", ttl=LONG)
        second = store.acquire("job", owner="one", ttl=LONG, replacing=first.fencing_token)
        assert second.fencing_token > first.fencing_token
        with pytest.raises(JobHeldError):
            store.acquire("job", owner="one", ttl=LONG, replacing=first.fencing_token)

    def test_tokens_never_repeat(self, store: JobStore, make_store: MakeStore, expire: Expire) -> None:
        """Tokens grow with every grant, however it came about, also after `delete`."""
        other = self._shared(store, make_store)
        tokens = [store.acquire("job", owner="one", ttl=LONG).fencing_token for _ in range(20)]
        tokens.append(other.acquire("job", owner="two", ttl=LONG, replacing=tokens[-1]).fencing_token)
        for _ in range(5):
            store.delete("job")
            tokens.append(other.acquire("job", owner="one", ttl=LONG).fencing_token)
        store.delete("job")
        short = store.acquire("job", owner="one", ttl=SHORT)
        expire(short)
        tokens += [short.fencing_token, other.acquire("job", owner="two", ttl=LONG).fencing_token]
        assert tokens == sorted(set(tokens))

    @pytest.mark.parametrize("how", _OVERTAKEN)
    def test_a_zombie_changes_nothing(self, store: JobStore, make_store: MakeStore, expire: Expire, how: str) -> None:
        """A process that lost its lease and does not know it can neither save, renew nor release."""
        job, zombie = self.begin(store, ttl=SHORT if how == "expired" else LONG)
        self._overtake(self._shared(store, make_store), zombie, how, expire)
        before = store.load("job")
        late = attrs.evolve(job, status=JobStatus.FAILED, processed_records=20, cursor=[20], error="ValueError: late")
        for write in (
            partial(store.save, late, zombie),
            partial(store.renew, zombie, LONG),
            partial(store.release, zombie),
        ):
            with pytest.raises(LeaseLostError) as caught:
                write()
            assert caught.value.job_id == "job"
            assert store.load("job") == before

    def test_a_lease_that_merely_ran_out_is_good(self, store: JobStore, expire: Expire) -> None:
        """While no other lease was granted, save, renew and release still work; save and renew revive the lease."""
        job, lease = self.begin(store, ttl=SHORT)
        expire(lease)
        assert self._shown(store) is None
        lease = store.renew(lease, SHORT)
        expire(lease)
        saved = store.save(attrs.evolve(job, processed_records=20), lease)
        assert saved.expires_at > lease.expires_at
        stored = store.load("job")
        assert stored is not None
        assert stored.processed_records == 20
        expire(saved)
        store.renew(lease, LONG)
        shown = self._shown(store)
        assert shown is not None
        assert shown.fencing_token == lease.fencing_token

    def test_an_expired_lease_can_be_released(self, store: JobStore, expire: Expire) -> None:
        """Releasing what nobody else holds is fine."""
        _, lease = self.begin(store, ttl=SHORT)
        expire(lease)
        store.release(lease)
        assert self._shown(store) is None

    def test_renew_extends_the_lease(self, store: JobStore) -> None:
        """The lease ends `ttl` seconds after the renewal."""
        lease = store.acquire("job", owner="one", ttl=60.0)
        renewed = store.renew(lease, LONG)
        assert (renewed.owner, renewed.fencing_token) == ("one", lease.fencing_token)
        extension = (renewed.expires_at - lease.expires_at).total_seconds()
        assert LONG - 60.0 <= extension < LONG
        assert self._shown(store) == renewed

    def test_save_extends_the_lease(self, store: JobStore) -> None:
        """A checkpoint renews the lease, by as long as it was last renewed for."""
        job, lease = self.begin(store, ttl=60.0)
        saved = store.save(job, lease)
        assert saved.fencing_token == lease.fencing_token
        assert saved.expires_at >= lease.expires_at
        renewed = store.renew(saved, LONG)
        again = store.save(job, renewed)
        assert again.expires_at >= renewed.expires_at
        assert self._shown(store) == again

    def test_a_heartbeat_may_renew_while_another_thread_saves(self, store: JobStore) -> None:
        """`renew` and `save` under one lease do not disturb each other."""
        job, lease = self.begin(store)

        def save() -> None:
            for number in range(10):
                store.save(attrs.evolve(job, processed_records=number), lease)

        def renew() -> None:
            for _ in range(10):
                store.renew(lease, LONG)

        assert in_threads([save, renew]) == [None, None]
        stored = store.load("job")
        assert stored is not None
        assert stored.processed_records == 9

    def test_a_stop_is_seen_at_the_next_save(self, store: JobStore, make_store: MakeStore) -> None:
        """A stop asked for from elsewhere reaches the worker with its next checkpoint."""
        job, lease = self.begin(store)
        assert not store.save(job, lease).stop_requested
        self._shared(store, make_store).request_stop("job")
        assert store.save(job, lease).stop_requested

    def test_a_stop_is_seen_at_the_next_renewal(self, store: JobStore, make_store: MakeStore) -> None:
        """A stop asked for from elsewhere reaches the worker with its next heartbeat."""
        _, lease = self.begin(store)
        assert not store.renew(lease, LONG).stop_requested
        self._shared(store, make_store).request_stop("job")
        assert store.renew(lease, LONG).stop_requested

    @pytest.mark.parametrize("replaces", [False, True])
    def test_the_same_owner_is_still_to_stop(self, store: JobStore, *, replaces: bool) -> None:
        """An attempt that lost an answer acquires anew; whoever asked it to stop is still heard."""
        job, lease = self.begin(store)
        store.request_stop("job")
        for _ in range(2):
            lease = store.acquire(
                "job", owner=lease.owner, ttl=LONG, replacing=lease.fencing_token if replaces else None
            )
            assert lease.stop_requested
        assert store.save(job, lease).stop_requested
        assert store.renew(lease, LONG).stop_requested

    @pytest.mark.parametrize("how", ["expired", "released", "replaced"])
    def test_a_grant_clears_a_requested_stop(self, store: JobStore, expire: Expire, how: str) -> None:
        """A stop is meant for the attempt that was running, not for the next one."""
        job, lease = self.begin(store, ttl=SHORT if how == "expired" else LONG)
        store.request_stop("job")
        taken = self._overtake(store, lease, how, expire)
        assert taken is not None
        assert not taken.stop_requested
        assert not store.save(job, taken).stop_requested
        assert not store.renew(taken, LONG).stop_requested

    @pytest.mark.parametrize("state", ["unknown", "released", "expired"])
    def test_a_stop_without_a_worker_does_nothing(self, store: JobStore, expire: Expire, state: str) -> None:
        """Without a live lease there is nobody to stop, now or later."""
        if state == "unknown":
            store.request_stop("job")
            assert store.load("job") is None
            return
        job, lease = self.begin(store, ttl=SHORT if state == "expired" else LONG)
        if state == "expired":
            expire(lease)
            store.request_stop("job")
            assert not store.save(job, lease).stop_requested
        else:
            store.release(lease)
            store.request_stop("job")
            assert not store.acquire("job", owner="two", ttl=LONG).stop_requested

    def _shared(self, store: JobStore, make_store: MakeStore) -> JobStore:
        return make_store() if self.shares_leases else store

    def _shown(self, store: JobStore) -> Lease | None:
        job = store.load("job")
        assert job is not None
        return job.lease

    def _exactly_one(self, answers: list[Any]) -> None:
        granted = [answer for answer in answers if isinstance(answer, Lease)]
        foreign = [answer for answer in answers if not isinstance(answer, (Lease, JobHeldError))]
        assert foreign == []
        assert len(granted) == 1

    def _overtake(self, store: JobStore, lease: Lease, how: str, expire: Expire) -> Lease | None:
        """Let the job pass to somebody else, who makes progress; give the new lease, if there is one."""
        if how.startswith("deleted"):
            store.delete(lease.job_id)
            if how == "deleted":
                return None
        if how == "expired":
            expire(lease)
        if how == "released":
            store.release(lease)
        replacing = lease.fencing_token if how in {"replaced", "overtaken and finished"} else None
        owner = lease.owner if how == "same owner" else "successor"
        taken = store.acquire(lease.job_id, owner=owner, ttl=LONG, replacing=replacing)
        job = Job(id=lease.job_id, status=JobStatus.RUNNING, run=1, attempt=2, cursor=[15], processed_records=15)
        if how == "overtaken and finished":
            store.save(attrs.evolve(job, status=JobStatus.COMPLETED), taken)
            store.release(taken)
        elif not taken.stop_requested:
            answer = store.save(job, taken)
            assert not answer.stop_requested
        return taken


def _shift_clock(monkeypatch: pytest.MonkeyPatch, store: JobStore) -> None:
    """Put the clock of this process an hour ahead, as far as Python code can read it."""
    now, now_ns = time.time, time.time_ns

    class Kind(type):
        @override
        def __instancecheck__(cls, instance: object) -> bool:
            return isinstance(instance, dt.datetime)

    class Fast(dt.datetime, metaclass=Kind):
        @classmethod
        @override
        def now(cls, tz: dt.tzinfo | None = None) -> Any:
            return dt.datetime.now(tz) + dt.timedelta(seconds=_HOUR)

    monkeypatch.setattr(time, "time", lambda: now() + _HOUR)
    monkeypatch.setattr(time, "time_ns", lambda: now_ns() + int(_HOUR) * 10**9)
    module = sys.modules[type(store).__module__]
    if getattr(module, "datetime", None) is dt.datetime:
        monkeypatch.setattr(module, "datetime", Fast)
