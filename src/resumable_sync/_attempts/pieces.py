"""What one call of the engine works with, put together once and handed on."""

import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import attrs

from resumable_sync._attempts.observers import Observers
from resumable_sync._attempts.options import Options
from resumable_sync._attempts.ports import check_ports, guarantee_of
from resumable_sync._attempts.stop import SignalHandlers, Stop
from resumable_sync._attempts.throttle import Throttle
from resumable_sync._errors import ConfigurationError
from resumable_sync._formats import RECORDS
from resumable_sync._model import Guarantee, Job
from resumable_sync._protocols import Connector, JobStore, Sink
from resumable_sync._retry import Retrier
from resumable_sync._validate import check_job_id

__all__ = ["Pieces", "put_together", "throttled"]


@attrs.frozen(kw_only=True)
class Pieces:
    """The arguments of one call, checked, and what is made of them.

    Attributes:
        job_id: The job.
        connector: Where records come from.
        sink: Where batches go; None where the caller owns the loop.
        store: Where the job is kept.
        options: The options.
        guarantee: What holds for the target.
        observers: The observers.
        stop: Everything that can ask to stop.
        signals: Turns signals into a stop.
        retrier: Tries again until a stop is asked for.
        reading: The same for the reader's thread, which must not ask `should_stop`.
        patient: Tries again, stop or no stop: what the sink has accepted must be saved.
        started: When the call began, by the monotonic clock.
        format: Name of the format in which the connector gives records.
        whole: The partitioned sync of which the job is a part, as it was begun; None where it is none.
    """

    job_id: str
    connector: Connector[Any]
    sink: Sink[Any] | None
    store: JobStore
    options: Options
    guarantee: Guarantee
    observers: Observers
    stop: Stop
    signals: SignalHandlers
    retrier: Retrier
    reading: Retrier
    patient: Retrier
    started: float
    format: str = RECORDS
    whole: Job | None = None


def put_together(
    job_id: str, connector: Connector[Any], sink: Sink[Any] | None, store: JobStore, options: Options
) -> Pieces:
    """Check that the arguments of a call fit together, and make what it works with.

    Raises:
        ConfigurationError: If they do not.
    """
    check_job_id(job_id)
    check_ports(job_id, connector, sink, store, options)
    observers = Observers(options.observers)
    stop = Stop(options.should_stop, options.max_runtime)
    report = partial(observers.try_failed, job_id)
    return Pieces(
        job_id=job_id,
        connector=connector,
        sink=sink,
        store=store,
        options=options,
        guarantee=guarantee_of(sink, store),
        observers=observers,
        stop=stop,
        signals=SignalHandlers(stop, stop_on_signals=options.stop_on_signals),
        retrier=Retrier(options.retry, stop.wait, report),
        reading=Retrier(options.retry, stop.pause, report),
        patient=Retrier(options.retry, stop.sit_out, report),
        started=time.monotonic(),
    )


def throttled(pieces: Pieces, throttle: Throttle | Callable[[], float], records: int, *, first: bool) -> bool:
    """Wait as the caller's throttle says; True if something asked to stop meanwhile.

    Args:
        pieces: What the call works with.
        throttle: The throttle.
        records: How many records the next batch has.
        first: Whether it is the first batch, for which a function is not asked.

    Raises:
        ConfigurationError: If a function gives no seconds.
    """
    stop = pieces.stop
    if isinstance(throttle, Throttle):
        wait, stopped = throttle.reserve(records), True
        try:
            stopped = wait > 0 and stop.wait(wait)
        finally:
            if stopped:
                throttle.give_back(records)
        return stopped
    if first:
        return False
    seconds: Any = throttle()
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < math.inf:
        msg = f"job {pieces.job_id!r}: throttle() gave {seconds!r}; let it give seconds to wait, 0 or more"
        raise ConfigurationError(msg)
    return stop.wait(seconds)
