"""Parts of a source of files: which files, and which row groups of the first and the last one. Pure."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import attrs

from resumable_sync._cursor import encode_cursor
from resumable_sync._errors import CursorError
from resumable_sync._model import Cursor

__all__ = ["Edge", "FileRange", "cut"]


@attrs.frozen
class Edge:
    """Where one part ends and the next one begins.

    Attributes:
        file: Name of the last file that lies before it, at least in part.
        groups: How many row groups of that file lie before it; None: the whole file.
        checksum: Of that file's footer, where there are groups: its row groups are these ones only as long as it is.
    """

    file: str
    groups: int | None = None
    checksum: int | None = None

    @classmethod
    def of(cls, place: Any) -> "Edge":
        """Read an edge as a job keeps it.

        Raises:
            ValueError: If it is something else.
        """
        match place:
            case [str()]:
                return cls(*place)
            case [str(), int(groups), int()] if type(groups) is int and groups > 0:
                return cls(*place)
        raise ValueError

    @property
    def place(self) -> Cursor:
        """The edge as a job keeps it: `["a.parquet"]`, or `["a.parquet", 12, 3735928559]`."""
        return [self.file] if self.groups is None else [self.file, self.groups, self.checksum]


@attrs.frozen
class FileRange:
    """The files, and row groups of files, between two edges.

    Attributes:
        after: Where it begins; None: with the first file.
        upto: Where it ends; None: with the last file, whichever that is by then.
    """

    after: Edge | None = None
    upto: Edge | None = None

    @classmethod
    def of(cls, place: Cursor) -> "FileRange":
        """Read a range as a job keeps it.

        Raises:
            CursorError: If it is something else.
        """
        try:
            match place:
                case [after, upto] if type(place) is list:
                    edges = [None if edge is None else Edge.of(edge) for edge in (after, upto)]
                    return cls(*edges)
        except ValueError:
            pass
        msg = f'the place of a part is two edges, such as [["a.csv"], ["m.csv"]], and this is a {type(place).__name__}'
        raise CursorError(f"{msg}: it belongs to another connector; use the one that the parts were made by")

    @property
    def place(self) -> Cursor:
        """The range as a job keeps it: `[["a.csv"], ["m.csv"]]`, `[None, ["a.csv"]]` for the first one."""
        return [None if edge is None else edge.place for edge in (self.after, self.upto)]

    @property
    def identity(self) -> str:
        """What tells it from others."""
        return encode_cursor(self.place)

    @property
    def halved(self) -> Sequence[Edge]:
        """Those of its edges that go through a file."""
        return [edge for edge in (self.after, self.upto) if edge is not None and edge.groups is not None]

    def holds(self, name: str) -> bool:
        """Whether a file lies in it, at least in part."""
        if self.after is not None and (name < self.after.file or (name == self.after.file and not self.after.groups)):
            return False
        return self.upto is None or name <= self.upto.file

    def groups(self, name: str) -> tuple[int, int | None]:
        """Give the first row group of a file that lies in it, and the first one behind it; None: there is none."""
        first = self.after.groups if self.after is not None and self.after.file == name else None
        return first or 0, self.upto.groups if self.upto is not None and self.upto.file == name else None


def cut(whole: FileRange, pieces: Sequence[tuple[Edge, int]], parts: int) -> Sequence[FileRange]:
    """Cut a range into at most `parts` ranges of about equal weight.

    Args:
        whole: What to cut.
        pieces: What is not cut, in order: the edge behind it, and what it weighs.
        parts: Most ranges, at least 1.
    """
    total = sum(weight for _, weight in pieces)
    edges: list[Edge | None] = [whole.after]
    passed, before = 0, 0
    for place, (_, weight) in enumerate(pieces):
        # Each piece goes to the part in which its middle lies.
        part = min(parts - 1, (2 * passed + weight) * parts // (2 * total)) if total else 0
        if place and part > before:
            edges.append(pieces[place - 1][0])
        passed, before = passed + weight, part
    edges.append(whole.upto)
    return [FileRange(after, upto) for after, upto in pairwise(edges)]
