"""How many records to put into a batch, by what the last ones took: `batch_size="auto"`."""

import statistics
from collections import deque
from typing import Self

import attrs

__all__ = ["BatchSizer", "first_size"]

START = 1_000
LEAST = 100
MOST = 100_000

TARGET_SECONDS = 1.0
"""What a batch should take on the slower side. A checkpoint costs a few milliseconds at most, so that longer batches
gain nothing; and a second is what a death costs, and how long a stop waits for the batch in hand."""

BAND = 1.6
"""The size is changed when the time is off by this factor. Above the square root of 2, since a size that was doubled
because it was too small by the factor must not be too large by it."""

ENOUGH = 3
"""So many batches of a size must be seen before it is changed: one that is slow by chance decides nothing."""

URGENT = 4.0
"""Where batches take so many times what they should, one less is enough, whatever else would ask for more."""

WIDE_BAND = 2.0
WINDOW = 7
"""The factor and the number of batches for a change that would undo the one before; no more are looked at."""

PATIENCE = 100
"""After so many batches of a size a larger one is given another chance that was far too slow; doubles each time."""

TRUSTED = 2.0
"""A fixed cost is believed until batches of the same size take so many times what they did when it was measured."""


@attrs.define
class _Side:
    """What batches take on one side, reading or writing, as `fixed + records * per record`.

    Attributes:
        times: Seconds of the last batches of the size in use.
    """

    times: deque[float] = attrs.field(factory=lambda: deque(maxlen=WINDOW))
    _before: tuple[int, float, float] | None = None  # the size before this one, what it took, and took at least
    _share: float = 0.0  # of the time, what is fixed
    _measured: float = 0.0  # the time when that was found out

    @property
    def typical(self) -> float:
        return statistics.median_low(self.times)

    @property
    def fixed(self) -> float:
        """What a batch takes however small it is; below 0 where the double size takes more than the double time."""
        typical = self.typical
        return self._share * typical if typical <= TRUSTED * self._measured else 0.0

    def leave(self, size: int) -> None:
        """Forget the batches of a size, but for what is to be compared with those of the next."""
        if len(self.times) > 1:
            self._before = size, self.typical, min(self.times)
        self.times.clear()
        self._share = self._measured = 0.0

    def compare(self, size: int) -> None:
        """Find out by the size before this one what is fixed."""
        typical = self.typical
        if self._before is None or self._before[0] == size or typical == 0:
            return
        other_size, other, least = self._before
        self._share = min(1.0, 1 - (typical - other) / (size - other_size) * size / typical)
        if self._share < 0:  # where batches of the other size were slow by chance, not all of them were
            self._share = min(0.0, 1 - (typical - least) / (size - other_size) * size / typical)
        self._measured = typical

    def forgive(self) -> None:
        """Forget that a larger size took far too long: it may have been chance, or over."""
        self._share = max(0.0, self._share)

    def room(self, target: float) -> float:
        """Give by what factor the size may grow, or must shrink, to take `target` seconds."""
        typical, fixed = self.typical, self.fixed
        if typical > target:
            fixed = max(0.0, fixed)
        return (target - fixed) / (typical - fixed) if typical > fixed else float("inf")


def first_size(size: int | None, stalled_attempts: int) -> int | None:
    """Give the size of the first batch after deaths without progress, which halves with each; None if there were none.

    Args:
        size: The batch size; None for the one that `BatchSizer` begins with.
        stalled_attempts: How many attempts died without progress.
    """
    return max(1, (size or START) >> min(stalled_attempts, 64)) if stalled_attempts else None


class BatchSizer:
    """Doubles and halves the batch size towards `TARGET_SECONDS`; the slower one of reading and writing decides.

    It is told what each batch took to be read and to be written, without any waiting, and for how many records the
    source was asked. A size is judged by the median of some batches, and left only when it is off by a good deal.

    What a batch takes however small it is (a slow request, say) does not become less with the size. It is found out by
    comparing a size with the one before, and where it is more than half of the target, a batch may take twice that.

    Args:
        size: Where to begin.

    Attributes:
        size: How many records to ask for; `LEAST` to `MOST`. The reader's thread reads it.

    References:
        pt-online-schema-change (`--chunk-time`) and Spirit choose the size of the next chunk by the time of the last
        ones. In Spirit that was also the time in a queue, which does not become less with the size, and the size went
        down to its floor (https://github.com/block/spirit/pull/1072): hence what is measured here, and the fixed cost.
    """

    def __init__(self, size: int = START) -> None:
        self.size = min(max(size, LEAST), MOST)
        self._in_use: int | None = None
        self._seen = 0
        self._last_change = 0
        self._patience = PATIENCE
        self._reading, self._writing = self._sides = _Side(), _Side()

    @classmethod
    def resume(cls, learned: int | None, stalled_attempts: int) -> Self:
        """Go on with what earlier attempts came to, with half of it after deaths without progress.

        Args:
            learned: The size that the job was saved with; None if it never was.
            stalled_attempts: How many attempts died without progress.
        """
        size = learned or START
        return cls(size // 2 if stalled_attempts else size)

    def took(self, asked: int, records: int, read_seconds: float, write_seconds: float) -> None:
        """Take in what a batch took, and choose the size anew.

        Args:
            asked: For how many records the source was asked.
            records: How many it gave.
            read_seconds: What reading them took.
            write_seconds: What writing them took.
        """
        if self._in_use is None and asked != self.size:
            return  # after a death the reader works its way up, one by one
        if asked != self._in_use:
            self._change(asked)
        self._seen += 1
        self._reading.times.append(read_seconds)
        self._writing.times.append(write_seconds)
        if 1 < self._seen <= WINDOW:
            for side in self._sides:
                side.compare(asked)
        elif self._seen == self._patience:
            for side in self._sides:
                side.forgive()
        wanted = self._wanted(asked, full=2 * records >= asked)
        # A change that the reader has not come to yet is taken back only where the opposite is called for.
        if self.size == asked or (wanted - asked) * (self.size - asked) < 0:
            self.size = wanted

    def _change(self, asked: int) -> None:
        if self._in_use is not None:
            change = asked - self._in_use
            if change < 0 < self._last_change:
                self._patience *= 2
            self._last_change = change
            for side in self._sides:
                side.leave(self._in_use)
        self._in_use, self._seen, self.size = asked, 0, asked

    def _wanted(self, asked: int, *, full: bool) -> int:
        if self._seen < ENOUGH - 1:
            return asked
        target = max(TARGET_SECONDS, *(2 * side.fixed for side in self._sides))
        room = min(side.room(target) for side in self._sides)
        if self._seen < ENOUGH and room > 1 / URGENT:
            return asked
        larger, smaller = max(asked, min(2 * asked, MOST)), min(asked, max(asked // 2, LEAST))
        # A source that gives less than it is asked for would not give more.
        if full and self._calls_for(room, larger - asked):
            return larger
        return smaller if self._calls_for(1 / room if room > 0 else float("inf"), smaller - asked) else asked

    def _calls_for(self, factor: float, change: int) -> bool:
        # To grow although batches take long already needs to be sure of the fixed cost.
        doubtful = change > 0 and any(side.typical > TARGET_SECONDS for side in self._sides)
        undoes = change * self._last_change < 0
        careful = doubtful or (undoes and factor < URGENT)
        return factor >= (WIDE_BAND if undoes else BAND) and (self._seen >= WINDOW or not careful)
