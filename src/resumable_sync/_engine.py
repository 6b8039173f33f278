"""The loop: read a page, write and save it in one transaction, tell the observers, go on."""

import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Generic, Literal, Self

import attrs
from typing_extensions import Unpack

from resumable_sync._attempts.attempt import Attempt
from resumable_sync._attempts.options import BatchSize, OnRefused, SyncOptions, make_options
from resumable_sync._attempts.pieces import put_together
from resumable_sync._attempts.session import open_attempt, plan
from resumable_sync._attempts.throttle import Throttle
from resumable_sync._default_store import default_store
from resumable_sync._errors import ConfigurationError
from resumable_sync._model import Batch, Job, Plan, RecordT, SyncResult
from resumable_sync._protocols import Connector, JobStore, Observer, Sink
from resumable_sync._restart import IfChanged, IfCompleted, IfHeld
from resumable_sync._retry import Retry
from resumable_sync._sinks import as_sink
from resumable_sync._validate import check_job_id

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["FullSync", "SinkRun", "plan_full_sync", "run_full_sync"]


def run_full_sync(
    job_id: str,
    connector: Connector[RecordT],
    sink: Sink[RecordT] | Callable[[Batch[RecordT]], object],
    *,
    store: JobStore | None = None,
    batch_size: BatchSize | None = None,
    count: bool = True,
    if_completed: IfCompleted = "rerun",
    if_held: IfHeld = "raise",
    if_changed: IfChanged = "raise",
    resume_within: float | None = None,
    on_refused: OnRefused = "fail",
    max_dead_letters: int | None = 100,
    retry: Retry = Retry(),  # noqa: B008 - frozen
    lease_ttl: float = 60.0,
    prefetch: int | None = None,
    max_stalled_attempts: int = 5,
    max_runtime: float | None = None,
    max_records: int | None = None,
    should_stop: Callable[[], bool] | None = None,
    stop_on_signals: bool = False,
    throttle: Throttle | Callable[[], float] | None = None,
    observers: Sequence[Observer] = (),
    fast_path: bool = True,
) -> SyncResult:
    """Copy everything a connector reads into a sink; called again after any death, go on exactly where it stopped.

    Each batch is written and its checkpoint saved before the next one is. With a sink that writes in the store's
    transaction both commit together, and every record arrives exactly once; otherwise at most one batch is
    delivered again per death.

    Args:
        job_id: Names the sync: 1 to 255 characters. The same id finds the same checkpoint.
        connector: Where records come from.
        sink: Where batches go: a `Sink`, or any function of a batch.
        store: Where the job is kept. None: `SQLJobStore()` on the URL in `RESUMABLE_SYNC_STORE`, by default the SQLite
            file `resumable_sync.db` in the working directory.
        batch_size: Most records per batch, 1 to 10,000,000. May differ from call to call. None (default): as many as
            suit connector and sink, which is 5,000 for `SQLSink` and 1,000 for functions. "auto" finds, from 100 to
            100,000, how many the slower one of them can take in a second, and goes on with that in later attempts. A
            job of which only the number of records is known resumes at its last whole batch (None: of 1,000; "auto":
            at that number).
        count: Whether to count the source beside the first batches (default True).
        if_completed: What to do with a finished job: "rerun" (default) or "skip".
        if_held: What to do while another attempt works: "raise" (default), "skip" or "wait".
        if_changed: What to do when the source is not the one of the checkpoint: "raise" (default), "rerun" or "resume".
            A resume with another key or paging, or without a column that the run began with, is refused all the same.
        resume_within: Seconds; an older checkpoint starts a new run. None (default): any age.
        on_refused: What to do with a record the sink refuses for good: "fail" (default) or "dead_letter".
        max_dead_letters: Most dead letters of a run, 0 or more (default 100): the batch that would bring it above that
            is not committed, and the job fails. None: no limit.
        retry: How transient errors are tried again (default `Retry()`: five tries, a minute).
        lease_ttl: Seconds until the lease of a dead process on another host ends, 0.1 or more (default 60).
        prefetch: Pages to read ahead in a thread of its own, 0 to 1,000; 0 reads in the calling thread. None (default):
            what suits connector and sink: 1 for most, 4 for COPY's text, 0 where rows of SQLite become Python values.
        max_stalled_attempts: How many attempts in a row may die without a checkpoint (default 5).
        max_runtime: Seconds after which to stop at the next batch. None (default): no limit.
        max_records: Stop after the batch that brings this attempt to so many records. None (default): no limit.
        should_stop: Is asked before each batch, and while waiting; True stops.
        stop_on_signals: Whether SIGTERM and SIGINT stop after the batch in hand (default False; Ctrl-C always does, and
            then raises KeyboardInterrupt).
        throttle: Slows the sync down: a `Throttle(records_per_second)`, or a function that gives the seconds to wait
            before the next batch.
        observers: Functions that are called with every event.
        fast_path: Whether records may go from connector to sink in a form that both know, such as COPY's text between
            two databases of PostgreSQL, instead of as Python values (default True). `Plan.format` and
            `SyncResult.format` say which. Not with `on_refused="dead_letter"`, which takes batches apart.

    Returns:
        What was done; `status` is `completed`, `incomplete` or `interrupted`, or that of a job passed over.

    Raises:
        ConfigurationError: If an argument cannot work; nothing was read or written.
        JobHeldError: If another live attempt holds the job.
        SourceChangedError: If the source is not the one of the checkpoint.
        CrashLoopError: If too many attempts died in a row.
        DeadLetterLimitError: If the sink refuses more records than `max_dead_letters`.
        LeaseLostError: If this attempt was overtaken while it slept.
        StoreError: If the store cannot be read or written.
        Exception: What connector or sink raised, with a note saying how to resume.

    Examples:
        >>> from resumable_sync import MemoryJobStore, OffsetConnector
        >>> class Numbers(OffsetConnector[int]):
        ...     def fetch(self, offset, limit):
        ...         return range(offset, min(offset + limit, 2_500))
        >>> numbers, store = [], MemoryJobStore()
        >>> def load(batch):
        ...     numbers.extend(batch.records)
        >>> result = run_full_sync("numbers", Numbers(), load, store=store, max_records=1_000)
        >>> print(result.status, result.reason)
        interrupted max_records=1000 reached
        >>> result = run_full_sync("numbers", Numbers(), load, store=store)
        >>> print(result.action, result.status, result.guarantee, numbers == list(range(2_500)))
        resume completed at_least_once True
    """
    options = SyncOptions(
        batch_size=batch_size,
        count=count,
        if_completed=if_completed,
        if_held=if_held,
        if_changed=if_changed,
        resume_within=resume_within,
        on_refused=on_refused,
        max_dead_letters=max_dead_letters,
        retry=retry,
        lease_ttl=lease_ttl,
        prefetch=prefetch,
        max_stalled_attempts=max_stalled_attempts,
        max_runtime=max_runtime,
        max_records=max_records,
        should_stop=should_stop,
        stop_on_signals=stop_on_signals,
        throttle=throttle,
        observers=observers,
        fast_path=fast_path,
    )
    with SinkRun(job_id, connector, sink, store, options) as sync:
        for batch in sync:
            sync.deliver(batch)
            del batch  # the page that is read next shall not find this one still in memory
    return sync.result


