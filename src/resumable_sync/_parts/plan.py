"""The plan of a partitioned sync: which parts there are. It is the cursor of the parent job, and pure."""

from itertools import pairwise
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
            case {"parts": mark, "version": version, "open": bool(opened), "earlier": earlier, **where}:
                places = _places(where)
                if mark == _MARK and version == _VERSION and places is not None:
                    return cls(places, opened, earlier)
        return None

    def cursor(self, job_id: str) -> Cursor:
        """Give the plan as a job keeps it.

        Raises:
            ConfigurationError: If it is too large.
        """
        cursor: dict[str, Any] = {"parts": _MARK, "version": _VERSION, "open": self.open, "earlier": self.earlier}
        edges = _edges(self.places)
        cursor |= {"places": self.places} if edges is None else {"edges": edges}
        try:
            encode_cursor(cursor)
        except CursorError as error:
            msg = f"job {job_id!r}: the plan of {len(self.places)} parts cannot be kept ({error}); ask for fewer parts"
            raise ConfigurationError(msg) from error
        return cursor


def _edges(places: list[Cursor]) -> list[Cursor] | None:
    """Give where parts begin and end, if each begins where the one before it ends: half of what the places take."""
    edges: list[Cursor] = []
    for place in places:
        if type(place) is not list or len(place) != 2:  # noqa: PLR2004 - a beginning and an end
            return None
        if not edges:
            edges.append(place[0])
        elif encode_cursor(edges[-1]) != encode_cursor(place[0]):  # 1 and True are equal
            return None
        edges.append(place[1])
    return edges or None


def _places(where: Any) -> list[Cursor] | None:
    match where:
        case {"edges": list(edges)}:
            return [[after, upto] for after, upto in pairwise(edges)]
        case {"places": list(places)}:
            return places
    return None


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
