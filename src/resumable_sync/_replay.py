"""Delivering dead letters again."""

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import attrs

from resumable_sync._attempts.acquire import give_back, take
from resumable_sync._attempts.checkpoint import Checkpoints
from resumable_sync._attempts.dead_letters import is_refusal, letter_key
from resumable_sync._attempts.observers import Observers
from resumable_sync._attempts.stop import Stop, hold_off_signals
from resumable_sync._attempts.unpublished import refuse_unpublished
from resumable_sync._default_store import default_store
from resumable_sync._errors import ConfigurationError, LeaseLostError, describe_error
from resumable_sync._fingerprint import is_verification
from resumable_sync._lease import LeaseKeeper
from resumable_sync._model import Batch, DeadLetter, Guarantee, Job, JobStatus, SyncResult, utc_now
from resumable_sync._protocols import DeadLetterStore, JobStore, Sink, StoreTransaction
from resumable_sync._retry import Retrier, Retry, StopRequested
from resumable_sync._sinks import as_sink
from resumable_sync._validate import check_job_id

__all__ = ["replay_dead_letters"]

LEASE_TTL = 60.0

logger = logging.getLogger("resumable_sync")


def replay_dead_letters(
    job_id: str, sink: Sink[Any] | Callable[[Batch[Any]], object], *, store: JobStore | None = None
) -> SyncResult:
    """Deliver the dead letters of a job again, each exactly once; keep those that are refused again.

    Each letter is written, removed and counted in one transaction. When none is left, a job that is `incomplete`
    becomes `completed`. Transient errors are tried again as by `Retry()`. Ctrl-C and `store.request_stop(job_id)` stop
    after the letter in hand; another call goes on with the others.

    Args:
        job_id: The job.
        sink: A transactional sink, such as the one of the sync. A run that `SQLSink(mode="replace")` has not published
            needs that one: no other would publish what it loaded.
        store: The job's store; it must keep dead letters. None: the same one as of `run_full_sync`.

    Returns:
        What was done: `records` counts the letters delivered, `reason` says why others are left.

    Raises:
        ConfigurationError: If there is no such job, it is one of `verify_full_sync`, or sink or store cannot do this.
        JobHeldError: If another live attempt holds the job.
        LeaseLostError: If this attempt was overtaken while it slept.
        StoreError: If the store cannot be read or written.
        KeyboardInterrupt: If Ctrl-C was pressed.
        Exception: What the sink raised, where it is no refusal, with a note saying how far the replay got.
    """
    check_job_id(job_id)
    target = as_sink(sink)
    if not target.transactional:
        msg = f"job {job_id!r}: replaying needs a transactional sink, such as SQLSink without url or transactional(f)"
        raise ConfigurationError(msg)
    if store is None:
        with default_store() as made:
            return replay_dead_letters(job_id, sink, store=made)
    if not isinstance(store, DeadLetterStore):
        msg = f"job {job_id!r}: a {type(store).__name__} keeps no dead letters; use a store that does, as SQLJobStore"
        raise ConfigurationError(msg)
    return _replay(job_id, target, store)


def _replay(job_id: str, sink: Sink[Any], store: DeadLetterStore) -> SyncResult:
    stop = Stop(None, None)
    return hold_off_signals(stop, _Replay(job_id, sink, store, stop).run)


def _refuse_verification(job: Job) -> None:
    if is_verification(job.fingerprint):
        msg = (
            f"job {job.id!r} is a verification, whose dead letters are the differences that it found, and no records; "
            "replay those of the sync, or sync again, then verify again"
        )
        raise ConfigurationError(msg)