def plan_full_sync(
    job_id: str,
    connector: Connector[RecordT],
    sink: Sink[RecordT] | Callable[[Batch[RecordT]], object],
    *,
    store: JobStore | None = None,
    **options: Unpack[SyncOptions],
) -> Plan:
    """Say what `run_full_sync` would do with the same arguments; no row, table or file is made.

    Raises:
        ConfigurationError: If an argument cannot work.
        StoreError: If the store cannot be read.
    """
    run = SinkRun(job_id, connector, sink, store, options)
    try:
        return run.plan()
    finally:
        run.close_store()


class FullSync(Generic[RecordT]):
    """The loop for code that owns it: iterate over the batches, deliver each, and survive any death.

    A batch counts as delivered when the loop asks for the next one, or when it is given to `commit`. Leaving the
    loop early interrupts the job; the batch in hand is delivered again at the next start unless it was committed.
    Takes the arguments of `run_full_sync` but the sink.

    Examples:
        At least once:

        >>> from resumable_sync import OffsetConnector
        >>> class Numbers(OffsetConnector[dict[str, int]]):
        ...     def fetch(self, offset, limit):
        ...         return [{"id": number} for number in range(offset, min(offset + limit, 2_500))]
        >>> numbers = []
        >>> with FullSync("numbers", Numbers()) as sync:
        ...     for batch in sync:
        ...         numbers.extend(batch.records)
        >>> print(sync.result.status, sync.result.guarantee, len(numbers))
        completed at_least_once 2500

        Exactly once, in a transaction of your own in the store's database:

        >>> from sqlalchemy import create_engine, text
        >>> from resumable_sync.stores.sql import SQLJobStore
        >>> engine = create_engine("sqlite:///warehouse.db")
        >>> with engine.begin() as connection:
        ...     _ = connection.execute(text("CREATE TABLE numbers (id INTEGER)"))
        >>> with FullSync("numbers", Numbers(), store=SQLJobStore(engine)) as sync:
        ...     for batch in sync:
        ...         with engine.begin() as connection:
        ...             _ = connection.execute(text("INSERT INTO numbers VALUES (:id)"), batch.dicts())
        ...             sync.commit(batch, connection)
        >>> print(sync.result.status, sync.result.guarantee)
        completed exactly_once
        >>> engine.dispose()
    """

    def __init__(
        self,
        job_id: str,
        connector: Connector[RecordT],
        *,
        store: JobStore | None = None,
        **options: Unpack[SyncOptions],
    ) -> None:
        self._setup(job_id, connector, None, store, options)

    def _setup(
        self,
        job_id: str,
        connector: Connector[RecordT],
        sink: Sink[RecordT] | None,
        store: JobStore | None,
        options: SyncOptions,
    ) -> None:
        checked = make_options(check_job_id(job_id), options)
        self._own_store = None
        if store is None:
            store = self._own_store = default_store()
        self._pieces = put_together(job_id, connector, sink, store, checked)
        self._state: Literal["new", "open", "closed"] = "new"
        self._attempt: Attempt[RecordT] | None = None
        self._result: SyncResult | None = None

    def __enter__(self) -> Self:
        """Decide, acquire the lease and begin.

        Raises:
            ConfigurationError: If it was entered before.
            JobHeldError: If another live attempt holds the job; further errors as for `run_full_sync`.
        """
        if self._state != "new":
            msg = f"job {self._pieces.job_id!r}: a FullSync serves one attempt; make a new one for the next"
            raise ConfigurationError(msg)
        self._state = "closed"
        self._pieces = attrs.evolve(self._pieces, started=time.monotonic())  # it may have been made long ago
        self._pieces.stop.start()
        try:
            opened = open_attempt(self._pieces)
        except BaseException:
            self.close_store()
            raise
        if isinstance(opened, SyncResult):
            self._result = opened
        else:
            self._attempt = opened
        self._state = "open"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        """End the attempt: completed, interrupted or failed; everything it opened is closed."""
        self._state = "closed"
        try:
            return False if self._attempt is None else self._attempt.close(error)
        finally:
            self.close_store()

    def __iter__(self) -> Iterator[Batch[RecordT]]:
        """Yield the batches from where the job stands; none if there is nothing to do.

        Raises:
            ConfigurationError: If it is not inside its `with` block.
        """
        attempt = self._attempt
        while self._state == "open" and attempt is not None and (batch := attempt.next_batch()) is not None:
            yield batch
            del batch  # as in `run_full_sync`
        self._check_open("iterate over it")

    def commit(self, batch: Batch[RecordT], connection: "Connection | None" = None) -> None:
        """Move the checkpoint behind a batch.

        Args:
            batch: The batch that the loop gave last.
            connection: An open transaction in the store's database, which you commit afterwards: rows and checkpoint
                then commit together. At READ COMMITTED, since the heartbeat renews the lease meanwhile. None: the
                checkpoint is saved at once.

        Raises:
            ConfigurationError: If the batch is not the loop's, or was committed before, or the connection leads
                elsewhere; roll back.
            LeaseLostError: If this attempt was overtaken; roll back.
        """
        self._check_open("commit")
        if self._attempt is not None:
            self._attempt.accept(batch, connection)

    @property
    def job(self) -> Job:
        """The job at the last checkpoint that the store is known to have.

        Raises:
            ConfigurationError: If the `with` block was not entered.
        """
        return self.result.job if self._attempt is None else self._attempt.job

    @property
    def result(self) -> SyncResult:
        """What the attempt did; known when the block has ended.

        Raises:
            ConfigurationError: If it has not.
        """
        if self._result is not None:
            return self._result
        if self._attempt is None:
            self._check_open("ask for its job or result")
        assert self._attempt is not None  # noqa: S101 - it is open, and had something to do
        return self._attempt.result

    def close_store(self) -> None:
        """Close the store that was made because none was given."""
        if self._own_store is not None:
            self._own_store.close()

    def _check_open(self, what: str) -> None:
        if self._state != "open":
            msg = f"job {self._pieces.job_id!r}: the FullSync is not open; {what} inside its with block"
            raise ConfigurationError(msg)


class SinkRun(FullSync[RecordT]):
    """The loop with a sink."""

    def __init__(
        self,
        job_id: str,
        connector: Connector[RecordT],
        sink: Sink[RecordT] | Callable[[Batch[RecordT]], object],
        store: JobStore | None,
        options: SyncOptions,
        *,
        whole: Job | None = None,
    ) -> None:
        self._setup(job_id, connector, as_sink(sink), store, options)
        self._pieces = attrs.evolve(self._pieces, whole=whole)

    def plan(self) -> Plan:
        """Say what entering it would do."""
        return plan(self._pieces)

    def stop(self, reason: str) -> None:
        """Ask to stop before the next batch."""
        self._pieces.stop.request(reason)

    def deliver(self, batch: Batch[RecordT]) -> None:
        """Have the sink write a batch that the loop gave."""
        assert self._attempt is not None  # noqa: S101 - it has given the batch
        self._attempt.deliver(batch)
