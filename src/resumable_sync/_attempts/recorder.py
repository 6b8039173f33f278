"""Taking the history of a run while it goes on."""

import logging
from collections.abc import Callable
from datetime import timedelta

import attrs

from resumable_sync._attempts.pieces import Pieces
from resumable_sync._errors import LeaseLostError, StateCorruptError, describe_error
from resumable_sync._history import History, HistoryStore, Sample, thinned
from resumable_sync._lease import LeaseKeeper
from resumable_sync._model import Guarantee, Job, SyncResult

__all__ = ["Recorder", "recorder_of"]

MIN_SECONDS = 1.0
"""A sample is no shorter than this, but for the last one of an attempt."""

PER_ATTEMPT = 100
"""Nor shorter than its attempt is old, by this number: what a chart cannot show need not be written."""

MAX_STOPS = 100

logger = logging.getLogger("resumable_sync")


class Recorder:
    """Samples how an attempt goes, and has the store keep that; whatever fails with it, the sync goes on.

    Args:
        store: The store.
        keeper: Keeps the lease.
        pieces: What the call works with.
        run_id: UUID of the run.
        clock: Gives seconds that never go back.
    """

    def __init__(
        self,
        store: HistoryStore,
        keeper: LeaseKeeper,
        pieces: Pieces,
        run_id: str | None,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._keeper = keeper
        self._pieces = pieces
        self._run_id = run_id
        self._clock = clock
        self._begun = self._mark = clock()
        # By the store's clock, as the times of the attempts: this host's may show another time.
        self._epoch = keeper.store_time()
        self._history: History | None = None
        # What the sample is made of that is being taken.
        self._records = self._batches = self._tries = 0
        self._read = self._write = self._commit = 0.0
        self._on = True

    def committed(self, job: Job, records: int, read: float, write: float, commit: float) -> None:
        """Take a batch into account, and have the store keep a sample if it is time for one.

        Args:
            job: The job after the batch.
            records: How many records it had.
            read: Seconds that the engine waited for it.
            write: Seconds that the sink took.
            commit: Seconds that the store took.
        """
        self._records += records
        self._batches += 1
        self._read += read
        self._write += max(write, 0.0)
        self._commit += commit
        now = self._clock()
        if now - self._mark >= max(MIN_SECONDS, (now - self._begun) / PER_ATTEMPT):
            self._keep(self._sample(job, now), self._pieces.guarantee)

    def close(self, result: SyncResult) -> None:
        """Have the store keep the last sample of the attempt, and why it was interrupted."""
        sample = self._sample(result.job, self._clock())
        if sample.batches or sample.failed_tries or result.reason is not None:
            self._keep(sample, result.guarantee, result.reason)

    def _sample(self, job: Job, now: float) -> Sample:
        """Give what there is since the last sample, and begin the next one."""
        tries = self._pieces.observers.failed_tries
        sample = Sample(
            attempt=job.attempt,
            started_at=self._epoch + timedelta(seconds=self._mark - self._begun),
            seconds=now - self._mark,
            records=self._records,
            batches=self._batches,
            read_seconds=self._read,
            write_seconds=self._write,
            commit_seconds=self._commit,
            failed_tries=tries - self._tries,
            processed_records=job.processed_records,
        )
        self._records = self._batches = 0
        self._read = self._write = self._commit = 0.0
        self._tries, self._mark = tries, now
        return sample

    def _keep(self, sample: Sample, guarantee: Guarantee, stopped: str | None = None) -> None:
        """Have the store keep a sample with those before it, unless that failed before."""
        if not self._on:
            return
        job_id = self._pieces.job_id
        try:
            history = self._history or self._earlier()
            stops = dict(history.stops) | ({} if stopped is None else {sample.attempt: stopped})
            self._history = attrs.evolve(
                history,
                guarantee=guarantee,
                samples=thinned([*history.samples, sample]),
                stops=dict(sorted(stops.items())[-MAX_STOPS:]),
            )
            # Not to be cut short: an interrupt inside a transaction has hung SQLite.
            with self._pieces.stop.shield():
                self._store.keep_history(self._history, self._keeper.lease)
        except LeaseLostError:
            self._on = False  # the next checkpoint says so
        except Exception as error:  # noqa: BLE001 - how a sync goes is worth less than that it goes
            self._on = False
            told = describe_error(error)
            logger.warning("job %r: its history is not kept for the rest of this attempt: %s", job_id, told)

    def _earlier(self) -> History:
        """Give what earlier attempts of the run left, or an empty history."""
        pieces = self._pieces
        fresh = History(run_id=self._run_id, guarantee=pieces.guarantee, format=pieces.format)
        try:
            kept = self._store.history(pieces.job_id)
        except StateCorruptError as error:
            logger.warning("job %r: its history is damaged and begins anew: %s", pieces.job_id, error)
            return fresh
        if kept is None or kept.run_id != self._run_id:
            return fresh
        return attrs.evolve(fresh, samples=kept.samples, stops=kept.stops)


def recorder_of(pieces: Pieces, keeper: LeaseKeeper, run_id: str | None, clock: Callable[[], float]) -> Recorder | None:
    """Give what takes the history of an attempt; None where the store keeps none."""
    if not isinstance(pieces.store, HistoryStore):
        return None
    return Recorder(pieces.store, keeper, pieces, run_id, clock)
