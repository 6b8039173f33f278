"""The plan of a partitioned sync: which parts there are. It is the cursor of the parent job, and pure."""

from typing import Any

import attrs

from resumable_sync._cursor import encode_cursor
from resumable_sync._errors import ConfigurationError, CursorError
from resumable_sync._model import Cursor

__all__ = ["PartsPlan", "part_id", "refuse_partitioned"]

_MARK = "resumable_sync parts"
_VERSION = 1


def part_id(job_id: str, index: int) -> str:
    """Give the job of a part: `orders/0003`."""
    return f"{job_id}/{index:04d}"


@attrs.frozen
class PartsPlan:
    """The parts of one run, as frozen at its first start.

    Attributes:
        places: The place of each part, as the connector gave it.
        open: Whether the parts may be worked on; before that, what an earlier run has left of them is deleted.
        earlier: How many parts the run before had.
    """

    places: list[Cursor]
    open: bool = False
    earlier: int = 0

    @classmethod
    def of(cls, cursor: Cursor | None) -> "PartsPlan | None":
        """Read the plan from the cursor of a job; None if it is none."""
        match cursor:
            case {"parts": mark, "version": version, "places": list(places), "open": bool(opened), "earlier": earlier}:
                if mark == _MARK and version == _VERSION:
                    return cls(places, opened, earlier)
        return None

    def cursor(self, job_id: str) -> Cursor:
        """Give the plan as a job keeps it.

        Raises:
            ConfigurationError: If it is too large.
        """
        cursor: dict[str, Any] = {"parts": _MARK, "version": _VERSION, **attrs.asdict(self, recurse=False)}
        try:
            encode_cursor(cursor)
        except CursorError as error:
            msg = f"job {job_id!r}: the plan of {len(self.places)} parts cannot be kept ({error}); ask for fewer parts"
            raise ConfigurationError(msg) from error
        return cursor


def refuse_partitioned(job_id: str, cursor: Cursor | None) -> None:
    """Refuse to read on in one piece what was begun in parts.

    Raises:
        ConfigurationError: If the cursor of the job is a plan of parts.
    """
    if PartsPlan.of(cursor) is not None:
        msg = (
            f"job {job_id!r} was begun in parts, each with a checkpoint of its own; go on with run_partitioned_sync, "
            "or start over with reset_job(job_id)"
        )
        raise ConfigurationError(msg)
