"""One source on many workers: parts that run side by side, and start again each by itself."""

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any

import attrs

from resumable_sync._attempts.options import BatchSize, Options, SyncOptions, make_options
from resumable_sync._attempts.pieces import Pieces, put_together
from resumable_sync._attempts.report import annotate
from resumable_sync._attempts.session import hold
from resumable_sync._attempts.start import rules_of
from resumable_sync._errors import ConfigurationError
from resumable_sync._model import Batch, RecordT, SyncResult
from resumable_sync._parts.coordinator import Coordinator
from resumable_sync._parts.part import Part, check_parts_of, part_of
from resumable_sync._parts.plan import PartsPlan
from resumable_sync._parts.workers import PartTask, Workers, check_travels
from resumable_sync._protocols import Connector, JobStore, Observer, Sink
from resumable_sync._restart import IfChanged, IfCompleted, IfHeld
from resumable_sync._retry import Retry, StopRequested
from resumable_sync._sinks import as_sink
from resumable_sync._validate import MAX_JOB_ID_LENGTH, check_job_id

__all__ = ["begin_partitioned_sync", "complete_partitioned_sync", "run_partitioned_sync"]

PARTS_PER_WORKER = 4
"""So many that one slow part does not hold up the end, and so few that splitting costs nothing."""

MAX_PARTS = 10_000
MAX_JOB_ID = MAX_JOB_ID_LENGTH - len("/9999")


def run_partitioned_sync(
    job_id: str,
    connector: Connector[RecordT],
    sink: Sink[RecordT] | Callable[[Batch[RecordT]], object],
    *,
    store: JobStore,
    executor: Executor,
    parts: int | None = None,
    batch_size: BatchSize | None = None,
    count: bool = True,
    if_completed: IfCompleted = "rerun",
    if_held: IfHeld = "raise",
    if_changed: IfChanged = "raise",
    resume_within: float | None = None,
    retry: Retry = Retry(),  # noqa: B008 - frozen
    lease_ttl: float = 60.0,
    prefetch: int | None = None,
    max_stalled_attempts: int = 5,
    max_runtime: float | None = None,
    should_stop: Callable[[], bool] | None = None,
    stop_on_signals: bool = False,
    observers: Sequence[Observer] = (),
    fast_path: bool = True,
) -> SyncResult:
    """Copy a source in parts, side by side on the workers of an executor; called again, go on with what is unfinished.

    The plan of parts is made at the first start of a run and kept in its job. Each part is a job of its own, such as
    `orders/0003`, with its own checkpoint and lease, so that any worker can go on with it after a death, and nothing
    that is done is done again. A part that somebody else works on is left to him, and taken up if he dies. The job of
    the whole is `completed` when all parts are.

    With a sink that writes in the store's transaction, or keeps its own checkpoint, every record arrives exactly once,
    however often the executor runs a task. Parts are written side by side: records of different parts come in any
    order.

    Args:
        job_id: Names the whole, as for `run_full_sync`, with room for the numbers of parts: 1 to 250 characters.
        connector: Where records come from; it can be split, as those on databases and files and `OffsetConnector` can.
        sink: Where batches go: one that can be filled by parts, such as `SQLSink`, or any function of a batch, which is
            called by several workers at once.
        store: Where the jobs are kept. Beyond threads it must be one for several processes, such as `SQLJobStore`.
        executor: Where parts run: a `ThreadPoolExecutor`, a `ProcessPoolExecutor` (with the start method "spawn" or
            "forkserver"; a fork copies open connections), Dask's `client.get_executor(pure=False)`, or any other. It
            stays open. Beyond threads connector, sink and store must pickle: make them from URLs.
        parts: Most parts of a new run, 1 to 10,000. None (default): four for each worker of a pool. A plan may take
            64 KiB: about 5,000 parts with an integer key, 1,500 with a UUID.
        batch_size: As for `run_full_sync`.
        count: Whether to count the source beside the first batches (default True).
        if_completed: What to do with a whole that is finished: "rerun" (default) or "skip".
        if_held: What to do while another call works on the whole: "raise" (default), "skip" or "wait".
        if_changed: What to do when the source is not the one of the plan: "raise" (default), "rerun" or "resume".
        resume_within: Seconds; a plan with older progress starts a new run. None (default): any age.
        retry: How transient errors are tried again.
        lease_ttl: Seconds until the lease of a dead process on another host ends (default 60).
        prefetch: Pages to read ahead in each part, as for `run_full_sync`.
        max_stalled_attempts: How many attempts in a row, at the whole or at a part, may die without progress.
        max_runtime: Seconds after which all parts stop at their next batch. None (default): no limit.
        should_stop: Is asked twice a second; True stops all parts at their next batch.
        stop_on_signals: Whether SIGTERM and SIGINT do (default False; Ctrl-C always does, and then raises
            KeyboardInterrupt).
        observers: Functions that are called with the events of the whole: `SyncStarted`, `PartsProgressed`, `TryFailed`
            and `SyncFinished`.
        fast_path: Whether the records of a part may travel in a form that connector and sink both know, as for
            `run_full_sync`.

    Returns:
        What was done; `status` is `completed` or `interrupted`, or that of a job passed over. `reason` names the parts
        that are not completed.

    Raises:
        ConfigurationError: If an argument cannot work, or the job was begun in one piece.
        JobHeldError: If another call works on the whole.
        SourceChangedError: If the source is not the one of the plan.
        CrashLoopError: If too many attempts died in a row.
        ExecutorBrokenError: If the executor cannot go on, such as a process pool of which a worker was killed.
        LeaseLostError: If this call was overtaken while it slept.
        StoreError: If the store cannot be read or written.
        ExceptionGroup: If several parts failed: what each failed with.
        Exception: What a single part failed with.
    """
    shared: SyncOptions = {
        "batch_size": batch_size,
        "retry": retry,
        "lease_ttl": lease_ttl,
        "prefetch": prefetch,
        "max_stalled_attempts": max_stalled_attempts,
        "fast_path": fast_path,
    }
    pieces = _pieces(
        job_id,
        connector,
        sink,
        store,
        {
            **shared,
            "count": count,
            "if_completed": if_completed,
            "if_held": if_held,
            "if_changed": if_changed,
            "resume_within": resume_within,
            "max_runtime": max_runtime,
            "should_stop": should_stop,
            "stop_on_signals": stop_on_signals,
            "observers": observers,
        },
    )
    most = _parts(job_id, parts, executor)
    if if_changed == "resume":
        shared["if_changed"] = "resume"

    def work(coordinator: Coordinator) -> None:
        task = PartTask(
            job_id=job_id,
            run_id=coordinator.job.run_id,
            connector=connector,
            sink=sink,
            store=store,
            options=shared,
        )
        coordinator.work(Workers(executor, task))
        if not pieces.stop.check():
            coordinator.complete()

    def check() -> None:
        if not isinstance(executor, ThreadPoolExecutor):
            check_travels(job_id, connector, sink, store)

    return _attempt(pieces, most, work, check)


