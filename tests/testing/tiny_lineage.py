"""A store with a lineage, with a switch for each mistake that an implementor could make."""

from collections import deque
from collections.abc import Sequence
from typing import Any

import attrs
from typing_extensions import override

from resumable_sync import AttemptRecord, Lease, LeaseLostError, MemoryJobStore


class TinyLineage(MemoryJobStore):
    """Correct without bugs; each of `bugs` is one that the suite must find."""

    def __init__(self, *bugs: str, clock: Any = None) -> None:
        super().__init__(clock=clock)
        self.bugs = bugs

    @override
    def attempts(self, job_id: str) -> Sequence[AttemptRecord]:
        attempts = list(super().attempts(job_id))
        if "the newest comes first" in self.bugs:
            attempts.reverse()
        if "a dead attempt is running for ever" in self.bugs:
            attempts = [attrs.evolve(one, outcome="running") if one.outcome == "died" else one for one in attempts]
        if "nobody knows when it ended" in self.bugs:
            attempts = [attrs.evolve(one, ended_at=None) for one in attempts]
        if "a new run begins where the last one ended" in self.bugs:
            pairs = zip(attempts, [None, *attempts], strict=False)
            attempts = [one if old is None else attrs.evolve(one, from_records=old.to_records) for one, old in pairs]
        if "how far it is shows at its end" in self.bugs and attempts and attempts[-1].outcome == "running":
            attempts[-1] = attrs.evolve(attempts[-1], to_cursor=None, to_records=0)
        return attempts

    @override
    def acquire(self, job_id: str, *, owner: str, ttl: float, replacing: int | None = None) -> Lease:
        attempts = self._attempts.setdefault(job_id, deque(maxlen=100))
        if "it grows without bounds" in self.bugs:
            self._attempts[job_id] = deque(attempts)
        if "the same owner begins another attempt" in self.bugs and attempts and attempts[-1].owner == owner:
            attempts[-1] = attrs.evolve(attempts[-1], owner="somebody else")
        return super().acquire(job_id, owner=owner, ttl=ttl, replacing=replacing)

    @override
    def release(self, lease: Lease) -> None:
        before = list(self._attempts.get(lease.job_id, ()))
        try:
            super().release(lease)
        except LeaseLostError:
            if "a zombie ends its attempt" in self.bugs and before:
                self._attempts[lease.job_id][0] = attrs.evolve(before[0], outcome="interrupted")
            raise
        if "a lease without use is an attempt" in self.bugs and len(self._attempts[lease.job_id]) < len(before):
            self._attempts[lease.job_id].append(before[-1])

    @override
    def delete(self, job_id: str) -> None:
        before = self._attempts.get(job_id)
        super().delete(job_id)
        if "delete keeps it" in self.bugs and before is not None:
            self._attempts[job_id] = before


FOUND_BY = {
    "the newest comes first": "attempts_follow_each_other",
    "a dead attempt is running for ever": "an_attempt_that_died[replaced]",
    "nobody knows when it ended": "given_back_without_a_word",
    "a new run begins where the last one ended": "attempts_follow_each_other",
    "how far it is shows at its end": "an_attempt_at_work_is_shown",
    "it grows without bounds": "only_the_newest_are_kept",
    "the same owner begins another attempt": "the_same_owner_goes_on_with_its_attempt[again]",
    "a zombie ends its attempt": "a_zombie_does_not_write_lineage[at work]",
    "a lease without use is an attempt": "a_lease_that_was_not_used_leaves_nothing",
    "delete keeps it": "lineage_belongs_to_its_job",
}
"""The test that finds each mistake."""
