"""The histories of the parts of a job, put together for the whole."""

from collections.abc import Sequence
from datetime import timedelta

from resumable_sync._history import History, Sample
from resumable_sync._model import AttemptRecord

__all__ = ["together"]

STRETCHES = 150


def together(run_id: str | None, attempts: Sequence[AttemptRecord], histories: Sequence[History]) -> History | None:
    """Give how the whole went: stretches of equal length, with what all parts did in each.

    Seconds of reading, writing and committing are those of all workers, and may be more than a stretch is long.

    Args:
        run_id: UUID of the run of the whole.
        attempts: Those of the whole.
        histories: Of the parts of this run.

    Returns:
        None if there are no samples.
    """
    samples = [sample for history in histories for sample in history.samples]
    if not samples:
        return None
    start = min(sample.started_at for sample in samples)
    length = max((max(sample.ended_at for sample in samples) - start).total_seconds() / STRETCHES, 0.001)
    sums = [dict.fromkeys(_SUMS, 0.0) for _ in range(STRETCHES)]
    for sample in samples:
        begin = (sample.started_at - start).total_seconds()
        for place, share in _shares(begin, sample.seconds, length):
            for name in _SUMS:
                sums[place][name] += getattr(sample, name) * share
    stretches: list[Sample] = []
    told = dict.fromkeys(_COUNTS, 0)  # whole numbers that add up, whatever was rounded
    reached = dict.fromkeys(_COUNTS, 0.0)
    for place, found in enumerate(sums):
        counts = {}
        for name in _COUNTS:
            reached[name] += found[name]
            counts[name] = round(reached[name]) - told[name]
            told[name] += counts[name]
        begun = start + timedelta(seconds=place * length)
        stretches.append(
            Sample(
                attempt=max((one.attempt for one in attempts if one.started_at <= begun), default=1),
                started_at=begun,
                seconds=length,
                records=counts["records"],
                batches=counts["batches"],
                failed_tries=counts["failed_tries"],
                read_seconds=found["read_seconds"],
                write_seconds=found["write_seconds"],
                commit_seconds=found["commit_seconds"],
                processed_records=told["records"],
            )
        )
    first = histories[0]
    return History(run_id=run_id, guarantee=first.guarantee, format=first.format, samples=tuple(stretches))


_COUNTS = ("records", "batches", "failed_tries")
_SUMS = (*_COUNTS, "read_seconds", "write_seconds", "commit_seconds")


def _shares(begin: float, seconds: float, length: float) -> list[tuple[int, float]]:
    """Give the stretches that a sample lies in, and which part of it in each; all parts together are 1."""
    first = min(int(begin / length), STRETCHES - 1)
    last = min(int((begin + seconds) / length), STRETCHES - 1)
    if first == last or seconds <= 0:
        return [(first, 1.0)]
    edges = [begin, *(place * length for place in range(first + 1, last + 1)), begin + seconds]
    return [(first + place, (edges[place + 1] - edges[place]) / seconds) for place in range(last - first + 1)]