def begin_partitioned_sync(
    job_id: str,
    connector: Connector[RecordT],
    sink: Sink[RecordT] | Callable[[Batch[RecordT]], object],
    *,
    store: JobStore,
    parts: int,
    if_completed: IfCompleted = "rerun",
    if_changed: IfChanged = "raise",
) -> Sequence[Part]:
    """Make or find the plan of a partitioned sync and prepare its target, for workers that this library does not start.

    Any number of workers then `run` the parts, each found by `part_of(job_id, index, store=store)`, in any order and as
    often as it takes; `complete_partitioned_sync` ends the whole. Called again, it gives what is unfinished.

    Args:
        job_id: As for `run_partitioned_sync`.
        connector: As for `run_partitioned_sync`.
        sink: As for `run_partitioned_sync`.
        store: As for `run_partitioned_sync`.
        parts: Most parts of a new run, 1 to 10,000.
        if_completed: What to do with a whole that is finished: "rerun" (default) or "skip", which gives no parts.
        if_changed: As for `run_partitioned_sync`.

    Returns:
        The parts that are not completed.

    Raises:
        ConfigurationError: If an argument cannot work, or the job was begun in one piece.
        JobHeldError: If a call works on the whole.
        SourceChangedError: If the source is not the one of the plan.
        StoreError: If the store cannot be read or written.
    """
    options: SyncOptions = {"count": False, "if_completed": if_completed, "if_changed": if_changed}
    pieces = _pieces(job_id, connector, sink, store, options)
    unfinished: list[int] = []

    def leave(coordinator: Coordinator) -> None:
        unfinished.extend(coordinator.unfinished)
        coordinator.leave()

    _attempt(pieces, _parts(job_id, parts, None), leave)
    return [part_of(job_id, index, store=store) for index in unfinished]


