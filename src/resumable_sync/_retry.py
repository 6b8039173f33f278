"""Which errors are worth another try, and trying again."""

import time
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import attrs

from resumable_sync._errors import ConfigurationError, ResumableSyncError, StoreError, TransientError, describe_error

__all__ = ["Retrier", "Retry", "StopRequested", "is_transient"]

T = TypeVar("T")

MAX_SECONDS = 10 * 365 * 24 * 3600
"""The longest wait that may be asked for: ten years."""

MAX_ASKED = 24 * 3600
"""The longest wait that is obeyed because a server asks for it, where no limit was given: a day."""


class _Usual(float):
    """The limit of who gives none: unlike one that was given it does not bind what a server asks for."""


_USUAL = _Usual(60.0)

# 08 connection, 40001 serialization, 40P01 deadlock, 53300 too many connections, 55P03 lock not available,
# 57P0x the server shuts down or ended the session, 25P03 / 25P04 a transaction idle or open for too long
_SQLSTATES = ("08", "40001", "40P01", "53300", "55P03", "57P01", "57P02", "57P03", "57P05", "25P03", "25P04")
# 1040 too many connections, 1053 shutdown, 1205 lock wait, 1213 deadlock, 1927 killed, 2002 / 2003 cannot connect,
# 2006 / 2013 / 2055 connection lost, 4031 idle; PyMySQL's 0 is a connection that was closed before
_MYSQL_CODES = {0, 1040, 1053, 1205, 1213, 1927, 2002, 2003, 2006, 2013, 2055, 4031}

_REDIS_TRANSIENT = {"ConnectionError", "TimeoutError", "ReadOnlyError", "TryAgainError", "ClusterDownError"}
_REDIS_LASTING = {"AuthenticationError", "AuthorizationError"}


class StopRequested(Exception):  # noqa: N818 - not an error: a stop ended a wait
    """A stop was asked for while waiting for the next try."""


def is_transient(error: BaseException | None) -> bool:
    """Whether another try may succeed, told by the error's code and not by its class.

    `TransientError`, `ConnectionError` and `TimeoutError` are transient, and so are the databases' own codes for lost
    connections, locks, deadlocks and serialization failures. (On SQLite "no such table" and "database is locked" are
    the same class.)
    """
    if error is None:
        return False
    if isinstance(error, ResumableSyncError):
        if isinstance(error, StoreError):
            return is_transient(error.__cause__)
        return isinstance(error, TransientError)
    if isinstance(error, ConnectionError | TimeoutError) or getattr(error, "connection_invalidated", False):
        return True
    origin = getattr(error, "orig", None)
    if isinstance(origin, BaseException):
        return is_transient(origin)
    return _has_transient_code(error)


def _has_transient_code(error: BaseException) -> bool:
    module, names = type(error).__module__, {base.__name__ for base in type(error).__mro__}
    errorname = getattr(error, "sqlite_errorname", None)
    if isinstance(errorname, str):
        return errorname.startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))
    if module.startswith("psycopg"):
        sqlstate = getattr(error, "sqlstate", None)
        # Without a code the server said nothing: refused, cut off, never reached, or not in time.
        return sqlstate.startswith(_SQLSTATES) if sqlstate else "OperationalError" in names
    if module.startswith("adbc_driver_manager"):
        # Also without a code where nobody heard of the server, or not in time.
        status = getattr(getattr(error, "status_code", None), "name", None)
        sqlstate = getattr(error, "sqlstate", None)
        return sqlstate.startswith(_SQLSTATES) if sqlstate else status in ("IO", "TIMEOUT")
    if module.startswith("pymysql"):
        return bool(error.args) and error.args[0] in _MYSQL_CODES
    if module.startswith("redis."):
        # A wrong password is a ConnectionError too; the server that may not write now is no longer the primary.
        return not names & _REDIS_LASTING and bool(names & _REDIS_TRANSIENT or str(error).startswith("BUSY "))
    return module.startswith("sqlalchemy") and "TimeoutError" in names  # no connection was free in the pool


def _refuse(attribute: Any, value: object, allowed: str) -> NoReturn:
    msg = f"Retry({attribute.name}={value!r}) is not possible; give {allowed}"
    raise ConfigurationError(msg, (attribute.name,))


def _check_on(_instance: object, attribute: Any, value: Any) -> None:
    # A class is callable too, and would be called with every error.
    is_function = callable(value) and not isinstance(value, type)
    classes = value if isinstance(value, tuple) else (value,)
    if not is_function and not all(isinstance(item, type) and issubclass(item, Exception) for item in classes):
        _refuse(attribute, value, "an exception class, a tuple of them, or a function of an exception")


def _check_tries(_instance: object, attribute: Any, value: Any) -> None:
    if type(value) is not int or value < 1:
        _refuse(attribute, value, "a whole number of at least 1; 1 is no other try")


def _check_wait(_instance: object, attribute: Any, value: Any) -> None:
    if not _is_seconds(value):
        _refuse(attribute, value, f"seconds, from 0 to {MAX_SECONDS:,}")


def _check_timeout(_instance: object, attribute: Any, value: Any) -> None:
    if value is not None and not (_is_seconds(value) and value > 0):
        _refuse(attribute, value, f"seconds above 0, up to {MAX_SECONDS:,}, or None for no limit")


