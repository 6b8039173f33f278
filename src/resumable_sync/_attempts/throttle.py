"""Holding a rate: when the next batch may be delivered."""

import threading
import time
from collections.abc import Callable
from typing import Any

import attrs
from typing_extensions import override

from resumable_sync._errors import ConfigurationError

__all__ = ["Throttle"]


def _check_rate(_instance: object, _attribute: object, value: Any) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 < value < float("inf"):
        msg = f"Throttle({value!r}) is not possible; give it records per second, a number above 0, such as 500"
        raise ConfigurationError(msg)


@attrs.define(eq=False)
class Throttle:
    """Deliver no more than so many records a second: `run_full_sync(..., throttle=Throttle(500))`.

    Each batch is delivered whole, at the earliest when the ones before it have taken their share of time: 1,000 records
    at 500 a second keep the next batch back for two seconds after this one began. Over any stretch of time that ends
    where a batch begins, no more than the rate is delivered. Time in which nothing was delivered is lost: after a pause
    there is no burst to catch up. Only what is delivered with this object counts, nothing of earlier attempts.

    Syncs of several threads may share it; the rate is then that of all together. A copy in another process, which
    pickling makes, begins anew and holds a rate of its own.

    Args:
        records_per_second: The rate, above 0; for ten records a minute `10 / 60`.
        clock: Gives seconds that never go back; tests pass their own.

    Raises:
        ConfigurationError: If the rate is no number above 0.

    References:
        The virtual scheduling algorithm (GCRA) of ITU-T Recommendation I.371, with no tolerance: a leaky bucket that is
        read as the time at which it will be empty.

    Examples:
        >>> seconds = [0.0]
        >>> throttle = Throttle(500, clock=lambda: seconds[0])
        >>> throttle.reserve(1_000), throttle.reserve(1_000)
        (0.0, 2.0)
    """

    records_per_second: float = attrs.field(validator=_check_rate, on_setattr=attrs.setters.frozen)
    _clock: Callable[[], float] = attrs.field(default=time.monotonic, kw_only=True, repr=False)
    _lock: Any = attrs.field(factory=threading.Lock, init=False, repr=False)
    _free_at: float = attrs.field(default=float("-inf"), init=False, repr=False)

    def reserve(self, records: int) -> float:
        """Take a place in the schedule for a batch of so many records; give the seconds until it may begin."""
        with self._lock:
            now = self._clock()
            begins = max(now, self._free_at)
            self._free_at = begins + records / self.records_per_second
        return begins - now

    def give_back(self, records: int) -> None:
        """Give up a place that was reserved: its batch is not delivered."""
        with self._lock:
            self._free_at -= records / self.records_per_second

    @override
    def __reduce__(self) -> Any:
        # The other process has a lock and a monotonic clock of its own.
        return _make, (self.records_per_second, self._clock)


def _make(rate: float, clock: Callable[[], float]) -> Throttle:
    return Throttle(rate, clock=clock)
