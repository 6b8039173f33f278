"""Handing a batch to a sink and moving the checkpoint behind it."""

from collections.abc import Callable
from typing import Any

from resumable_sync._attempts.checkpoint import Checkpoints
from resumable_sync._attempts.dead_letters import Bisection, is_refusal
from resumable_sync._attempts.pieces import Pieces
from resumable_sync._attempts.ports import writes_in_transaction
from resumable_sync._errors import DeadLetterLimitError
from resumable_sync._model import Batch, DeadLetter, Job
from resumable_sync._protocols import DeadLetterStore, Sink, StoreTransaction

__all__ = ["Delivery"]

After = Callable[[Batch[Any], int], Job]
"""Gives the job after a batch of which so many records were refused."""


class Delivery:
    """Delivers batches to one sink: in the store's transaction where both can, else first the sink, then the store."""

    def __init__(self, pieces: Pieces, sink: Sink, checkpoints: Checkpoints) -> None:
        self._sink = sink
        self._store = pieces.store
        self._checkpoints = checkpoints
        self._retrier = pieces.retrier
        self._keep_refused = pieces.options.on_refused == "dead_letter"
        self._max_dead_letters = pieces.options.max_dead_letters
        self._together = writes_in_transaction(sink, pieces.store)

    def deliver(self, batch: Batch[Any], after: After) -> list[DeadLetter]:
        """Deliver a batch and save the job after it.

        Returns:
            The records that were refused and kept as dead letters.
        """
        if not self._together:
            self._retrier.call("write", self._sink.write, batch, None)
            self._checkpoints.save(after(batch, 0))
            return []
        try:
            self._checkpoints.transact("write", lambda transaction: self._write(transaction, batch, after))
        except Exception as error:
            if not self._keep_refused or not is_refusal(error, self._retrier):
                raise
        else:
            return []
        letters: list[DeadLetter] = []
        self._checkpoints.transact("write", lambda transaction: self._bisect(transaction, batch, after, letters))
        return letters

    def complete(self, job: Job) -> None:
        """Have the sink finish the run and save the job as it is then."""
        if not self._together:
            self._retrier.call("complete", self._sink.complete, job, None)
            self._checkpoints.save(job)
            return

        def work(transaction: StoreTransaction) -> Job:
            self._sink.complete(job, transaction.connection)
            return job

        self._checkpoints.transact("complete", work)

    def _write(self, transaction: StoreTransaction, batch: Batch[Any], after: After) -> Job:
        self._sink.write(batch, transaction.connection)
        return after(batch, 0)

    def _bisect(self, transaction: StoreTransaction, batch: Batch[Any], after: After, letters: list[DeadLetter]) -> Job:
        job, limit = self._checkpoints.job, self._max_dead_letters
        room = None if limit is None else max(0, limit - job.dead_letters)
        bisection = Bisection(self._sink, batch, transaction.connection, self._retrier, room)
        bisection.write()
        nothing_ever = bisection.accepted == 0 and job.processed_records == 0
        if bisection.first_error is not None and nothing_ever:
            raise bisection.first_error  # no such table, say: a failure, not a set of dead letters
        if limit is not None and bisection.overfull:
            raise DeadLetterLimitError(job.id, limit) from bisection.first_error
        assert isinstance(self._store, DeadLetterStore)  # noqa: S101 - checked with the options
        self._store.add_dead_letters(bisection.letters, transaction)
        letters[:] = bisection.letters
        return after(batch, len(letters))