class _Replay:
    """One call: `run` acquires the job, delivers letter by letter, and gives the job back."""

    def __init__(self, job_id: str, sink: Sink[Any], store: DeadLetterStore, stop: Stop) -> None:
        self._job_id, self._sink, self._store, self._stop = job_id, sink, store, stop
        report = partial(Observers(()).try_failed, job_id)
        self._retrier = Retrier(Retry(), stop.wait, report)
        # What the sink has accepted must be saved, stop or no stop.
        self._patient = Retrier(Retry(), stop.sit_out, report)
        self._started = time.monotonic()
        self._in_hand: DeadLetter | None = None
        self._refused = 0

    def run(self) -> SyncResult:
        job, lease = take(self._store, self._job_id, ttl=LEASE_TTL, retrier=self._retrier)
        keeper = LeaseKeeper(self._store, lease, LEASE_TTL, self._stop)
        keeper.start()
        try:
            _refuse_verification(job)
            self._checkpoints = Checkpoints(
                self._store, keeper, job, retrier=self._retrier, patient=self._patient, stop=self._stop
            )
            self._keeper = keeper
            try:
                self._deliver_until_stop()
            except BaseException as error:
                self._annotate(error, job)
                raise
            return self._result(job)
        finally:
            keeper.close()
            give_back(self._store, keeper.last, self._patient)

    def _deliver_until_stop(self) -> None:
        try:
            self._deliver_all()
        except StopRequested:
            self._checkpoints.settle()
        _ = self._keeper.lease  # a lost lease is no stop but an error

    def _deliver_all(self) -> None:
        run = self._checkpoints.job.run
        self._checkpoints.transact("begin", self._begin)
        for letter in self._retrier.call("load", lambda: list(self._store.dead_letters(self._job_id))):
            if letter.run != run:
                continue
            if self._stop.check():
                return
            self._in_hand = letter
            self._deliver_or_keep(letter)
            self._in_hand = None
        job = self._checkpoints.job
        if job.status is JobStatus.INCOMPLETE and job.dead_letters == 0:
            self._checkpoints.transact("complete", self._complete)

    def _deliver_or_keep(self, letter: DeadLetter) -> None:
        try:
            self._checkpoints.transact("write", partial(self._deliver, letter))
        except Exception as error:
            if isinstance(error, StopRequested) or not is_refusal(error, self._retrier):
                raise
            self._refused += 1
            logger.warning(
                "job %r: dead letter %d was refused again: %s", self._job_id, letter.id, describe_error(error)
            )

    def _begin(self, transaction: StoreTransaction) -> Job:
        job = self._checkpoints.job
        leased = attrs.evolve(job, lease=self._keeper.lease)
        self._sink.begin(leased, transaction.connection)
        refuse_unpublished(leased, transaction.connection)
        return job

    def _deliver(self, letter: DeadLetter, transaction: StoreTransaction) -> Job:
        job = self._checkpoints.job
        batch = Batch(
            records=[letter.record],
            columns=letter.columns,
            cursor=letter.cursor,
            previous_cursor=letter.cursor,
            job_id=job.id,
            run=job.run,
            sequence=job.processed_batches,
            fencing_token=self._keeper.lease.fencing_token,
            key=letter_key(letter),
        )
        self._sink.write(batch, transaction.connection)
        self._store.remove_dead_letter(letter, transaction)
        return attrs.evolve(job, processed_records=job.processed_records + 1, dead_letters=job.dead_letters - 1)

    def _complete(self, transaction: StoreTransaction) -> Job:
        done = attrs.evolve(self._checkpoints.job, status=JobStatus.COMPLETED, finished_at=utc_now())
        self._sink.complete(done, transaction.connection)
        return done

    def _delivered(self, before: Job) -> int:
        return self._checkpoints.job.processed_records - before.processed_records

    def _result(self, before: Job) -> SyncResult:
        job, delivered = self._checkpoints.job, self._delivered(before)
        reasons = [f"{self._refused} dead letters were refused again"] if self._refused else []
        reasons += [f"stopped: {self._stop.reason}"] if self._stop.reason is not None else []
        reason = "; ".join(reasons) or None
        logger.info(
            "job %r: %s after %d dead letters were delivered, %d are left%s",
            job.id,
            job.status,
            delivered,
            job.dead_letters,
            f" ({reason})" if reason else "",
        )
        return SyncResult(
            job=job,
            action="resume",
            status=job.status,
            records=delivered,
            batches=delivered,
            seconds=time.monotonic() - self._started,
            reason=reason,
            guarantee=Guarantee.EXACTLY_ONCE,
        )

    def _annotate(self, error: BaseException, before: Job) -> None:
        """Say in an error how far the replay got, and how to go on."""
        again = "call replay_dead_letters again for the others"
        if isinstance(error, LeaseLostError) or any(again in note for note in getattr(error, "__notes__", ())):
            return
        place = "" if self._in_hand is None else f", dead letter {self._in_hand.id}"
        error.add_note(
            f"job {before.id!r}, run {before.run}{place}: {self._delivered(before)} of {before.dead_letters} letters "
            f"were delivered; {again}"
        )
