"""The sink of a partitioned sync as its parent job uses it: begun and completed for the whole, written by parts."""

from typing import TYPE_CHECKING, Any

from typing_extensions import override

from resumable_sync._model import Batch, Job
from resumable_sync._protocols import PreparingSink, Sink

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["WholeSink"]


class WholeSink(Sink[Any]):
    """Begins and completes a sink; what a sink keeps of its own checkpoint is a matter of its parts."""

    def __init__(self, sink: Any) -> None:
        self._sink = sink
        self.transactional = bool(sink.transactional)
        self.idempotent = bool(sink.idempotent)
        if isinstance(sink, PreparingSink):
            # Protocols are told by their members, so a member may exist only where the object has it.
            self.prepare = sink.prepare

    @override
    def begin(self, job: Job, connection: "Connection | None") -> None:
        self._sink.begin(job, connection)

    @override
    def write(self, batch: Batch[Any], connection: "Connection | None") -> None:
        raise AssertionError(batch.job_id)

    @override
    def complete(self, job: Job, connection: "Connection | None") -> None:
        self._sink.complete(job, connection)