def complete_partitioned_sync(
    job_id: str,
    connector: Connector[RecordT],
    sink: Sink[RecordT] | Callable[[Batch[RecordT]], object],
    *,
    store: JobStore,
) -> SyncResult:
    """End a partitioned sync whose parts were run by workers that this library did not start.

    If all parts are completed, so is the whole, and with `SQLSink(mode="replace")` the new table takes the target's
    place. Else nothing changes, and parts may go on being run; call it again when they are.

    Args:
        job_id: The whole.
        connector: Of the whole.
        sink: Of the whole.
        store: Of the whole.

    Returns:
        The whole: `completed`, or still `running` with the parts that are not completed in `reason`.

    Raises:
        ConfigurationError: If there is no such job in parts.
        JobHeldError: If a call works on the whole.
        StoreError: If the store cannot be read or written.
    """
    pieces = _pieces(job_id, connector, sink, store, {"count": False, "if_completed": "skip", "if_changed": "resume"})
    stored = pieces.retrier.call("load", store.load, job_id)
    if stored is None or PartsPlan.of(stored.cursor) is None:
        msg = f"there is no job {job_id!r} in parts in the store; begin it with begin_partitioned_sync"
        raise ConfigurationError(msg)

    def end(coordinator: Coordinator) -> None:
        if coordinator.unfinished:
            coordinator.leave()  # stopped, the parts that are not begun would refuse to
        else:
            coordinator.complete()

    return _attempt(pieces, 1, end)


def _pieces(
    job_id: str,
    connector: Connector[Any],
    sink: Sink[Any] | Callable[[Batch[Any]], object],
    store: JobStore,
    options: SyncOptions,
) -> Pieces:
    if len(check_job_id(job_id)) > MAX_JOB_ID:
        msg = f"job_id {job_id[:20]!r}... has {len(job_id)} characters, and those of its parts have five more; give it"
        raise ConfigurationError(f"{msg} {MAX_JOB_ID} at most")
    checked: Options = make_options(job_id, options)
    made: Sink[Any] = as_sink(sink)
    pieces = put_together(job_id, connector, made, store, checked)
    check_parts_of(job_id, connector, made)
    return pieces


def _parts(job_id: str, parts: int | None, executor: Executor | None) -> int:
    if executor is not None and not callable(getattr(executor, "submit", None)):
        msg = f"job {job_id!r}: executor={executor!r} has no submit(function, *arguments); give an Executor, such as"
        raise ConfigurationError(f"{msg} ThreadPoolExecutor(4)")
    if parts is None:
        workers = getattr(executor, "_max_workers", None)
        if type(workers) is not int:
            msg = f"job {job_id!r}: how many workers a {type(executor).__name__} has cannot be told; give parts="
            raise ConfigurationError(msg)
        return PARTS_PER_WORKER * workers
    if type(parts) is not int or not 1 <= parts <= MAX_PARTS:
        msg = f"job {job_id!r}: parts={parts!r} is not possible; give a whole number from 1 to {MAX_PARTS:,}"
        raise ConfigurationError(msg)
    return parts


def _attempt(
    pieces: Pieces, parts: int, work: Callable[[Coordinator], None], check: Callable[[], None] = lambda: None
) -> SyncResult:
    """Acquire the whole, begin, work, and end it in whatever way.

    Args:
        pieces: What the call works with.
        parts: Most parts of a new run.
        work: What to do once it has begun.
        check: What to check first, when the lease is there to be seen.

    Raises:
        KeyboardInterrupt: If Ctrl-C ended it.
    """
    pieces.stop.start()
    pieces.signals.__enter__()
    try:
        with pieces.stop.shield():
            granted = _granted(pieces)
            result = granted if isinstance(granted, SyncResult) else _worked(pieces, granted, parts, work, check)
    except BaseException as error:
        if isinstance(error, StopRequested):
            raise (KeyboardInterrupt() if pieces.stop.interrupt else error.__cause__ or error) from None
        raise
    finally:
        pieces.signals.__exit__(None, None, None)
    if pieces.stop.interrupt:
        raise KeyboardInterrupt
    return result


def _granted(pieces: Pieces) -> Coordinator | SyncResult:
    try:
        with pieces.stop.lifted():
            rules = rules_of(pieces.connector, pieces.options, pieces.retrier)
        held = hold(pieces, attrs.evolve(rules, seekable=False))
        if isinstance(held, SyncResult):
            return held
        return Coordinator(pieces, held.job, held.decision, held.keeper, rules.fingerprint)
    except BaseException as error:
        annotate(error, pieces.job_id, None, None)
        raise


def _worked(
    pieces: Pieces,
    coordinator: Coordinator,
    parts: int,
    work: Callable[[Coordinator], None],
    check: Callable[[], None],
) -> SyncResult:
    try:
        with pieces.stop.lifted():
            check()
            coordinator.begin(parts)
            work(coordinator)
    except BaseException as error:
        if not coordinator.close(error):
            raise
    else:
        coordinator.close(None)
    assert coordinator.result is not None  # noqa: S101 - it is closed
    return coordinator.result
