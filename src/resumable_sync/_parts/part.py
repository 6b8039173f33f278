"""One part of a partitioned sync: a job of its own, for whoever gets to work on it."""

from collections.abc import Callable
from typing import Any, Final

import attrs
from typing_extensions import Unpack

from resumable_sync._attempts.options import SyncOptions
from resumable_sync._engine import SinkRun
from resumable_sync._errors import ConfigurationError, SourceChangedError
from resumable_sync._fingerprint import changes, fingerprint_text, pinned_columns
from resumable_sync._model import Batch, Cursor, Job, JobStatus, RecordT, SyncResult
from resumable_sync._parts.plan import PartsPlan, part_id
from resumable_sync._protocols import Connector, JobStore, PinnableConnector, Sink
from resumable_sync._sinks import as_sink
from resumable_sync._split import PartitionableSink, SplittableConnector

__all__ = ["Part", "check_parts_of", "part_of", "part_sink"]

# What would begin a part anew, beside what it has delivered; and what would end it as something that no whole can end.
REFUSED: Final = {
    "if_completed": "rerun",
    "if_changed": "rerun",
    "on_refused": "dead_letter",
}


@attrs.frozen(kw_only=True)
class Part:
    """One part of a partitioned sync, as the job store knows it.

    Attributes:
        job_id: The part's own job: `orders/0003`.
        index: Its number, from 0.
        place: Where it begins and ends, as `ConnectorPart.place`.
        parent: The job of the whole, as stored when the part was looked up.
    """

    job_id: str
    index: int
    place: Cursor
    parent: Job

    def run(
        self,
        connector: Connector[RecordT],
        sink: Sink[RecordT] | Callable[[Batch[RecordT]], object],
        *,
        store: JobStore,
        **options: Unpack[SyncOptions],
    ) -> SyncResult:
        """Copy the part; called again after any death, go on exactly where it stopped, as `run_full_sync` does.

        A part that is completed, or that another worker holds, is passed over (`result.action` is `"skip"` or
        `"held"`). A part whose whole was stopped or begun anew since it was looked up delivers nothing and is
        `interrupted`. A part never begins a run of its own: only the whole can be begun anew.

        Args:
            connector: The connector of the whole, as `begin_partitioned_sync` or `run_partitioned_sync` got it.
            sink: The sink of the whole, likewise.
            store: The store in which it was looked up.
            **options: As for `run_full_sync`, but what would begin a run, or leave records behind: `resume_within`,
                "rerun" for `if_completed` and `if_changed`, and "dead_letter" for `on_refused`.

        Raises:
            ConfigurationError: If connector or sink cannot work in parts, or not on in those of the whole, or an
                argument cannot work.
            SourceChangedError: If the connector does not read what the whole was begun with.
            Exception: As for `run_full_sync`.
        """
        whole = check_parts_of(self.parent.id, connector, sink)
        given: SyncOptions = {"count": False, "if_completed": "skip", "if_held": "skip", **options}
        self._check(given)
        part = self._connector(connector, consented=given.get("if_changed") == "resume")
        run = SinkRun(self.job_id, part, part_sink(whole, self.parent), store, given, whole=self.parent)
        with run as sync:
            # Asked once the lease is there: a new run of the whole deletes this job before it begins, and so the lease.
            reason = self._outdated(store)
            if reason is not None:
                sync.stop(reason)
            for batch in sync:
                sync.deliver(batch)
                del batch  # as in `run_full_sync`
        return sync.result

    def _check(self, given: SyncOptions) -> None:
        refused = [f"{name}={value!r}" for name, value in REFUSED.items() if given.get(name) == value]
        if given.get("resume_within") is not None:
            refused.append("resume_within")
        if refused:
            msg = f"job {self.job_id!r}: {', '.join(refused)} is not possible for a part of {self.parent.id!r}, which"
            raise ConfigurationError(f"{msg} is completed, or begun anew, with the whole; leave it out")

    def _connector(self, connector: Connector[RecordT], *, consented: bool) -> Connector[RecordT]:
        begun, now = self.parent.fingerprint, fingerprint_text(connector.fingerprint)
        pinned = pinned_columns(begun, now)
        if pinned is not None and isinstance(connector, PinnableConnector):
            connector = connector.pin(pinned)
            now = fingerprint_text(connector.fingerprint)
        # A part knows no source before its first attempt, which must not read another one than the parts beside it.
        changed = changes(begun, now, ordered=not isinstance(connector, PinnableConnector))
        impossible = [change.part for change in changed if change.impossible]
        if changed and (impossible or not consented):
            details = {change.part: change.detail for change in changed if change.detail}
            raise SourceChangedError(self.parent.id, [change.part for change in changed], details, impossible)
        assert isinstance(connector, SplittableConnector)  # noqa: S101 - checked, and pinning keeps it
        return connector.part(self.place)

    def _outdated(self, store: JobStore) -> str | None:
        parent = store.load(self.parent.id)
        if parent is None or parent.run_id != self.parent.run_id:
            return f"a new run of job {self.parent.id!r} has begun"
        plan = PartsPlan.of(parent.cursor)
        if parent.status is not JobStatus.RUNNING or plan is None or not plan.open:
            return f"job {self.parent.id!r} is {parent.status}, and its parts go on when that is started again"
        return None


