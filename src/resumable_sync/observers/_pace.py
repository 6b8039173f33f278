"""What progress bars say besides numbers of records: which side is the slower one, restarts, trouble."""

from typing_extensions import override

from resumable_sync._events import BatchCommitted

__all__ = ["Balance", "expected"]

KEPT = 0.8
"""How much of the balance so far a batch leaves: that of about the last ten is shown."""


class Balance:
    """Which part of the time goes into reading; what is left goes into writing. Of the last ten batches or so."""

    def __init__(self) -> None:
        self._read = 0.0
        self._write = 0.0

    def add(self, event: BatchCommitted) -> None:
        """Take a batch into account."""
        self._read = self._read * KEPT + event.read_seconds
        self._write = self._write * KEPT + event.write_seconds

    @override
    def __str__(self) -> str:
        whole = self._read + self._write
        if not whole:
            return ""
        read = round(100 * self._read / whole)
        return f"read {read}% write {100 - read}%"


def expected(total_records: int | None, records: int) -> int | None:
    """Give how many records there will be at least; a source may have grown since it was counted."""
    return None if total_records is None else max(total_records, records)
