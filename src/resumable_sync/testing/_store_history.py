"""`JobStoreSuite`, fifth part: how the current run went."""

from datetime import UTC, datetime, timedelta
from functools import partial

import attrs
import pytest

from resumable_sync._errors import LeaseLostError
from resumable_sync._history import History, HistoryStore, Sample
from resumable_sync._model import Guarantee
from resumable_sync._protocols import JobStore
from resumable_sync.testing._store_base import LONG, SHORT, Expire, MakeStore, StoreBase

__all__ = ["StoredHistory"]

_RUN_ID = "0a1b2c3d-0000-4000-8000-0123456789ab"
_START = datetime(2026, 11, 28, 12, 30, 1, 234_567, tzinfo=UTC)


def _history(samples: int = 3, run_id: str = _RUN_ID) -> History:
    """Give one with every field in use."""
    return History(
        run_id=run_id,
        guarantee=Guarantee.AT_LEAST_ONCE,
        format="a form",
        samples=tuple(
            Sample(
                attempt=1 + number // 2,
                started_at=_START + timedelta(seconds=number),
                seconds=1.000_001,
                records=2**40 + number,
                batches=5,
                read_seconds=0.25,
                write_seconds=0.5,
                commit_seconds=0.000_001,
                failed_tries=2,
                processed_records=2**50 + number,
            )
            for number in range(samples)
        ),
        stops={1: "a stop was requested: é\x00", 2: ""},
    )


class StoredHistory(StoreBase):
    """What `HistoryStore` promises; skipped for stores that keep no history."""

    @pytest.fixture
    def histories(self, store: JobStore) -> HistoryStore:
        """Give the store, if it keeps histories."""
        if not isinstance(store, HistoryStore):
            pytest.skip("the store keeps no history")
        return store

    def test_a_job_without_history(self, histories: HistoryStore) -> None:
        """Asking makes nothing, and a new job has none."""
        assert histories.history("nobody") is None
        assert list(histories.jobs()) == []
        histories.acquire("job", owner="one", ttl=LONG)
        assert histories.history("job") is None

    def test_a_history_is_kept(self, histories: HistoryStore, make_store: MakeStore) -> None:
        """It comes back as it was, in another process too, and a later one takes its place."""
        _, lease = self.begin(histories)
        for history in (_history(), _history(0, run_id=_RUN_ID.replace("a", "b"))):
            histories.keep_history(history, lease)
            other = make_store()
            assert isinstance(other, HistoryStore)
            assert histories.history("job") == other.history("job") == history
        longest = _history(300)
        histories.keep_history(longest, lease)
        whole = histories.history("job") == longest
        assert whole  # not compared in the assert: pytest would take minutes to show the difference

    def test_it_outlives_the_attempt(self, histories: HistoryStore) -> None:
        """The next attempt finds it and goes on with it."""
        _, lease = self.begin(histories)
        histories.keep_history(_history(1), lease)
        histories.release(lease)
        successor = histories.acquire("job", owner="two", ttl=LONG)
        assert histories.history("job") == _history(1)
        histories.keep_history(_history(2), successor)
        assert histories.history("job") == _history(2)

    @pytest.mark.parametrize("how", ["deleted", "dropped"])
    def test_it_can_be_forgotten(self, histories: HistoryStore, how: str) -> None:
        """With its job, and without."""
        _, lease = self.begin(histories)
        histories.keep_history(_history(), lease)
        if how == "deleted":
            histories.delete("job")
            histories.acquire("job", owner="one", ttl=LONG)
        else:
            histories.keep_history(None, lease)
        assert histories.history("job") is None

    @pytest.mark.parametrize("successor", ["at work", "has written", "same owner", "gone"])
    def test_a_zombie_writes_no_history(self, histories: HistoryStore, expire: Expire, successor: str) -> None:
        """From the grant to its successor on, whether that has written anything or not."""
        _, zombie = self.begin(histories, ttl=SHORT)
        histories.keep_history(_history(1), zombie)
        expire(zombie)
        kept: History | None = _history(1)
        if successor == "gone":
            histories.delete("job")
            kept = None
        else:
            taken = histories.acquire("job", owner="one" if successor == "same owner" else "two", ttl=LONG)
            if successor == "has written":
                kept = _history(2)
                histories.keep_history(kept, taken)
        for write in (_history(3), None):
            with pytest.raises(LeaseLostError):
                histories.keep_history(write, zombie)
            assert histories.history("job") == kept

    def test_a_lease_that_merely_ran_out_may_write_history(self, histories: HistoryStore, expire: Expire) -> None:
        """As it may save."""
        _, lease = self.begin(histories, ttl=SHORT)
        expire(lease)
        histories.keep_history(_history(), lease)
        assert histories.history("job") == _history()

    def test_history_belongs_to_its_job(self, histories: HistoryStore) -> None:
        """Ids are exact."""
        keep = partial(attrs.evolve, _history())
        for number, job_id in enumerate(("job", "JOB", "job ")):
            histories.keep_history(keep(stops={number: "x"}), histories.acquire(job_id, owner="one", ttl=LONG))
        histories.delete("JOB")
        assert [histories.history(job_id) for job_id in ("job", "JOB", "job ")] == [
            keep(stops={0: "x"}),
            None,
            keep(stops={2: "x"}),
        ]
