"""Traces and metrics for OpenTelemetry."""

import time
from collections.abc import Callable, Mapping

import attrs

from resumable_sync._errors import MissingExtraError
from resumable_sync._events import (
    BatchCommitted,
    Event,
    PartsProgressed,
    RecordRefused,
    SyncFinished,
    SyncStarted,
    TryFailed,
)

try:
    from opentelemetry import metrics, trace
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, Status, StatusCode
    from opentelemetry.util.types import AttributeValue
except ModuleNotFoundError as error:
    raise MissingExtraError(error.name or "opentelemetry-api", "otel") from error

__all__ = ["OpenTelemetryObserver"]

SCOPE = "resumable_sync"
NANOSECONDS = 1_000_000_000


@attrs.define
class _Open:
    """The span of an attempt, what its batches need of it, and how far its job was at the last look."""

    span: Span
    context: Context
    records: int
    batches: int


class OpenTelemetryObserver:
    """Gives OpenTelemetry a span for each attempt and, in it, for each batch; counters, and histograms of durations.

        run_full_sync("orders", connector, sink, store=store, observers=[OpenTelemetryObserver()])

    Spans, with the attributes `resumable_sync.job.id`, `.job.run`, `.job.attempt`, and what is named here:

    - `resumable_sync.attempt`: `resumable_sync.action`, `.guarantee`, `.job.status`, `.job.processed_records`,
      `.job.total_records`, `.records`, `.batches`; `error.type` and the status ERROR if it failed. Failed tries and
      refused records are span events (`resumable_sync.try_failed`, `resumable_sync.record_refused`). It is a child of
      the span that is current when the attempt starts. Of a sync in parts `resumable_sync.parts` and `.parts.completed`
      too, and no spans of batches, which are delivered elsewhere.
    - `resumable_sync.batch`: `resumable_sync.batch.sequence`, `.batch.records`, and in seconds `.batch.read_duration`,
      `.batch.write_duration` and what of that the store took, `.batch.commit_duration`. It begins with the wait for the
      page and ends with the commit.

    Metrics, by `resumable_sync.job.id`:

    - `resumable_sync.records` (`{record}`), `resumable_sync.batches` (`{batch}`), `resumable_sync.dead_letters`
      (`{record}`), `resumable_sync.failed_tries` (`{try}`, by `resumable_sync.call` too), `resumable_sync.attempts`
      (`{attempt}`, by `resumable_sync.job.status`, when it ends): counters;
    - `resumable_sync.read.duration`, `resumable_sync.write.duration` and in it `resumable_sync.commit.duration` of a
      batch, `resumable_sync.attempt.duration`, by status too: histograms in seconds (`s`).

    No attribute holds a record or a credential. An attempt that is killed leaves no span, but its batches do.

    Args:
        tracer_provider: Where spans go. None: the global provider.
        meter_provider: Where metrics go. None: the global provider.
        batches: Whether batches get spans (default True); metrics they have anyway.
        clock: Gives nanoseconds since 1970; tests pass their own.

    Raises:
        MissingExtraError: If the OpenTelemetry API is not installed (when the module is imported).
    """

    def __init__(
        self,
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: metrics.MeterProvider | None = None,
        *,
        batches: bool = True,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._tracer = trace.get_tracer(SCOPE, tracer_provider=tracer_provider)
        meter = metrics.get_meter(SCOPE, meter_provider=meter_provider)
        self._batch_spans = batches
        self._clock = clock
        self._records = meter.create_counter("resumable_sync.records", "{record}", "Records accepted by the sink")
        self._batches = meter.create_counter("resumable_sync.batches", "{batch}", "Batches accepted by the sink")
        self._letters = meter.create_counter("resumable_sync.dead_letters", "{record}", "Records refused for good")
        self._tries = meter.create_counter("resumable_sync.failed_tries", "{try}", "Calls that failed transiently")
        self._attempts = meter.create_counter("resumable_sync.attempts", "{attempt}", "Attempts that ended")
        self._reading = meter.create_histogram("resumable_sync.read.duration", "s", "Wait for the page of a batch")
        self._writing = meter.create_histogram("resumable_sync.write.duration", "s", "Sink and store, for a batch")
        self._committing = meter.create_histogram("resumable_sync.commit.duration", "s", "The store's part of that")
        self._duration = meter.create_histogram("resumable_sync.attempt.duration", "s", "From start to end")
        self._open: dict[str, _Open] = {}

    def __call__(self, event: Event) -> None:
        """Record an event."""
        match event:
            case SyncStarted():
                self._started(event)
            case BatchCommitted():
                self._committed(event)
            case TryFailed():
                self._tries.add(1, _job(event.job_id) | {"resumable_sync.call": event.call})
                facts: dict[str, AttributeValue] = {
                    "resumable_sync.call": event.call,
                    "resumable_sync.tries": event.tries,
                    "exception.message": event.error,
                }
                self._note(event.job_id, "resumable_sync.try_failed", facts)
            case RecordRefused():
                self._letters.add(1, _job(event.job_id))
                self._note(
                    event.job_id,
                    "resumable_sync.record_refused",
                    {"resumable_sync.batch.sequence": event.sequence, "exception.message": event.error},
                )
            case PartsProgressed():
                self._progressed(event)
            case SyncFinished():
                self._finished(event)

    def _started(self, event: SyncStarted) -> None:
        job, plan = event.job, event.plan
        span = self._tracer.start_span(
            "resumable_sync.attempt",
            start_time=self._clock(),
            attributes=_attempt(job.id, job.run, job.attempt)
            | {"resumable_sync.action": plan.action, "resumable_sync.guarantee": str(plan.guarantee)},
        )
        context = trace.set_span_in_context(span)
        self._open[job.id] = _Open(span, context, job.processed_records, job.processed_batches)

    def _committed(self, event: BatchCommitted) -> None:
        job = event.job
        labels = _job(job.id)
        self._records.add(event.records, labels)
        self._batches.add(1, labels)
        self._reading.record(event.read_seconds, labels)
        self._writing.record(event.write_seconds, labels)
        self._committing.record(event.commit_seconds, labels)
        opened = self._open.get(job.id)
        if opened is None:
            return
        opened.records, opened.batches = job.processed_records, job.processed_batches
        if not self._batch_spans:
            return
        end = self._clock()
        taken = event.read_seconds + event.write_seconds
        span = self._tracer.start_span(
            "resumable_sync.batch",
            context=opened.context,
            start_time=end - int(taken * NANOSECONDS),
            attributes=_attempt(job.id, job.run, job.attempt)
            | {
                "resumable_sync.batch.sequence": event.sequence,
                "resumable_sync.batch.records": event.records,
                "resumable_sync.batch.read_duration": event.read_seconds,
                "resumable_sync.batch.write_duration": event.write_seconds,
                "resumable_sync.batch.commit_duration": event.commit_seconds,
            },
        )
        span.end(end)

    def _progressed(self, event: PartsProgressed) -> None:
        job = event.job
        opened = self._open.get(job.id)
        if opened is None:
            return
        self._count(opened, job.id, job.processed_records, job.processed_batches)
        parts = {"resumable_sync.parts": event.parts, "resumable_sync.parts.completed": event.completed}
        opened.span.set_attributes(parts)

    def _count(self, opened: _Open, job_id: str, records: int, batches: int) -> None:
        """Count what was delivered since the last look; counters only grow."""
        if records > opened.records:
            self._records.add(records - opened.records, _job(job_id))
        if batches > opened.batches:
            self._batches.add(batches - opened.batches, _job(job_id))
        opened.records, opened.batches = records, batches

    def _finished(self, event: SyncFinished) -> None:
        result, job = event.result, event.result.job
        labels = _job(job.id) | {"resumable_sync.job.status": str(result.status)}
        self._attempts.add(1, labels)
        self._duration.record(result.seconds, labels)
        opened = self._open.pop(job.id, None)
        if opened is None:
            return
        self._count(opened, job.id, job.processed_records, job.processed_batches)
        facts: dict[str, AttributeValue] = {
            "resumable_sync.job.status": str(result.status),
            "resumable_sync.job.processed_records": job.processed_records,
            "resumable_sync.records": result.records,
            "resumable_sync.batches": result.batches,
        }
        if job.total_records is not None:
            facts["resumable_sync.job.total_records"] = job.total_records
        if result.status == "failed":
            # By the conventions a span that ended well leaves its status unset.
            kind, _, _ = (job.error or "_OTHER").partition(":")
            facts["error.type"] = kind
            opened.span.set_status(Status(StatusCode.ERROR, job.error))
        opened.span.set_attributes(facts)
        opened.span.end(self._clock())

    def _note(self, job_id: str, name: str, facts: Mapping[str, AttributeValue]) -> None:
        opened = self._open.get(job_id)
        if opened is not None:
            opened.span.add_event(name, facts, timestamp=self._clock())


def _job(job_id: str) -> dict[str, AttributeValue]:
    return {"resumable_sync.job.id": job_id}


def _attempt(job_id: str, run: int, attempt: int) -> dict[str, AttributeValue]:
    return _job(job_id) | {"resumable_sync.job.run": run, "resumable_sync.job.attempt": attempt}
