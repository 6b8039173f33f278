"""Setting refused records aside, and delivering them later."""

import hashlib
from collections.abc import Sequence
from typing import Any

import attrs

from resumable_sync._errors import ResumableSyncError, describe_error
from resumable_sync._model import Batch, DeadLetter, as_records
from resumable_sync._protocols import Sink
from resumable_sync._retry import Retrier

__all__ = ["Bisection", "is_refusal", "letter_key"]


def is_refusal(error: Exception, retrier: Retrier) -> bool:
    """Whether a sink's error means that it refuses a record for good: neither transient nor the library's own."""
    return not isinstance(error, ResumableSyncError) and not retrier.retry.covers(error)


class Bisection:
    """Writes a batch in halves, each in a savepoint, until the refused records stand alone.

    Args:
        sink: The sink, transactional.
        batch: The batch.
        connection: The open transaction.
        retrier: Knows what is transient, and so no refusal.
        room: How many records may be refused; None: any number.

    Attributes:
        accepted: How many records were written.
        letters: The refused ones.
        first_error: What the sink raised first; None if nothing.
    """

    def __init__(self, sink: Sink, batch: Batch, connection: Any, retrier: Retrier, room: int | None = None) -> None:
        self.accepted = 0
        self.letters: list[DeadLetter] = []
        self.first_error: Exception | None = None
        self._sink = sink
        self._batch = batch
        self._connection = connection
        self._retrier = retrier
        self._room = room

    @property
    def overfull(self) -> bool:
        """Whether more records were refused than may be; what follows them was not tried."""
        return self._room is not None and len(self.letters) > self._room

    def write(self) -> None:
        """Write all that is accepted, as long as no more is refused than may be.

        Raises:
            Exception: What the sink raised, where it is no refusal.
        """
        spans = [(0, len(self._batch))]
        while spans and not self.overfull:
            start, stop = spans.pop()
            error = self._try(start, stop)
            if error is None:
                self.accepted += stop - start
            elif stop - start == 1:
                self.letters.append(self._letter(start, error))
            else:
                middle = (start + stop) // 2
                spans += [(middle, stop), (start, middle)]  # the left half is on top: letters come in order

    def _try(self, start: int, stop: int) -> Exception | None:
        savepoint = self._connection.begin_nested()
        try:
            self._sink.write(_part(self._batch, start, stop), self._connection)
        except Exception as error:
            if not is_refusal(error, self._retrier):
                raise
            self._undo(savepoint, error)
            self.first_error = self.first_error or error
            return error
        savepoint.commit()
        return None

    def _undo(self, savepoint: Any, error: Exception) -> None:
        """Go back to a savepoint; where that is gone, the error has ended the whole transaction, and is no refusal."""
        try:
            savepoint.rollback()
        except Exception as failure:
            if self._retrier.retry.covers(failure):
                raise
            raise error from failure

    def _letter(self, index: int, error: Exception) -> DeadLetter:
        batch = self._batch
        (record,) = as_records(_slice(batch.records, index, index + 1))
        return DeadLetter(
            job_id=batch.job_id,
            run=batch.run,
            record=record,
            columns=None if batch.columns is None else list(batch.columns),
            error=describe_error(error),
            cursor=batch.previous_cursor,
            key=batch.key,
        )


def _part(batch: Batch, start: int, stop: int) -> Batch:
    if (start, stop) == (0, len(batch)):
        return batch
    return attrs.evolve(batch, records=_slice(batch.records, start, stop), key=_part_key(batch.key, f"{start}:{stop}"))


def letter_key(letter: DeadLetter) -> str:
    """Give the idempotency key under which a letter is delivered alone."""
    return _part_key(letter.key, f"letter:{letter.id}")


def _part_key(key: str, part: str) -> str:
    return hashlib.blake2b(f"{key}:{part}".encode(), digest_size=16).hexdigest()


def _slice(records: Any, start: int, stop: int) -> Sequence[Any]:
    if hasattr(records, "to_pylist"):
        part: Sequence[Any] = records.slice(start, stop - start)
    else:
        part = records[start:stop]
    return part
