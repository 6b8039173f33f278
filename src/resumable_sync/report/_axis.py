"""Where a time or a value stands on a chart, and what the axis says."""

import bisect
import math
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

import attrs

from resumable_sync.report._words import clock, compact

__all__ = ["Tick", "TimeAxis", "nice_top", "value_ticks"]

MOST_GAP = 0.05
"""A time in which nobody was at work takes at most this part of the width, however long it was."""

TICKS = 6
LETTER = 0.021
"""What part of the width a letter takes, at most; of two labels on a narrow screen only one is shown."""

EDGE = 0.06
"""A label that is nearer to an end than this is written towards the middle."""

_ROUND = (1, 1.5, 2, 3, 4, 5, 6, 8, 10, 15)
_STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400)


@attrs.frozen
class Tick:
    """A place on an axis, from 0 to 1, and its label."""

    place: float
    label: str

    @property
    def side(self) -> str | None:
        """The side at which the label begins where it must not stick out; None: it is centred."""
        return "left" if self.place < EDGE else "right" if self.place > 1 - EDGE else None

    @property
    def span(self) -> tuple[float, float]:
        """Where the label begins and ends."""
        width = LETTER * len(self.label)
        begin = self.place - {"left": 0.0, None: width / 2, "right": width}[self.side]
        return begin, begin + width


class TimeAxis:
    """A time axis that gives its room to the times in which somebody was at work.

    Args:
        spans: When attempts were at work: beginnings and ends, in any order, overlapping or not; at least one.
    """

    def __init__(self, spans: Iterable[tuple[datetime, datetime]]) -> None:
        self._spans = list(_united((start.timestamp(), end.timestamp()) for start, end in spans))
        self._even: list[tuple[float, float]] = []  # where the axis is even: spans with the short gaps between them
        working = sum(end - start for start, end in self._spans) or 1.0
        self._times: list[float] = []
        self._places: list[float] = []
        place = 0.0
        for start, end in self._spans:
            gap = start - self._times[-1] if self._times else 0.0
            if self._even and gap <= working * MOST_GAP:
                self._even[-1] = self._even[-1][0], end
            else:
                self._even.append((start, end))
            place += min(gap, working * MOST_GAP)
            for time, length in ((start, 0.0), (end, end - start)):
                place += length
                self._times.append(time)
                self._places.append(place)
        self._width = place or 1.0

    @property
    def shortened(self) -> bool:
        """Whether a gap takes less room than it lasted."""
        return len(self._even) > 1

    def at(self, time: datetime) -> float:
        """Give the place of a time, from 0 to 1."""
        moment = time.timestamp()
        after = bisect.bisect_left(self._times, moment)
        if after == 0:
            return 0.0
        if after == len(self._times):
            return 1.0 if self._places[-1] else 0.0
        (earlier, later), (low, high) = self._times[after - 1 : after + 1], self._places[after - 1 : after + 1]
        share = (moment - earlier) / (later - earlier) if later > earlier else 0.0
        return (low + share * (high - low)) / self._width

    def ticks(self) -> list[Tick]:
        """Give times of day that are round, where the axis is even and there is room."""
        wanted = sum(end - start for start, end in self._spans) / TICKS
        step = next((step for step in _STEPS if step >= wanted), math.ceil(wanted / 86_400) * 86_400)
        ticks: list[Tick] = []
        for start, end in self._even:
            for count in range(math.ceil(start / step), math.floor(end / step) + 1):
                time = datetime.fromtimestamp(count * step, UTC)
                tick = Tick(self.at(time), clock(time, step))
                if not ticks or tick.span[0] > ticks[-1].span[1] + LETTER:
                    ticks.append(tick)
        first = datetime.fromtimestamp(self._times[0], UTC)
        return ticks or [Tick(0.0, clock(first, 1))]


def _united(spans: Iterable[tuple[float, float]]) -> Iterator[tuple[float, float]]:
    current: tuple[float, float] | None = None
    for start, end in sorted(spans):
        if current is not None and start <= current[1]:
            current = current[0], max(current[1], end)
            continue
        if current is not None:
            yield current
        current = start, max(start, end)
    if current is not None:
        yield current


def nice_top(greatest: float) -> float:
    """Give the round number that an axis ends with, at or above the greatest value."""
    if greatest <= 0:
        return 1.0
    size = 10.0 ** math.floor(math.log10(greatest))
    return float(min(step * size for step in _ROUND if step * size >= greatest * 0.9999))


def value_ticks(top: float, unit: str = "") -> list[Tick]:
    """Give the labels of an axis from 0 to `top`."""
    return [Tick(share, compact(top * share) + (unit if share else "")) for share in (0.0, 0.5, 1.0)]