def part_of(job_id: str, index: int, *, store: JobStore) -> Part:
    """Look up a part of a partitioned sync, by the id of the whole alone; for workers that this library did not start.

    Whoever has the connector, the sink and the store of the whole can then `run` it, on whatever host:

        part_of("orders", 3, store=store).run(connector, sink, store=store)

    Args:
        job_id: The whole, begun with `begin_partitioned_sync` or `run_partitioned_sync`.
        index: Number of the part, from 0.
        store: The job's store.

    Raises:
        ConfigurationError: If there is no such job in parts, or it has no such part.
        StoreError: If the store cannot be read.
    """
    parent = store.load(job_id)
    plan = None if parent is None else PartsPlan.of(parent.cursor)
    if parent is None or plan is None or not plan.open:
        msg = f"there is no job {job_id!r} in parts in the store; begin it with begin_partitioned_sync, or name another"
        raise ConfigurationError(msg)
    if type(index) is not int or not 0 <= index < len(plan.places):
        msg = f"job {job_id!r} has no part {index!r}; its parts are 0 to {len(plan.places) - 1}"
        raise ConfigurationError(msg)
    return Part(job_id=part_id(job_id, index), index=index, place=plan.places[index], parent=parent)


def check_parts_of(job_id: str, connector: object, sink: Any) -> PartitionableSink:
    """See to it that connector and sink can work in parts.

    Returns:
        The sink.

    Raises:
        ConfigurationError: If one of them cannot.
    """
    if not isinstance(connector, SplittableConnector):
        msg = f"job {job_id!r}: a {type(connector).__name__} cannot be split, since it has no split(parts) and"
        raise ConfigurationError(f"{msg} part(place); add them, or read it in one piece with run_full_sync")
    whole = as_sink(sink)
    if not isinstance(whole, PartitionableSink):
        msg = f"job {job_id!r}: {whole!r} has begin or complete, and does not say how parts of a job write side by side"
        raise ConfigurationError(f"{msg}; give it the method part(job), or read in one piece with run_full_sync")
    return whole


def part_sink(whole: PartitionableSink, parent: Job) -> Sink[Any]:
    """Give the sink of one part.

    Raises:
        ConfigurationError: If it promises more or less than the whole.
    """
    made = as_sink(whole.part(parent))
    if made.transactional != as_sink(whole).transactional:
        msg = f"job {parent.id!r}: part(job) of {whole!r} gave a sink that is transactional where the whole is not, or"
        raise ConfigurationError(f"{msg} the other way round; let both be the same")
    return made
