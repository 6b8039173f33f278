"""Traces and metrics, as OpenTelemetry's own in-memory exporters get them."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import attrs
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from sqlalchemy import create_engine, text

from doubles import FAST, Numbers, Picky, Target, fail_at
from resumable_sync import MemoryJobStore, TransientError, run_full_sync, run_partitioned_sync
from resumable_sync.observers.opentelemetry import OpenTelemetryObserver
from resumable_sync.stores.sql import SQLJobStore


@attrs.frozen
class Telemetry:
    spans: InMemorySpanExporter
    reader: InMemoryMetricReader
    tracer_provider: TracerProvider
    meter_provider: MeterProvider

    def observer(self, **settings: Any) -> OpenTelemetryObserver:
        return OpenTelemetryObserver(self.tracer_provider, self.meter_provider, **settings)

    def named(self, name: str) -> list[Any]:
        return [span for span in self.spans.get_finished_spans() if span.name == f"resumable_sync.{name}"]

    def metrics(self) -> dict[str, Any]:
        data: Any = self.reader.get_metrics_data()
        found = data.resource_metrics[0].scope_metrics[0].metrics
        return {metric.name.removeprefix("resumable_sync."): metric for metric in found}

    def sums(self) -> dict[str, float]:
        return {
            name: sum(point.value for point in metric.data.data_points)
            for name, metric in self.metrics().items()
            if hasattr(metric.data, "is_monotonic")
        }


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    spans, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracer_provider, meter_provider = (
        TracerProvider(shutdown_on_exit=False),
        MeterProvider([reader], shutdown_on_exit=False),
    )
    tracer_provider.add_span_processor(SimpleSpanProcessor(spans))
    yield Telemetry(spans, reader, tracer_provider, meter_provider)
    tracer_provider.shutdown()
    meter_provider.shutdown()


def test_an_attempt_is_a_span_with_its_batches_in_it(telemetry: Telemetry) -> None:
    with telemetry.tracer_provider.get_tracer("caller").start_as_current_span("nightly") as outer:
        run_full_sync(
            "numbers", Numbers(25), Target(), store=MemoryJobStore(), batch_size=10, observers=[telemetry.observer()]
        )
    (attempt,) = telemetry.named("attempt")
    assert attempt.parent.span_id == outer.get_span_context().span_id
    assert dict(attempt.attributes) == {
        "resumable_sync.job.id": "numbers",
        "resumable_sync.job.run": 1,
        "resumable_sync.job.attempt": 1,
        "resumable_sync.action": "new",
        "resumable_sync.guarantee": "at_least_once",
        "resumable_sync.job.status": "completed",
        "resumable_sync.job.processed_records": 25,
        "resumable_sync.job.total_records": 25,
        "resumable_sync.records": 25,
        "resumable_sync.batches": 3,
    }
    assert attempt.status.status_code is StatusCode.UNSET
    batches = telemetry.named("batch")
    assert [span.attributes["resumable_sync.batch.records"] for span in batches] == [10, 10, 5]
    assert [span.attributes["resumable_sync.batch.sequence"] for span in batches] == [0, 1, 2]
    assert {span.parent.span_id for span in batches} == {attempt.context.span_id}
    for span in batches:
        taken = (
            span.attributes["resumable_sync.batch.read_duration"]
            + span.attributes["resumable_sync.batch.write_duration"]
        )
        assert span.end_time - span.start_time == int(taken * 1_000_000_000)
        assert 0 < span.attributes["resumable_sync.batch.commit_duration"] <= taken
        assert span.end_time <= attempt.end_time


def test_records_batches_and_durations_are_counted(telemetry: Telemetry) -> None:
    observer = telemetry.observer(batches=False)
    run_full_sync("numbers", Numbers(25), Target(), store=MemoryJobStore(), batch_size=10, observers=[observer])
    assert telemetry.named("batch") == []
    assert telemetry.sums() == {"records": 25, "batches": 3, "attempts": 1}
    found = telemetry.metrics()
    assert {name: metric.unit for name, metric in found.items()} == {
        "records": "{record}",
        "batches": "{batch}",
        "attempts": "{attempt}",
        "read.duration": "s",
        "write.duration": "s",
        "commit.duration": "s",
        "attempt.duration": "s",
    }
    counts = {name: metric.data.data_points[0].count for name, metric in found.items() if name.endswith(".duration")}
    assert counts == {"read.duration": 3, "write.duration": 3, "commit.duration": 3, "attempt.duration": 1}
    points = [point for metric in found.values() for point in metric.data.data_points]
    assert {point.attributes["resumable_sync.job.id"] for point in points} == {"numbers"}


def test_a_failure_is_an_error_of_its_type(telemetry: Telemetry) -> None:
    sink = Target(fail_at(1, OSError("token=hunter2")))
    with pytest.raises(OSError, match="hunter2"):
        run_full_sync(
            "numbers", Numbers(25), sink, store=MemoryJobStore(), batch_size=10, observers=[telemetry.observer()]
        )
    (attempt,) = telemetry.named("attempt")
    assert attempt.attributes["error.type"] == "OSError"
    assert (attempt.status.status_code, attempt.status.description) == (StatusCode.ERROR, "OSError: token=***")


def test_failed_tries_and_refused_records_are_span_events(telemetry: Telemetry, sqlite_url: str) -> None:
    observer = telemetry.observer()
    sink = Target(fail_at(0, TransientError("busy")))
    run_full_sync("tries", Numbers(5), sink, store=MemoryJobStore(), retry=FAST, observers=[observer])
    engine = create_engine(sqlite_url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE numbers (n INTEGER)"))
    with SQLJobStore(sqlite_url) as store:
        run_full_sync("picky", Numbers(9), Picky(3), store=store, on_refused="dead_letter", observers=[observer])
    engine.dispose()
    tries, picky = telemetry.named("attempt")
    (event,) = tries.events
    assert (event.name, event.attributes["resumable_sync.call"]) == ("resumable_sync.try_failed", "write")
    (event,) = picky.events
    assert event.name == "resumable_sync.record_refused"
    assert telemetry.sums()["dead_letters"] == telemetry.sums()["failed_tries"] == 1


def test_what_parts_deliver_is_counted_once(telemetry: Telemetry) -> None:
    with ThreadPoolExecutor(2) as executor:
        run_partitioned_sync(
            "numbers",
            Numbers(100),
            lambda _: None,
            store=MemoryJobStore(),
            executor=executor,
            parts=5,
            batch_size=10,
            observers=[telemetry.observer()],
        )
    (attempt,) = telemetry.named("attempt")
    assert attempt.attributes["resumable_sync.parts"] == attempt.attributes["resumable_sync.parts.completed"] == 5
    assert telemetry.sums() == {"records": 100, "batches": 10, "attempts": 1}
