"""One call of the engine: from the decision, over the batches, to the result."""

import logging
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Generic

import attrs
from typing_extensions import TypeVar

from resumable_sync._acquire import acquire, give_back, look, utc_now
from resumable_sync._checkpoint import Checkpoints
from resumable_sync._count import Counter
from resumable_sync._deliver import Delivery
from resumable_sync._errors import ConfigurationError, LeaseLostError, describe_error
from resumable_sync._events import BatchCommitted, RecordRefused, SyncFinished, SyncStarted
from resumable_sync._lease import LeaseKeeper
from resumable_sync._model import Batch, Guarantee, Job, JobStatus, Plan, SyncResult, batch_key
from resumable_sync._observers import Observers
from resumable_sync._options import Options
from resumable_sync._pages import Pages
from resumable_sync._protocols import Connector, JobStore, Sink
from resumable_sync._reader import PlacedPage
from resumable_sync._report import annotate, log_decision, plan_of, warn_of_shortfall
from resumable_sync._restart import Decision
from resumable_sync._retry import Retrier, StopRequested
from resumable_sync._start import (
    begin_sink,
    check_ports,
    drop_old_letters,
    guarantee_of,
    locate,
    rules_of,
    starting_job,
)
from resumable_sync._stop import SignalHandlers, Stop
from resumable_sync._validate import check_job_id

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["Session"]

RecordT = TypeVar("RecordT", default=Any)

logger = logging.getLogger("resumable_sync")


