"""Moving the checkpoint: the one place where an attempt writes to the store."""

import contextlib
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from resumable_sync._attempts.stop import Stop
from resumable_sync._errors import ConfigurationError, LeaseLostError
from resumable_sync._lease import LeaseKeeper
from resumable_sync._model import Job, Lease, same_cursor
from resumable_sync._protocols import JobStore, StoreTransaction, TransactionalJobStore
from resumable_sync._retry import Retrier

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["Checkpoints", "Work"]

Work = Callable[[StoreTransaction], Job]
"""Does something in a transaction and gives the job to save in it."""


class Checkpoints:
    """The job as last saved, and saving it: alone, or in one transaction with the sink's work.

    When a transaction's commit fails, or is interrupted, nobody knows whether it took effect. The job is then in
    doubt until `settle` has found out.

    Attributes:
        job: The job as the store has it, unless it is in doubt.
        seconds: How long the store took for the last checkpoint.
    """

    def __init__(
        self, store: JobStore, keeper: LeaseKeeper, job: Job, *, retrier: Retrier, patient: Retrier, stop: Stop
    ) -> None:
        self.job = job
        self.seconds = 0.0
        self._store = store
        # Asked once, since it takes as long as the engine's whole work for a batch.
        self._transactional = store if isinstance(store, TransactionalJobStore) else None
        self._keeper = keeper
        self._retrier = retrier
        self._patient = patient
        self._stop = stop
        self._doubtful: Job | None = None
        self._transaction: Any = None  # the caller's, with the job in doubt

    @property
    def tip(self) -> Job:
        """The job after the last batch that was handed over, committed or not."""
        return self._doubtful or self.job

    def save(self, job: Job) -> None:
        """Save the job; only this is tried again if it fails, since the sink has accepted what it stands for.

        Raises:
            ConfigurationError: If a transaction given to `enlist` is still open.
        """
        with self._stop.shield():
            if not self.confirm():
                raise ConfigurationError(self._still_open())
            self.job = job
            begun = time.monotonic()
            self._keeper.took(self._patient.call("save", self._store.save, job, self._keeper.lease))
            self.seconds = time.monotonic() - begun

    def transact(self, call: str, work: Work) -> None:
        """Do work and save the job it gives, in one transaction; both again after a transient error."""
        self._retrier.call(call, self._transact, work)

    def enlist(self, job: Job, connection: "Connection") -> None:
        """Save the job in a transaction of the caller's, who commits it later.

        Raises:
            ConfigurationError: If an earlier transaction of the caller's is still open.
        """
        if not self.confirm() and connection.get_transaction() is not self._transaction:
            raise ConfigurationError(self._still_open())
        if self._transactional is None:
            msg = f"job {job.id!r}: commit(batch, connection) needs a transactional store, such as SQLJobStore"
            raise ConfigurationError(msg)
        with self._stop.shield():
            begun = time.monotonic()
            self._keeper.took(self._transactional.enlist(connection).save(job, self._keeper.lease))
            self._doubtful, self._transaction = job, connection.get_transaction()
            self.seconds = time.monotonic() - begun

    def enlisted_in(self, connection: "Connection") -> bool:
        """Whether the connection is in the transaction that has written the job, and it is still open."""
        return self.entangled and connection.get_transaction() is self._transaction

    @property
    def entangled(self) -> bool:
        """Whether a transaction of the caller's is open that has written the job, and so keeps it locked."""
        return self._transaction is not None and bool(self._transaction.is_active)

    def confirm(self) -> bool:
        """Whether the store has everything that was given to `enlist`; False while that transaction is open.

        Raises:
            ConfigurationError: If the transaction ended and the store does not show the job.
        """
        if self._transaction is None or self._doubtful is None:
            return True
        if self.entangled:
            return False
        stored = self._patient.call("load", self._store.load, self._doubtful.id)
        if stored is None or not _same_state(stored, self._doubtful):
            msg = (
                f"job {self.job.id!r}: the transaction given to commit(batch, connection) was not committed; let its "
                "block end before the loop asks for the next batch, and let its errors out"
            )
            raise ConfigurationError(msg)
        self.job, self._doubtful, self._transaction = self._doubtful, None, None
        return True

    def _still_open(self) -> str:
        return (
            f"job {self.job.id!r}: the transaction given to commit(batch, connection) is still open; commit it before "
            "the next batch is committed otherwise and before the FullSync block ends"
        )

    def settle(self) -> bool:
        """Find out whether the job in doubt was committed; afterwards it cannot be any more.

        Returns:
            Whether it was.

        Raises:
            ConfigurationError: If a transaction given to `enlist` is still open.
            LeaseLostError: If the store shows neither the state before nor the state after.
        """
        doubtful = self._doubtful
        if doubtful is None:
            return False
        if self.entangled:
            raise ConfigurationError(self._still_open())
        with self._stop.shield():
            self._keeper.acquire_anew(self._patient)
        stored = self._patient.call("load", self._store.load, doubtful.id)
        if stored is None:
            raise LeaseLostError(doubtful.id, self._keeper.lease.fencing_token)
        # Before first: a transaction that saved the job as it was (`begin`) is then done again, which is harmless.
        if not _same_state(stored, self.job):
            if not _same_state(stored, doubtful):
                raise LeaseLostError(doubtful.id, self._keeper.lease.fencing_token)
            self.job = doubtful
        self._doubtful = self._transaction = None
        return self.job is doubtful

    def _transact(self, work: Work) -> None:
        if self.settle():
            return
        with self._stop.shield():
            try:
                job, lease = self._commit(work)
            except Exception:
                if self.settle():
                    return
                raise
            self._doubtful = None
            self.job = job
            self._keeper.took(lease)

    def _commit(self, work: Work) -> tuple[Job, Lease]:
        assert self._transactional is not None  # noqa: S101 - the caller asked before
        block = self._transactional.transaction()
        try:
            with block as transaction:
                with self._stop.lifted():
                    job = work(transaction)
                begun = time.monotonic()
                lease = transaction.save(job, self._keeper.lease)
                self._doubtful = job
        except BaseException as error:
            if not isinstance(error, Exception):
                # A signal handler of the caller's may have raised it where the block had not begun to end.
                with contextlib.suppress(Exception):
                    block.__exit__(type(error), error, error.__traceback__)
            raise
        self.seconds = time.monotonic() - begun
        return job, lease


def _same_state(one: Job, other: Job) -> bool:
    return (
        one.run == other.run
        and one.run_id == other.run_id
        and one.status == other.status
        and one.processed_records == other.processed_records
        and one.processed_batches == other.processed_batches
        and one.dead_letters == other.dead_letters
        and same_cursor(one.cursor, other.cursor)
    )
