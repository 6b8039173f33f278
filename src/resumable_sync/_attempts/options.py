"""The options of a sync, checked before anything is read or written."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias, TypedDict, get_args

import attrs

from resumable_sync._attempts.throttle import Throttle
from resumable_sync._errors import ConfigurationError
from resumable_sync._protocols import Observer
from resumable_sync._restart import IfChanged, IfCompleted, IfHeld
from resumable_sync._retry import MAX_SECONDS, Retry

__all__ = ["DEFAULT_BATCH_SIZE", "BatchSize", "OnRefused", "Options", "SyncOptions", "make_options"]

BatchSize: TypeAlias = int | Literal["auto"]
OnRefused = Literal["fail", "dead_letter"]

DEFAULT_BATCH_SIZE = 1_000

MAX_BATCH_SIZE = 10_000_000
"""A batch is in memory as a whole."""

MAX_PREFETCH = 1_000
"""So many batches may be in memory besides."""


class SyncOptions(TypedDict, total=False):
    """The options that `run_full_sync`, `plan_full_sync` and `FullSync` share; `run_full_sync` explains them."""

    batch_size: BatchSize | None
    count: bool
    if_completed: IfCompleted
    if_held: IfHeld
    if_changed: IfChanged
    resume_within: float | None
    on_refused: OnRefused
    max_dead_letters: int | None
    retry: Retry
    lease_ttl: float
    prefetch: int | None
    max_stalled_attempts: int
    max_runtime: float | None
    max_records: int | None
    should_stop: Callable[[], bool] | None
    stop_on_signals: bool
    throttle: Throttle | Callable[[], float] | None
    observers: Sequence[Observer]
    fast_path: bool


@attrs.frozen(kw_only=True)
class Options:
    """The options of one call, as `run_full_sync` explains them."""

    batch_size: BatchSize | None = None
    count: bool = True
    if_completed: IfCompleted = "rerun"
    if_held: IfHeld = "raise"
    if_changed: IfChanged = "raise"
    resume_within: float | None = None
    on_refused: OnRefused = "fail"
    max_dead_letters: int | None = 100
    retry: Retry = attrs.field(factory=Retry)
    lease_ttl: float = 60.0
    prefetch: int | None = None
    max_stalled_attempts: int = 5
    max_runtime: float | None = None
    max_records: int | None = None
    should_stop: Callable[[], bool] | None = None
    stop_on_signals: bool = False
    throttle: Throttle | Callable[[], float] | None = None
    observers: tuple[Observer, ...] = ()
    fast_path: bool = True


def make_options(job_id: str, given: SyncOptions) -> Options:
    """Check options.

    Raises:
        ConfigurationError: If one of them cannot work; names the job, the option, its value and what is allowed.
        TypeError: If there is no such option.
    """
    unknown = sorted(set(given) - {field.name for field in attrs.fields(Options)})
    if unknown:
        msg = f"there is no option {unknown[0]!r}; the options are {', '.join(f.name for f in attrs.fields(Options))}"
        raise TypeError(msg)
    for name, value in given.items():
        allowed = _CHECKS[name](value)
        if allowed is not None:
            msg = f"job {job_id!r}: {name}={_shown(value)} is not possible; give {allowed}"
            raise ConfigurationError(msg)
    values: dict[str, Any] = dict(given)
    values["observers"] = tuple(given.get("observers", ()))
    return Options(**values)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."  # noqa: PLR2004 - a line's width


def _whole(least: int, most: int | None = None, *, optional: bool = False) -> Callable[[Any], str | None]:
    def check(value: Any) -> str | None:
        if optional and value is None:
            return None
        if type(value) is int and value >= least and (most is None or value <= most):
            return None
        allowed = f"of at least {least}" if most is None else f"from {least} to {most:,}"
        return f"a whole number {allowed}" + (" or None" if optional else "")

    return check


def _batch_size(value: Any) -> str | None:
    allowed = _whole(1, MAX_BATCH_SIZE, optional=True)(value)
    return None if allowed is None or (isinstance(value, str) and value == "auto") else f"{allowed}, or 'auto'"


def _seconds(least: float, *, optional: bool = False) -> Callable[[Any], str | None]:
    def check(value: Any) -> str | None:
        if optional and value is None:
            return None
        if isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= MAX_SECONDS:
            return None
        return f"seconds, from {least:g} to {MAX_SECONDS:,}" + (" or None" if optional else "")

    return check


def _one_of(choices: Any) -> Callable[[Any], str | None]:
    allowed = get_args(choices)

    def check(value: Any) -> str | None:
        return None if isinstance(value, str) and value in allowed else "one of " + ", ".join(map(repr, allowed))

    return check


def _flag(value: Any) -> str | None:
    return None if type(value) is bool else "True or False"


def _callable(value: Any) -> str | None:
    return None if value is None or callable(value) else "a function without arguments, or None"


def _throttle(value: Any) -> str | None:
    fine = isinstance(value, Throttle) or (not isinstance(value, type) and _callable(value) is None)
    return None if fine else "a Throttle, such as Throttle(500), a function without arguments, or None"


def _retry(value: Any) -> str | None:
    return None if isinstance(value, Retry) else "a Retry, such as Retry(max_tries=5)"


def _observers(value: Any) -> str | None:
    fine = isinstance(value, list | tuple) and all(callable(observer) for observer in value)
    return None if fine else "a list of functions that take an event"


_CHECKS: dict[str, Callable[[Any], str | None]] = {
    "batch_size": _batch_size,
    "count": _flag,
    "if_completed": _one_of(IfCompleted),
    "if_held": _one_of(IfHeld),
    "if_changed": _one_of(IfChanged),
    "resume_within": _seconds(0, optional=True),
    "on_refused": _one_of(OnRefused),
    "max_dead_letters": _whole(0, optional=True),
    "retry": _retry,
    "lease_ttl": _seconds(0.1),
    "prefetch": _whole(0, MAX_PREFETCH, optional=True),
    "max_stalled_attempts": _whole(1),
    "max_runtime": _seconds(0, optional=True),
    "max_records": _whole(1, optional=True),
    "should_stop": _callable,
    "stop_on_signals": _flag,
    "throttle": _throttle,
    "observers": _observers,
    "fast_path": _flag,
}