class Session(Generic[RecordT]):
    """One call: `open`, then `next_batch` and `deliver` (or `accept`) in turn, then `close`.

    Attributes:
        result: What the call did, once it is closed or had nothing to do.
    """

    def __init__(
        self,
        job_id: str,
        connector: Connector[RecordT],
        sink: Sink[RecordT] | None,
        store: JobStore,
        options: Options,
    ) -> None:
        self._job_id = check_job_id(job_id)
        check_ports(job_id, connector, sink, store, options)
        self._connector, self._sink, self._store, self._options = connector, sink, store, options
        self._observers = Observers(options.observers)
        self._stop = Stop(options.should_stop, options.max_runtime)
        # No method of the session: that would keep it, and all connections, alive until the garbage is collected.
        report = partial(self._observers.try_failed, job_id)
        self._retrier = Retrier(options.retry, self._stop.wait, report)
        self._reading = Retrier(options.retry, self._stop.pause, report)
        # What the sink has accepted must be saved, stop or no stop.
        self._patient = Retrier(options.retry, self._stop.sit_out, report)
        self._signals = SignalHandlers(self._stop, stop_on_signals=options.stop_on_signals)
        self._guarantee = guarantee_of(sink, store)
        self._started = time.monotonic()
        self._counter = Counter(job_id, connector)
        self._pages: Pages[RecordT] | None = None
        self._in_hand: Batch[RecordT] | None = None
        self._unconfirmed: list[tuple[Batch[RecordT], Job, float]] = []
        self._records = self._batches = self._enlisted = 0
        self._read_seconds = 0.0
        self.result: SyncResult | None = None

    def plan(self) -> Plan:
        """Say what `open` would do; writes nothing."""
        try:
            rules = rules_of(self._connector, self._options, self._retrier)
            job, decision = look(self._store, self._job_id, rules, self._retrier)
            return plan_of(job, locate(self._connector, decision, self._retrier), self._guarantee)
        except StopRequested as stopped:
            raise (stopped.__cause__ or stopped) from None

    def open(self) -> bool:
        """Decide, acquire the lease and begin; False if there is nothing to do (`result` says why)."""
        self._signals.__enter__()
        try:
            with self._stop.shield():
                return self._open()
        except BaseException as error:
            self._signals.__exit__(None, None, None)
            self._annotate(error)
            if isinstance(error, StopRequested):  # no lease yet, so no result: what stands is why tries were needed
                raise (KeyboardInterrupt() if self._stop.interrupt else error.__cause__ or error) from None
            raise

    def next_batch(self) -> Batch[RecordT] | None:
        """Give the next batch; None at the end of the source, or if something asked to stop."""
        if self._in_hand is not None:
            self.accept(self._in_hand)
        self._confirm()
        self._throttle()
        waiting = time.monotonic()
        placed = None if self._stop.check() else self._next_page()
        lease = self._keeper.lease  # a lost lease is no stop but an error
        if placed is None:
            return None
        self._read_seconds = time.monotonic() - waiting
        job = self._checkpoints.tip
        if self._options.count and job.total_records is None:
            self._counter.start()
        self._in_hand = Batch(
            records=placed.page.records,
            columns=placed.page.columns,
            cursor=placed.page.cursor,
            previous_cursor=placed.previous_cursor,
            job_id=job.id,
            run=job.run,
            sequence=job.processed_batches,
            fencing_token=lease.fencing_token,
            key=batch_key(job.id, job.run_id, job.run, placed.previous_text, placed.text),
        )
        return self._in_hand

    def deliver(self, batch: Batch[RecordT]) -> None:
        """Have the sink write the batch and move the checkpoint behind it."""
        writing = time.monotonic()
        self._keeper.assure()
        refused = self._delivery.deliver(batch, self._after)
        self._in_hand = None
        self._committed(batch, self._checkpoints.job, time.monotonic() - writing)
        for letter in refused:
            self._observers.tell(RecordRefused(job_id=self._job_id, sequence=batch.sequence, error=letter.error))

    def accept(self, batch: Batch[RecordT], connection: "Connection | None" = None) -> None:
        """Move the checkpoint behind a batch that the caller delivered.

        Args:
            batch: The batch in hand; one that was accepted before changes nothing.
            connection: The caller's open transaction in the store's database, committed later; None: save now.

        Raises:
            ConfigurationError: If the batch is not in hand.
        """
        if batch is not self._in_hand:
            tip = self._checkpoints.tip
            if batch.job_id == tip.id and batch.run == tip.run and batch.sequence < tip.processed_batches:
                return
            msg = f"job {self._job_id!r}: commit() was given a batch that is not in hand; give it the loop's own batch"
            raise ConfigurationError(msg)
        writing = time.monotonic()
        self._keeper.assure()
        after = self._after(batch, 0)
        if connection is None:
            self._checkpoints.save(after)
            self._in_hand = None
            self._committed(batch, after, time.monotonic() - writing)
        else:
            self._checkpoints.enlist(after, connection)
            self._in_hand = None
            self._unconfirmed.append((batch, after, time.monotonic() - writing))

    def close(self, error: BaseException | None) -> bool:
        """End the attempt: completed, interrupted or failed; give back the lease and everything that is open.

        Args:
            error: What ended the loop; None if it ended by itself.

        Returns:
            Whether `error` was only the sign of a stop, and is dealt with.

        Raises:
            KeyboardInterrupt: If Ctrl-C was the stop.
        """
        failure = error
        with self._stop.shield():
            try:
                with self._stop.lifted():
                    if self._pages is not None:
                        self._stop.end_pauses()
                        self._pages.close()
                    if error is None:
                        self._end()
            except BaseException as raised:  # noqa: BLE001 - recorded first, raised below
                failure = raised
            if failure is not None:
                failure = self._record(failure)
            self._shut_down(failure)
        try:
            if failure is not None and failure is not error:
                raise failure
            if self._stop.interrupt and not isinstance(failure, KeyboardInterrupt):
                raise KeyboardInterrupt
            return isinstance(failure, StopRequested)
        finally:
            failure = None  # else error and frame keep each other alive, and with them every connection

    @property
    def job(self) -> Job:
        """The job at the last checkpoint that the store is known to have."""
        return self._checkpoints.job

    def _open(self) -> bool:
        options = self._options
        with self._stop.lifted():
            rules = rules_of(self._connector, options, self._retrier)
        granted = acquire(
            self._store,
            self._job_id,
            rules,
            ttl=options.lease_ttl,
            if_held=options.if_held,
            retrier=self._retrier,
            stop=self._stop,
        )
        if granted.lease is None or granted.job is None:
            self._pass_over(granted.job, granted.decision)
            return False
        self._keeper = LeaseKeeper(self._store, granted.lease, options.lease_ttl, self._stop)
        self._keeper.start()
        self._stalled_before = granted.job.stalled_attempts
        self._checkpoints = Checkpoints(
            self._store, self._keeper, granted.job, retrier=self._retrier, patient=self._patient, stop=self._stop
        )
        self._decision = granted.decision
        try:
            with self._stop.lifted():
                self._begin(granted.job, rules.fingerprint)
        except BaseException as error:
            if self.close(error):
                return False
            raise
        return True

    def _begin(self, stored: Job, fingerprint: str | None) -> None:
        options = self._options
        self._decision = locate(self._connector, self._decision, self._retrier)
        log_decision(self._job_id, stored, self._decision, self._guarantee)
        # A death from here on must be counted, so the job is saved before anything else is tried.
        self._checkpoints.save(starting_job(stored, self._decision, fingerprint, utc_now()))
        drop_old_letters(self._store, self._checkpoints)
        if self._sink is not None:
            begin_sink(
                self._sink,
                self._connector,
                self._store,
                self._checkpoints,
                retrier=self._retrier,
                lease=self._keeper.lease,
            )
            self._delivery = Delivery(
                self._sink,
                self._store,
                self._checkpoints,
                self._retrier,
                keep_refused=options.on_refused == "dead_letter",
            )
        self._pages = Pages(
            self._connector,
            self._checkpoints.job.cursor,
            first_size=max(1, options.batch_size >> min(self._stalled_before, 64)),
            batch_size=options.batch_size,
            prefetch=options.prefetch,
            retrier=self._reading,
            stop=self._stop,
        )
        if self._observers:
            self._observers.tell(
                SyncStarted(job=self._checkpoints.job, plan=plan_of(stored, self._decision, self._guarantee))
            )

    def _next_page(self) -> PlacedPage[RecordT] | None:
        assert self._pages is not None  # noqa: S101 - open came before
        return self._pages.next()

    def _throttle(self) -> None:
        if self._options.throttle is None or self._batches == 0:
            return
        seconds: Any = self._options.throttle()
        if not isinstance(seconds, int | float) or not seconds >= 0:
            msg = f"job {self._job_id!r}: throttle() gave {seconds!r}; let it give the seconds to wait, 0 or more"
            raise ConfigurationError(msg)
        self._stop.wait(seconds)

    def _after(self, batch: Batch[RecordT], refused: int) -> Job:
        job = self._checkpoints.tip
        return attrs.evolve(
            job,
            cursor=batch.cursor,
            processed_records=job.processed_records + len(batch) - refused,
            processed_batches=job.processed_batches + 1,
            dead_letters=job.dead_letters + refused,
            total_records=self._counter.total if job.total_records is None else job.total_records,
            stalled_attempts=0,
            updated_at=utc_now(),
        )

    def _confirm(self) -> None:
        if self._unconfirmed and self._checkpoints.confirm():
            self._enlisted += len(self._unconfirmed)
            unconfirmed, self._unconfirmed = self._unconfirmed, []
            for batch, after, seconds in unconfirmed:
                self._committed(batch, after, seconds)

    def _committed(self, batch: Batch[RecordT], after: Job, seconds: float) -> None:
        self._batches += 1
        self._records += len(batch)
        limit = self._options.max_records
        if limit is not None and self._records >= limit:
            self._stop.request(f"max_records={limit} reached")
        if self._observers:
            self._observers.tell(
                BatchCommitted(
                    job=after,
                    sequence=batch.sequence,
                    records=len(batch),
                    read_seconds=self._read_seconds,
                    write_seconds=seconds,
                )
            )

    def _end(self) -> None:
        """Finish a loop that ended by itself: the run, if the source is exhausted, else this attempt."""
        if self._unconfirmed:
            if not self._checkpoints.confirm():
                self._checkpoints.settle()
            self._confirm()
        if self._pages is None or not self._pages.exhausted or self._in_hand is not None:
            self._checkpoints.save(self._ended(JobStatus.INTERRUPTED))
            return
        self._counter.close()
        job = self._checkpoints.job
        status = JobStatus.INCOMPLETE if job.dead_letters else JobStatus.COMPLETED
        done = attrs.evolve(
            self._ended(status),
            total_records=self._counter.total if job.total_records is None else job.total_records,
            stalled_attempts=0,
        )
        if self._sink is not None and status is JobStatus.COMPLETED:
            self._delivery.complete(done)
        else:
            self._checkpoints.save(done)
        warn_of_shortfall(done)

    def _ended(self, status: JobStatus, error: str | None = None) -> Job:
        """Give the job as this attempt leaves it; one that ends cleanly was not stalled."""
        job = self._checkpoints.job
        stalled = job.stalled_attempts if self._batches else self._stalled_before
        return attrs.evolve(job, status=status, error=error, finished_at=utc_now(), stalled_attempts=stalled)

    def _record(self, failure: BaseException) -> BaseException:
        """Save how the attempt ended, unless somebody else owns the job now.

        Returns:
            The failure; or that the lease is lost, which is why a zombie's writes fail in whatever way; or what stood
            against saving that it was only a stop: there is no result then.
        """
        self._annotate(failure)
        if isinstance(failure, LeaseLostError):
            logger.warning("%s", failure)
            return failure
        failed = isinstance(failure, Exception) and not isinstance(failure, StopRequested)
        if not failed:
            self._stop.request(type(failure).__name__)
        try:
            self._checkpoints.settle()
            status = JobStatus.FAILED if failed else JobStatus.INTERRUPTED
            self._checkpoints.save(self._ended(status, describe_error(failure) if failed else None))
        except Exception as error:  # noqa: BLE001 - the caller must see the first error; the next start finds out
            logger.warning("job %r: how it ended could not be saved: %s", self._job_id, describe_error(error))
            lost = isinstance(error, LeaseLostError) and failed
            if lost or (isinstance(failure, StopRequested) and not self._stop.interrupt):
                error.__cause__ = failure
                self._annotate(error)
                return error
        return failure

    def _shut_down(self, failure: BaseException | None) -> None:
        self._keeper.close()
        if not isinstance(failure, LeaseLostError) and not self._checkpoints.entangled:
            give_back(self._store, self._keeper.last, self._patient)
        self._counter.close()
        self._signals.__exit__(None, None, None)
        job = self._checkpoints.job
        if self._sink is None and self._enlisted and self._enlisted == self._batches:
            self._guarantee = Guarantee.EXACTLY_ONCE
        reason = None
        if job.status is JobStatus.INTERRUPTED:
            reason = self._stop.reason or "the loop was left before the source was exhausted"
        self.result = self._result(job, self._decision, reason)
        logger.info(
            "job %r: %s after %d records in %.1f s%s",
            job.id,
            job.status,
            self._records,
            self.result.seconds,
            f" ({reason})" if reason else "",
        )
        if self._observers:
            self._observers.tell(SyncFinished(result=self.result))

    def _pass_over(self, job: Job | None, decision: Decision) -> None:
        log_decision(self._job_id, job, decision, self._guarantee)
        reason = decision.reason
        if self._stop.reason is not None:
            reason = f"{reason}; stopped waiting: {self._stop.reason}"
        self.result = self._result(job or Job(id=self._job_id), decision, reason)
        self._signals.__exit__(None, None, None)
        if self._stop.interrupt:
            raise KeyboardInterrupt

    def _annotate(self, error: BaseException) -> None:
        checkpoints: Checkpoints | None = getattr(self, "_checkpoints", None)
        annotate(error, self._job_id, None if checkpoints is None else checkpoints.job, self._in_hand)

    def _result(self, job: Job, decision: Decision, reason: str | None) -> SyncResult:
        return SyncResult(
            job=job,
            action=decision.action,
            status=job.status,
            records=self._records,
            batches=self._batches,
            seconds=time.monotonic() - self._started,
            reason=reason,
            guarantee=self._guarantee,
        )
