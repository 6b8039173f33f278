"""One attempt: with the lease in hand, from the first batch to the last, and its end in whatever way."""

import logging
import time
from typing import TYPE_CHECKING, Generic

import attrs

from resumable_sync._attempts.acquire import give_back
from resumable_sync._attempts.checkpoint import Checkpoints
from resumable_sync._attempts.count import Counter
from resumable_sync._attempts.deliver import Delivery
from resumable_sync._attempts.pages import Pages
from resumable_sync._attempts.pieces import Pieces, throttled
from resumable_sync._attempts.recorder import Recorder, recorder_of
from resumable_sync._attempts.report import annotate, log_decision, log_end, plan_of, result_of, warn_of_shortfall
from resumable_sync._attempts.sizer import BatchSizer, first_size
from resumable_sync._attempts.start import (
    batch_size_of,
    begin_sink,
    drop_old_letters,
    in_best_format,
    locate,
    of_its_own,
    pinned,
    prefetch_of,
    starting_job,
)
from resumable_sync._attempts.throttle import Throttle
from resumable_sync._errors import ConfigurationError, LeaseLostError, describe_error
from resumable_sync._events import BatchCommitted, RecordRefused, SyncFinished, SyncStarted
from resumable_sync._formats import StaleRecordsError
from resumable_sync._lease import LeaseKeeper
from resumable_sync._model import Batch, Guarantee, Job, JobStatus, RecordT, SyncResult, batch_key, changed, utc_now
from resumable_sync._restart import Decision
from resumable_sync._retry import StopRequested

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["Attempt"]


logger = logging.getLogger("resumable_sync")

MOST_STALE = 3
"""How many times in a row records may have changed before they were written, until they are read as Python values."""