def _is_seconds(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= MAX_SECONDS


@attrs.frozen(kw_only=True)
class Retry:
    """How often and how patiently a transient error is tried again (with stamina: exponential backoff and jitter).

    Attributes:
        on: What counts as transient besides what does anyway (see `TransientError`): an exception class, a tuple of
            them, or a function of the exception that gives a bool.
        max_tries: Most tries of one call, the first included; 1 means no other try.
        wait_initial: Seconds before the second try; doubles from try to try.
        wait_max: Most seconds between two tries. A `TransientError(retry_after=...)` is obeyed instead.
        timeout: Most seconds over all tries of one call; None is no limit. Where it is not given: 60 seconds, besides
            the waits that a `TransientError(retry_after=...)` asks for, which are waited out whole, up to a day each.
            One that is given, 60 too, binds them as well: a wait beyond it is not begun.

    Raises:
        ConfigurationError: If one of them cannot work; names it, its value and what is allowed.
    """

    on: type[Exception] | tuple[type[Exception], ...] | Callable[[Exception], bool] = attrs.field(
        default=(), validator=_check_on
    )
    max_tries: int = attrs.field(default=5, validator=_check_tries)
    wait_initial: float = attrs.field(default=0.1, validator=_check_wait)
    wait_max: float = attrs.field(default=30.0, validator=_check_wait)
    timeout: float | None = attrs.field(default=_USUAL, validator=_check_timeout)

    def covers(self, error: Exception) -> bool:
        """Whether `error` is worth another try."""
        if is_transient(error):
            return True
        if isinstance(error, ResumableSyncError):
            return False
        if isinstance(self.on, type | tuple):
            return isinstance(error, self.on)
        return bool(self.on(error))


class _TryFailed(Exception):  # noqa: N818 - a carrier
    """Carries an error through stamina, whose hooks log its text: a text without record values."""

    def __init__(self, error: Exception) -> None:
        super().__init__(describe_error(error))
        self.error = error


@attrs.frozen
class Retrier:
    """Calls things again after transient errors.

    Attributes:
        retry: How often and how patiently.
        pause: Waits that many seconds; True if a stop was asked for meanwhile.
        report: Is told of every failed try: call, number of tries so far, seconds until the next or None, the error.
    """

    retry: Retry
    pause: Callable[[float], bool]
    report: Callable[[str, int, float | None, Exception], None]

    def call(self, name: str, function: Callable[..., T], *arguments: Any) -> T:
        """Give what `function(*arguments)` gives, after as many tries as it takes and is allowed.

        Raises:
            StopRequested: If a stop was asked for while waiting for the next try.
        """
        # stamina costs 100 us even on success: it is entered after the first failure only.
        try:
            return function(*arguments)
        except Exception as error:
            if not self.retry.covers(error):
                raise
            first = error
        return self._call_again(name, function, arguments, first)

    def _call_again(self, name: str, function: Callable[..., T], arguments: tuple[Any, ...], first: Exception) -> T:
        import stamina  # noqa: PLC0415 - not paid for by those who need no second try

        last = first
        tries = _Tries(self, name)
        try:
            for stamina_try in stamina.retry_context(
                on=tries.backoff,
                attempts=self.retry.max_tries,
                timeout=None,  # `backoff` heeds it
                wait_initial=self.retry.wait_initial,
                wait_max=self.retry.wait_max,
                wait_jitter=0,
            ):
                tries.next_wait = stamina_try.next_wait
                with stamina_try:
                    if not tries.entered:
                        tries.fail(first)
                    return tries.once(function, arguments)
        except _TryFailed as failed:
            last = failed.error
        if tries.stopped:
            raise StopRequested from last
        raise last


@attrs.define
class _Tries:
    """Decides after each failed try of one call, and waits; stamina's own waiting cannot be ended by a stop."""

    retrier: Retrier
    name: str
    next_wait: float = 0.0
    stopped: bool = False
    entered: bool = False
    _number: int = 0
    _obeyed: float = 0.0
    _started: float = attrs.field(factory=time.monotonic)

    def fail(self, error: Exception) -> None:
        self.entered = True
        raise _TryFailed(error) from None

    def once(self, function: Callable[..., T], arguments: tuple[Any, ...]) -> T:
        try:
            return function(*arguments)
        except Exception as error:  # noqa: BLE001 - stamina asks `backoff` about it
            raise _TryFailed(error) from None

    def backoff(self, failed: Exception) -> bool | float:
        error = failed.error if isinstance(failed, _TryFailed) else failed
        retry = self.retrier.retry
        self._number += 1
        asked = getattr(error, "retry_after", None)
        wait = float(asked) if isinstance(asked, int | float) else self.next_wait
        exhausted = self._number >= retry.max_tries or self._is_too_long(wait, asked=isinstance(asked, int | float))
        if exhausted or not retry.covers(error):
            self.retrier.report(self.name, self._number, None, error)
            return False
        self._obeyed += wait if isinstance(asked, int | float) else 0.0
        self.retrier.report(self.name, self._number, wait, error)
        self.stopped = self.retrier.pause(wait)
        return False if self.stopped else 0.0

    def _is_too_long(self, wait: float, *, asked: bool) -> bool:
        timeout = self.retrier.retry.timeout
        spent = time.monotonic() - self._started
        if not isinstance(timeout, _Usual):
            return timeout is not None and spent + wait > timeout
        return wait > MAX_ASKED if asked else spent - self._obeyed + wait > timeout
