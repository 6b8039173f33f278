"""Everything that can ask a sync to stop, and waits that end when something does."""

import signal
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, TypeVar

from resumable_sync._errors import ConfigurationError
from resumable_sync._retry import StopRequested

__all__ = ["Shield", "SignalHandlers", "Stop", "hold_off_signals"]

T = TypeVar("T")

POLL_SECONDS = 0.1
"""How often a wait looks whether something asked to stop."""


class Stop:
    """The wish to stop after the batch in hand; the first reason given stays.

    There is no lock and no event in it: a signal handler may have interrupted whoever holds the lock.

    Attributes:
        reason: Why, or None as long as nothing asked.
        interrupt: Whether the caller must see a KeyboardInterrupt in the end.
        waited: Seconds that `wait` and `sit_out` took so far.
        shielded: Whether a second signal is held off.
        held: What a second signal stands for that is held off; None if there was none.
    """

    def __init__(self, should_stop: Callable[[], bool] | None, max_runtime: float | None) -> None:
        self.reason: str | None = None
        self.interrupt = False
        self.waited = 0.0
        self.shielded = False
        self.held: BaseException | None = None
        self._should_stop = should_stop
        self._max_runtime = max_runtime
        self._deadline: float | None = None
        self._pausing = True

    def start(self) -> None:
        """Let `max_runtime` begin."""
        if self._max_runtime is not None:
            self._deadline = time.monotonic() + self._max_runtime

    def request(self, reason: str) -> None:
        """Ask to stop."""
        if self.reason is None:
            self.reason = reason

    def end_pauses(self) -> None:
        """End the pauses of other threads, those to come too."""
        self._pausing = False

    def check(self) -> bool:
        """Whether something asked to stop; asks `should_stop` and the clock too."""
        if self.reason is None:
            if self._deadline is not None and time.monotonic() >= self._deadline:
                self.request(f"max_runtime={self._max_runtime:g} reached")
            elif self._should_stop is not None and self._should_stop():
                self.request("should_stop() said so")
        return self.reason is not None

    def wait(self, seconds: float) -> bool:
        """Wait, asking everything every tenth of a second; True if something asked to stop."""
        begun = time.monotonic()
        try:
            with self.lifted():
                while not self.check():
                    left = begun + seconds - time.monotonic()
                    if left <= 0:
                        return False
                    time.sleep(min(left, POLL_SECONDS))
        finally:
            self.waited += time.monotonic() - begun
        return True

    def sit_out(self, seconds: float) -> bool:
        """Wait, whatever asks to stop; only a second signal ends it."""
        begun = time.monotonic()
        try:
            with self.lifted():
                time.sleep(seconds)
        finally:
            self.waited += time.monotonic() - begun
        return False

    def pause(self, seconds: float) -> bool:
        """Wait in a thread that must not call `should_stop`; True if something asked to stop, or pauses ended."""
        end = time.monotonic() + seconds
        while self._pausing and self.reason is None:
            left = end - time.monotonic()
            if left <= 0:
                return False
            time.sleep(min(left, POLL_SECONDS))
        return True

    def shield(self) -> "Shield":
        """Give a block that a second signal does not cut in two: it strikes at the block's end.

        An exception out of nowhere would leave a transaction open, or a lease that the heartbeat keeps alive.
        """
        return Shield(self, on=True)

    def lifted(self) -> "Shield":
        """Give a part of a shielded block in which a second signal strikes at once."""
        return Shield(self, on=False)

    def strike(self, error: BaseException) -> None:
        """Raise what a second signal stands for: now, or at the end of the shielded block.

        If one waits for that already, somebody insists: then now, whatever it cuts in two.
        """
        if self.shielded and self.held is None:
            self.held = error
        else:
            self.held = None
            raise error

    def let_go(self) -> None:
        """Raise what was held off, unless it still is."""
        if not self.shielded and self.held is not None:
            error, self.held = self.held, None
            raise error


class Shield:
    """A block with a second signal held off, or let in again; they nest. Made by `Stop`."""

    __slots__ = ("_on", "_outer", "_stop")

    def __init__(self, stop: Stop, *, on: bool) -> None:
        self._stop = stop
        self._on = on
        self._outer = False

    def __enter__(self) -> None:
        stop = self._stop
        self._outer, stop.shielded = stop.shielded, self._on
        if stop.held is not None:
            stop.let_go()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        stop = self._stop
        stop.shielded = self._outer
        if stop.held is not None:
            stop.let_go()


class SignalHandlers:
    """Turns signals into a stop while its block runs, in the main thread; handlers are put back as they were.

    Ctrl-C is taken where Python's own handler is in place: the first one stops after the batch in hand and raises
    KeyboardInterrupt then. With `stop_on_signals` SIGINT and SIGTERM only stop. A second signal strikes at once, or as
    soon as the store has done what it is at.
    """

    def __init__(self, stop: Stop, *, stop_on_signals: bool) -> None:
        self._stop = stop
        self._stop_on_signals = stop_on_signals
        self._before: dict[int, Any] = {}

    def __enter__(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            if self._stop_on_signals:
                msg = "stop_on_signals=True works in the main thread only; use should_stop in other threads"
                raise ConfigurationError(msg)
            return
        wanted: list[signal.Signals] = []
        if self._stop_on_signals:
            wanted = [signal.SIGINT, signal.SIGTERM]
        elif signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            wanted = [signal.SIGINT]
        for number in wanted:
            self._before[number] = signal.getsignal(number)
            signal.signal(number, self._handle)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        while self._before:
            number, handler = self._before.popitem()
            # None is a handler that was not set from Python; there is no way to set it again.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if self._stop.reason is not None and self._stop.reason.startswith("SIG"):
            self._stop.strike(KeyboardInterrupt() if number == signal.SIGINT else SystemExit(128 + number))
            return
        self._stop.interrupt = not self._stop_on_signals
        self._stop.reason = name  # even if something else asked before: the next signal shall strike


def hold_off_signals(stop: Stop, work: Callable[[], T]) -> T:
    """Do something to a job that is no sync, and only then let Ctrl-C raise KeyboardInterrupt.

    Raises:
        KeyboardInterrupt: If Ctrl-C was pressed.
        Exception: What `work` raised; where a stop ended its tries, why they were needed.
    """
    with SignalHandlers(stop, stop_on_signals=False):
        try:
            with stop.shield():
                result = work()
        except StopRequested as stopped:
            raise (KeyboardInterrupt() if stop.interrupt else stopped.__cause__ or stopped) from None
        except Exception as error:
            if stop.interrupt:
                raise KeyboardInterrupt from error
            raise
    if stop.interrupt:
        raise KeyboardInterrupt
    return result