class Attempt(Generic[RecordT]):
    """`begin`, then `next_batch` and `deliver` (or `accept`) in turn, then `close`.

    Args:
        pieces: What the call works with.
        job: The job as stored, without its lease.
        decision: What restart detection decided.
        keeper: Keeps the lease.
    """

    def __init__(self, pieces: Pieces, job: Job, decision: Decision, keeper: LeaseKeeper) -> None:
        self._pieces = pieces
        self._decision = decision
        self._keeper = keeper
        self._stored = job
        self._checkpoints = Checkpoints(
            pieces.store, keeper, job, retrier=pieces.retrier, patient=pieces.patient, stop=pieces.stop
        )
        self._counter = Counter(pieces.job_id, pieces.connector)
        self._delivery: Delivery | None = None
        self._pages: Pages[RecordT] | None = None
        self._sizer: BatchSizer | None = None
        self._asked, self._read_took, self._handed_out = 0, 0.0, 0.0  # about the batch in hand, for the sizer
        self._plain: Pieces | None = None  # with the connector that gives Python values
        self._stale = 0
        self._recorder: Recorder | None = None
        self._begun = self._uncounted = False
        self._in_hand: Batch[RecordT] | None = None
        self._unconfirmed: list[tuple[Batch[RecordT], Job, float, float]] = []  # the arguments of `_committed`
        self._records = self._batches = self._enlisted = 0
        self._read_seconds = self._given = 0.0
        self._result: SyncResult | None = None

    @property
    def job(self) -> Job:
        """The job at the last checkpoint that the store is known to have."""
        return self._checkpoints.job

    @property
    def result(self) -> SyncResult:
        """What the attempt did.

        Raises:
            ConfigurationError: If it is not closed yet.
        """
        if self._result is None:
            msg = f"job {self._pieces.job_id!r}: the result is known when the with block of the FullSync has ended"
            raise ConfigurationError(msg)
        return self._result

    def begin(self, fingerprint: str | None) -> None:
        """Note in the store that an attempt is at work, and prepare sink and source."""
        pieces, checkpoints = self._placed(fingerprint), self._checkpoints
        if self._decision.error is not None:
            raise self._decision.error
        log_decision(pieces.job_id, self._stored, self._decision, pieces.guarantee)
        # A death from here on must be counted, so the job is saved before anything else is tried.
        checkpoints.save(starting_job(self._stored, self._decision, fingerprint, utc_now()))
        self._begun = True
        drop_old_letters(pieces.store, checkpoints)
        if pieces.sink is not None:
            begin_sink(pieces, pieces.sink, checkpoints, self._keeper)
            self._delivery = Delivery(pieces, pieces.sink, checkpoints)
            self._plain, self._pieces = pieces, in_best_format(pieces, checkpoints.job)
            pieces = self._pieces
        self._pages = self._open_pages(pieces)
        self._uncounted = pieces.options.count and checkpoints.job.total_records is None
        self._recorder = recorder_of(pieces, self._keeper, self.job.run_id, time.monotonic)
        if pieces.observers:
            plan = plan_of(self._stored, self._decision, pieces, pieces.format)
            pieces.observers.tell(SyncStarted(job=checkpoints.job, plan=plan))

    def _placed(self, fingerprint: str | None) -> Pieces:
        """Find the place where reading goes on, and have everything read the columns that the run began with."""
        pieces = self._pieces
        connector = pinned(pieces.connector, self._decision, pieces.retrier)
        self._decision = locate(pieces, connector, self._decision)
        # A run that starts anew because the last record moved reads all columns there are.
        if self._decision.action != "resume" or connector is pieces.connector:
            connector = of_its_own(pieces.connector, fingerprint, pieces.retrier)
        self._pieces = attrs.evolve(pieces, connector=connector)
        self._counter = Counter(pieces.job_id, connector)
        return self._pieces

    def _open_pages(self, pieces: Pieces) -> Pages[RecordT]:
        size: int | BatchSizer
        whole, stalled = self._stored.batch_size, self._stored.stalled_attempts
        asked = batch_size_of(pieces)
        if asked == "auto":
            size = self._sizer = self._sizer or BatchSizer.resume(whole, stalled)
        else:
            size = whole = asked
        return Pages(
            pieces.connector,
            self.job.cursor,
            batch_size=size,
            first_size=first_size(whole, stalled),
            prefetch=prefetch_of(pieces),
            retrier=pieces.reading,
            stop=pieces.stop,
        )

    def next_batch(self) -> Batch[RecordT] | None:
        """Give the next batch; None at the end of the source, or if something asked to stop."""
        assert self._pages is not None  # noqa: S101 - begin came before
        if self._in_hand is not None:
            self.accept(self._in_hand)
        if self._unconfirmed:
            self._confirm()
        if self._batches and self._uncounted:
            self._uncounted = False
            self._counter.start()  # not before: it would take the processor from the first batch
        waiting = time.monotonic()
        placed = None if self._pieces.stop.check() else self._pages.next()
        self._read_seconds = time.monotonic() - waiting
        throttle = self._pieces.options.throttle
        if placed is not None and throttle is not None:
            stopped = throttled(self._pieces, throttle, len(placed.page.records), first=self._batches == 0)
            placed = None if stopped else placed
        lease = self._keeper.lease  # a lost lease is no stop but an error
        if placed is None:
            return None
        job = self._checkpoints.tip
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
        if self._sizer is not None:
            self._asked, self._read_took, self._handed_out = placed.asked, placed.seconds, self._worked()
        self._given = time.monotonic()
        return self._in_hand

    def deliver(self, batch: Batch[RecordT]) -> None:
        """Have the sink write the batch and move the checkpoint behind it."""
        assert self._delivery is not None  # noqa: S101 - a call with a sink has one
        writing = time.monotonic()
        self._keeper.assure(self._pieces.patient)
        try:
            refused = self._delivery.deliver(batch, self._after)
        except StaleRecordsError:
            self._read_again(batch)
            return
        self._stale = 0
        self._written(batch)
        took = time.monotonic() - writing
        self._committed(batch, self._checkpoints.job, took, self._checkpoints.seconds, len(refused))
        for letter in refused:
            event = RecordRefused(job_id=batch.job_id, sequence=batch.sequence, error=letter.error)
            self._pieces.observers.tell(event)

    def _read_again(self, stale: Batch[RecordT]) -> None:
        """Read on from the checkpoint: records that a batch only refers to are not those any more that were read."""
        assert self._pages is not None and self._plain is not None  # noqa: S101, PT018 - the batch came from there
        self._pages.close()
        self._give_back_in_hand()
        self._in_hand = None
        self._stale += 1
        if self._stale == MOST_STALE:
            self._pieces = self._plain
        logger.debug("job %r: batch %d changed before it was written; it is read anew", stale.job_id, stale.sequence)
        self._pages = self._open_pages(self._pieces)

    def accept(self, batch: Batch[RecordT], connection: "Connection | None" = None) -> None:
        """Move the checkpoint behind a batch that the caller delivered.

        Args:
            batch: The batch in hand; one that was accepted before changes nothing.
            connection: The caller's open transaction in the store's database, committed later; None: save now.
        """
        if batch is not self._in_hand:
            self._accepted_before(batch, connection)
            return
        after = self._after(batch, 0)
        if connection is None:
            self._keeper.assure(self._pieces.patient)
            self._checkpoints.save(after)
        else:
            # Whether the lease is still ours this decides: to ask before, on another connection, might wait for a lock
            # that the caller's own transaction holds.
            self._checkpoints.enlist(after, connection)
        self._written(batch)
        delivered = batch, after, time.monotonic() - self._given, self._checkpoints.seconds
        if connection is None:
            self._committed(*delivered)
        else:
            self._unconfirmed.append(delivered)

    def close(self, error: BaseException | None) -> bool:
        """End the attempt: completed, interrupted or failed; give back the lease and everything that is open.

        Args:
            error: What ended the loop; None if it ended by itself.

        Returns:
            Whether `error` was only the sign of a stop, and is dealt with.

        Raises:
            KeyboardInterrupt: If Ctrl-C was the stop.
        """
        failure, stop = error, self._pieces.stop
        with stop.shield():
            try:
                with stop.lifted():
                    self._stop_reading()
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
            if stop.interrupt and not isinstance(failure, KeyboardInterrupt):
                raise KeyboardInterrupt
            return isinstance(failure, StopRequested)
        finally:
            failure = None  # else error and frame keep each other alive, and with them every connection

    def _accepted_before(self, batch: object, connection: "Connection | None") -> None:
        """Bear a batch that was accepted already, unless the caller has written its rows once more.

        Raises:
            ConfigurationError: If that is so, or the batch is not of this loop.
        """
        last = self._unconfirmed[-1][0] if self._unconfirmed else None
        if connection is not None and batch is last and self._checkpoints.enlisted_in(connection):
            return
        job_id, job = self._pieces.job_id, self._checkpoints.job
        ours = isinstance(batch, Batch) and batch.job_id == job_id and batch.run == job.run
        sequence = batch.sequence if isinstance(batch, Batch) and ours else None
        if connection is None and sequence is not None and sequence < job.processed_batches:
            return
        if sequence is not None and sequence < self._checkpoints.tip.processed_batches:
            msg = (
                f"job {job_id!r}: batch {sequence} was given to commit() before, in a transaction that has ended; "
                "roll this one back and let the error out of the FullSync block: the next start goes on exactly"
            )
        else:
            msg = f"job {job_id!r}: commit() was given a batch that is not in hand; give it the loop's own batch"
        raise ConfigurationError(msg)

    def _written(self, batch: Batch[RecordT]) -> None:
        self._in_hand = None
        if self._sizer is not None:
            seconds = self._worked() - self._handed_out
            self._sizer.took(self._asked, len(batch.records), self._read_took, seconds)

    def _worked(self) -> float:
        """Give the monotonic clock without the time in which this thread waited for another try or the throttle."""
        return time.monotonic() - self._pieces.stop.waited

    def _after(self, batch: Batch[RecordT], refused: int) -> Job:
        job = self._checkpoints.tip
        return changed(
            job,
            cursor=batch.cursor,
            processed_records=job.processed_records + len(batch.records) - refused,
            processed_batches=job.processed_batches + 1,
            dead_letters=job.dead_letters + refused,
            total_records=self._counter.total if job.total_records is None else job.total_records,
            stalled_attempts=0,
            batch_size=job.batch_size if self._sizer is None else self._sizer.size,
            updated_at=utc_now(),
        )

    def _confirm(self) -> None:
        if self._checkpoints.confirm():
            self._enlisted += len(self._unconfirmed)
            unconfirmed, self._unconfirmed = self._unconfirmed, []
            for delivered in unconfirmed:
                self._committed(*delivered)

    def _committed(self, batch: Batch[RecordT], after: Job, seconds: float, commit: float, refused: int = 0) -> None:
        """Enter a batch into the books.

        Args:
            batch: It.
            after: The job after it.
            seconds: How long it took, commit included.
            commit: How long that took.
            refused: How many of its records were kept as dead letters.
        """
        records = len(batch.records) - refused
        self._batches += 1
        self._records += records
        limit = self._pieces.options.max_records
        if limit is not None and self._records >= limit:
            self._pieces.stop.request(f"max_records={limit} reached")
        if self._recorder is not None:
            self._recorder.committed(after, records, self._read_seconds, seconds - commit, commit)
        if self._pieces.observers:
            event = BatchCommitted(
                job=after,
                sequence=batch.sequence,
                records=records,
                read_seconds=self._read_seconds,
                write_seconds=seconds,
                commit_seconds=commit,
            )
            self._pieces.observers.tell(event)

    def _give_back_in_hand(self) -> None:
        throttle = self._pieces.options.throttle
        if self._in_hand is not None and isinstance(throttle, Throttle):
            throttle.give_back(len(self._in_hand))

    def _stop_reading(self) -> None:
        self._give_back_in_hand()
        if self._pages is not None:
            self._pieces.stop.end_pauses()
            self._pages.close()
        self._counter.close()

    def _end(self) -> None:
        """Finish a loop that ended by itself: the run, if the source is exhausted, else this attempt."""
        self._confirm()  # if the transaction is still open, saving says so
        if self._pages is None or not self._pages.exhausted:
            self._checkpoints.save(self._ended(JobStatus.INTERRUPTED))
            return
        job = self._checkpoints.job
        status = JobStatus.INCOMPLETE if job.dead_letters else JobStatus.COMPLETED
        total = self._counter.total if job.total_records is None else job.total_records
        done = attrs.evolve(self._ended(status), total_records=total, stalled_attempts=0)
        if self._delivery is not None and self._publishes(status):
            self._keeper.assure(self._pieces.patient)
            self._delivery.complete(done)
        else:
            self._checkpoints.save(done)
        warn_of_shortfall(done)

    def _publishes(self, status: JobStatus) -> bool:
        return status is JobStatus.COMPLETED or bool(getattr(self._pieces.sink, "publishes_incomplete", False))

    def _ended(self, status: JobStatus, error: str | None = None) -> Job:
        """Give the job as this attempt leaves it; one that ends cleanly was not stalled."""
        job = self._checkpoints.job
        stalled = job.stalled_attempts if self._batches else self._stored.stalled_attempts
        return attrs.evolve(job, status=status, error=error, finished_at=utc_now(), stalled_attempts=stalled)

    def _record(self, failure: BaseException) -> BaseException:
        """Save how the attempt ended, unless somebody else owns the job now, or it had not even begun.

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
            self._pieces.stop.request(type(failure).__name__)
        if not self._begun:
            return failure
        try:
            self._checkpoints.settle()
            status = JobStatus.FAILED if failed else JobStatus.INTERRUPTED
            self._checkpoints.save(self._ended(status, describe_error(failure) if failed else None))
        except Exception as error:  # noqa: BLE001 - the caller must see the first error; the next start finds out
            self._recorder = None  # a store that cannot be written is not waited for once more
            logger.warning("job %r: how it ended could not be saved: %s", self.job.id, describe_error(error))
            lost = isinstance(error, LeaseLostError) and failed
            if lost or (isinstance(failure, StopRequested) and not self._pieces.stop.interrupt):
                error.__cause__ = failure
                self._annotate(error)
                return error
        return failure

    def _shut_down(self, failure: BaseException | None) -> None:
        pieces, job = self._pieces, self.job
        self._keeper.close()
        reason = None
        if job.status is JobStatus.INTERRUPTED:
            reason = pieces.stop.reason or "the loop was left before the source was exhausted"
        result = result_of(pieces, job, self._decision.action, reason, records=self._records, batches=self._batches)
        if pieces.sink is None and self._enlisted and self._enlisted == self._batches:
            result = attrs.evolve(result, guarantee=Guarantee.EXACTLY_ONCE)
        self._result = result
        if not isinstance(failure, LeaseLostError) and not self._checkpoints.entangled:
            if self._recorder is not None and self._begun:
                self._recorder.close(result)
            give_back(pieces.store, self._keeper.last, pieces.patient)
        pieces.signals.__exit__(None, None, None)
        if not self._begun:
            return
        log_end(result)
        if pieces.observers:
            pieces.observers.tell(SyncFinished(result=result))

    def _annotate(self, error: BaseException) -> None:
        annotate(error, self._pieces.job_id, self.job, self._in_hand)
