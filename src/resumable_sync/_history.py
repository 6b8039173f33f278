"""The history of a run: samples of where its time went, in bounded space, and the protocol of stores that keep it."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Protocol, runtime_checkable

import attrs

from resumable_sync._formats import RECORDS
from resumable_sync._model import Guarantee, Lease
from resumable_sync._protocols import JobStore

__all__ = ["MAX_SAMPLES", "History", "HistoryStore", "Sample", "thinned"]

MAX_SAMPLES = 300
"""How many samples of a run are kept: a chart can show no more, and they take no more than some 20 KB."""

_RECENT = 4
"""The oldest samples become at most about so many times as long, and one, as the newest."""


@attrs.frozen(kw_only=True)
class Sample:
    """What a stretch of an attempt brought, and where its time went. Sums: two stretches side by side make one.

    Attributes:
        attempt: Number of the attempt in its run.
        started_at: When the stretch began, by the store's clock.
        seconds: How long it was. What of it is neither read, write nor commit was spent waiting: for a throttle, or
            until the first page was asked for.
        records: Records delivered in it.
        batches: Batches delivered in it.
        read_seconds: How long the engine waited for pages.
        write_seconds: How long the sink took; in a loop of the caller's, the caller.
        commit_seconds: How long the store took to save and commit.
        failed_tries: Calls that failed with a transient error and were tried again, or given up.
        processed_records: Records of the run that were processed at its end.
    """

    attempt: int
    started_at: datetime
    seconds: float
    records: int
    batches: int
    read_seconds: float
    write_seconds: float
    commit_seconds: float
    failed_tries: int = 0
    processed_records: int

    @property
    def ended_at(self) -> datetime:
        """When the stretch ended."""
        return self.started_at + timedelta(seconds=self.seconds)

    def __add__(self, later: "Sample") -> "Sample":
        """Give this stretch and the one that follows it as one."""
        return Sample(
            attempt=self.attempt,
            started_at=self.started_at,
            seconds=(later.ended_at - self.started_at).total_seconds(),
            records=self.records + later.records,
            batches=self.batches + later.batches,
            read_seconds=self.read_seconds + later.read_seconds,
            write_seconds=self.write_seconds + later.write_seconds,
            commit_seconds=self.commit_seconds + later.commit_seconds,
            failed_tries=self.failed_tries + later.failed_tries,
            processed_records=later.processed_records,
        )


@attrs.frozen(kw_only=True)
class History:
    """How a run went, beyond what its job and attempts say.

    Attributes:
        run_id: UUID of the run; that of another one says nothing about the job's current run.
        guarantee: What held for the target in its last attempt.
        format: The form in which records went from connector to sink, as in `Plan`.
        samples: At most 300, in the order in which they were taken.
        stops: Why attempts were interrupted, by number of the attempt: the last hundred of them.
    """

    run_id: str | None
    guarantee: Guarantee
    format: str = RECORDS
    samples: tuple[Sample, ...] = ()
    stops: Mapping[int, str] = attrs.field(factory=dict)


@runtime_checkable
class HistoryStore(JobStore, Protocol):
    """A store that also keeps the history of each job's current run.

    The engine gives it once a second at most, and less often the longer an attempt lasts, in a call of its own between
    two batches. One that fails never fails the sync.

    Implementations must:

    - keep what was given last, whole, and give it back as it was;
    - refuse it under a token that is not the newest with `LeaseLostError`, and change nothing then;
    - forget it with `delete`, and where None is given.
    """

    def keep_history(self, history: History | None, lease: Lease) -> None:
        """Keep the history of the job's current run instead of what was kept before.

        Args:
            history: The history; None: there is none any more.
            lease: The lease under which the job is worked on.

        Raises:
            LeaseLostError: If the lease's token is not the newest.
        """
        ...

    def history(self, job_id: str) -> History | None:
        """Give the history of the job's current run; None if nothing is kept.

        It may be that of the run before, until the current one has lasted a second.

        Raises:
            StateCorruptError: If what is kept is damaged. (A sync does not look at it, and goes on.)
        """
        ...


def thinned(samples: Sequence[Sample], limit: int = MAX_SAMPLES) -> tuple[Sample, ...]:
    """Give samples with neighbours put together until there are few enough: short and old ones first.

    Nothing is lost but where inside a stretch something happened. Samples of two attempts stay apart, unless there are
    more attempts than samples may be: then those of the oldest attempts are left out.

    Args:
        samples: In the order in which they were taken.
        limit: How many there may be, 1 or more.
    """
    kept = list(samples)
    starts = [one.started_at.timestamp() for one in kept]
    ends = [start + one.seconds for start, one in zip(starts, kept, strict=True)]
    while len(kept) > limit:
        place = _cheapest([one.attempt for one in kept], starts, ends)
        if place is None:
            del kept[0], starts[0], ends[0]
            continue
        kept[place : place + 2] = [kept[place] + kept[place + 1]]
        del starts[place + 1], ends[place]
    return tuple(kept)


def _cheapest(attempts: Sequence[int], starts: Sequence[float], ends: Sequence[float]) -> int | None:
    """Give the place of the pair that is missed the least where it becomes one; None if all attempts differ."""
    whole = ends[-1] - starts[0]
    costs = [
        ((ends[place + 1] - starts[place]) / (max(ends[-1] - starts[place], 0.0) + abs(whole) / _RECENT + 1), place)
        for place in range(len(starts) - 1)
        if attempts[place] == attempts[place + 1]
    ]
    return min(costs)[1] if costs else None
