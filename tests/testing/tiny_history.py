"""A store with histories, with a switch for each mistake that an implementor could make."""

import contextlib
from typing import Any

import attrs
from typing_extensions import override

from resumable_sync import History, Lease, LeaseLostError, MemoryJobStore


class TinyHistory(MemoryJobStore):
    """Correct without bugs; each of `bugs` is one that the suite must find."""

    def __init__(self, *bugs: str, clock: Any = None) -> None:
        super().__init__(clock=clock)
        self.bugs = bugs

    @override
    def keep_history(self, history: History | None, lease: Lease) -> None:
        if "a zombie writes" in self.bugs:
            with contextlib.suppress(LeaseLostError):
                super().keep_history(history, lease)
            self._histories[lease.job_id] = history
            return
        if "seconds are whole" in self.bugs and history is not None:
            samples = tuple(attrs.evolve(one, seconds=float(int(one.seconds))) for one in history.samples)
            history = attrs.evolve(history, samples=samples)
        if "it is added to" in self.bugs and history is not None:
            before = self._histories.get(lease.job_id)
            history = attrs.evolve(history, samples=(before.samples if before else ()) + history.samples)
        super().keep_history(history, lease)

    @override
    def release(self, lease: Lease) -> None:
        super().release(lease)
        if "it ends with the attempt" in self.bugs:
            del self._histories[lease.job_id]

    @override
    def delete(self, job_id: str) -> None:
        before = self._histories.get(job_id)
        super().delete(job_id)
        if "delete keeps it" in self.bugs:
            self._histories[job_id] = before


FOUND_BY = {
    "a zombie writes": "a_zombie_writes_no_history[at work]",
    "seconds are whole": "a_history_is_kept",
    "it is added to": "a_history_is_kept",
    "it ends with the attempt": "it_outlives_the_attempt",
    "delete keeps it": "it_can_be_forgotten[deleted]",
}
"""The test that finds each mistake."""
