"""What every connector on files does: go through them in order, and see whether they are still what was read."""

import copy
import hashlib
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from itertools import islice
from typing import Any, ClassVar, Generic, Protocol, Self, get_args

import attrs
from typing_extensions import override

from resumable_sync._close import close_if_closable
from resumable_sync._errors import ConfigurationError, CursorError
from resumable_sync._model import Cursor, Page, RecordT
from resumable_sync._protocols import AnchoredConnector, IfMoved
from resumable_sync._split import ConnectorPart, SplittableConnector
from resumable_sync.connectors._file_parts import Edge, FileRange, cut
from resumable_sync.connectors._storage import FileFacts, Storage, open_storage

__all__ = ["FileSource", "Position", "Records"]

_FIELDS = {"file", "place", "size", "version", "before"}
_SEEK_BATCH = 10_000


class Records(Protocol):
    """The records of an open file, from some place on."""

    columns: Sequence[str] | None
    types: Mapping[str, Any] = {}  # of Arrow, by column, where the records are Arrow data
    facts: FileFacts

    @property
    def place(self) -> list[int]:
        """The place behind the last record that was taken."""
        ...

    def take(self, most: int) -> Sequence[Any]:
        """Give the next records, at most so many; none at the end of the file."""
        ...

    def close(self) -> None:
        """Close the file."""
        ...


@attrs.frozen(kw_only=True)
class Position:
    """What a cursor on files says.

    Attributes:
        file: Name of the file that is being read.
        place: Where in it; numbers that the connector interprets.
        facts: The state that the file had.
        before: How many files come before it, and a digest of their names.
    """

    file: str
    place: tuple[int, ...]
    facts: FileFacts
    before: tuple[int, str]

    def cursor(self) -> Cursor:
        """Give it as a cursor."""
        return {
            "file": self.file,
            "place": list(self.place),
            "size": self.facts.size,
            "version": self.facts.version,
            "before": list(self.before),
        }


def position_of(cursor: Cursor) -> Position:
    """Give what a cursor says.

    Raises:
        CursorError: If it says nothing of the kind.
    """
    if type(cursor) is dict and set(cursor) == _FIELDS:
        file, place, before = cursor["file"], cursor["place"], cursor["before"]
        size, version = cursor["size"], cursor["version"]
        if (
            type(file) is str
            and type(place) is list
            and all(type(number) is int and number >= 0 for number in place)
            and (size is None or type(size) is int)
            and (version is None or type(version) is str)
            and type(before) is list
            and list(map(type, before)) == [int, str]
        ):
            facts = FileFacts(size=size, version=version)
            return Position(file=file, place=tuple(place), facts=facts, before=(before[0], before[1]))
    msg = "the cursor is none of a connector on files; give back one that it yielded"
    raise CursorError(msg)


class FileSource(ConnectorPart[RecordT], SplittableConnector[RecordT], AnchoredConnector, Generic[RecordT]):
    """Files, one after the other, from any place in any of them; or a part of them.

    Args:
        path: Path, glob pattern or URL.
        storage_options: For the filesystem of a URL.
        if_moved: What to do at a resume when the files are not as they were.
        fingerprint: What the places depend on besides the path, by name.
    """

    _has_groups: ClassVar[bool] = False
    """Whether a part may begin within a file."""

    def __init__(
        self, path: Any, storage_options: Mapping[str, Any] | None, if_moved: IfMoved, fingerprint: Mapping[str, str]
    ) -> None:
        if if_moved not in get_args(IfMoved):
            msg = f"if_moved={if_moved!r} is none of 'warn', 'raise' and 'rerun'; give one of them"
            raise ConfigurationError(msg)
        self._storage: Storage = open_storage(path, storage_options)
        self.if_moved = if_moved
        self._fingerprint = {"path": self._storage.identity, **fingerprint}
        self._range: FileRange | None = None

    @property
    @override
    def fingerprint(self) -> Mapping[str, str]:
        """Path, format and what else the places depend on."""
        return self._fingerprint if self._range is None else {**self._fingerprint, "range": self._range.identity}

    @property
    @override
    def place(self) -> Cursor:
        """Between which files it reads, such as `[["a.csv"], ["m.csv"]]`; None for the whole."""
        return None if self._range is None else self._range.place

    @override
    def split(self, parts: int) -> Sequence[Self]:
        """Give parts that begin where a file does, in which the files have about equally many bytes in all.

        A part reads the files whose names sort between two names, and the last one whatever sorts behind: files that
        come and go between parts are as they are to the whole. There are no more parts than files.
        """
        whole = self._range or FileRange()
        return [self.part(piece.place) for piece in cut(whole, self._pieces(self._files()), parts)]

    @override
    def part(self, place: Cursor) -> Self:
        found = FileRange.of(place)
        if found.halved and not self._has_groups:
            msg = f"the place of a part is in the middle of a file, and a {type(self).__name__} has no such parts; use"
            raise CursorError(f"{msg} the connector that the parts were made by")
        made = copy.copy(self)
        made._range = found  # noqa: SLF001 - our own
        return made

    def _pieces(self, names: Sequence[str]) -> Sequence[tuple[Edge, int]]:
        """Give what goes into a part undivided: its end and its weight."""
        sizes = [self._size(name) for name in names]
        # Where the size of one is unknown, that of the others tells nothing either.
        weights = [size for size in sizes if size is not None]
        if len(weights) < len(sizes):
            weights = [1] * len(sizes)
        return [(Edge(name), weight) for name, weight in zip(names, weights, strict=True)]

    def _size(self, name: str) -> int | None:
        file, facts = self._storage.open(name)
        file.close()
        return facts.size

    def _files(self) -> list[str]:
        """Give the names of the files to read.

        Raises:
            FileNotFoundError: If there is none, or not the one that a part begins or ends in.
        """
        names = self._storage.names()
        if self._range is None:
            return names
        held = [name for name in names if self._range.holds(name)]
        gone = [edge.file for edge in self._range.halved if edge.file not in held]
        if gone or not held:
            what = f"the file {gone[0]!r}, in which a part begins or ends, is" if gone else "all files of a part are"
            msg = f"{what} gone; put them back, or start over with reset_job(job_id)"
            raise FileNotFoundError(msg)
        return held

    @abstractmethod
    def _open(self, name: str, place: Sequence[int] | None) -> Records:
        """Open a file at a place; None is its beginning.

        Raises:
            CursorError: If there is no such place.
        """

    @abstractmethod
    def _check_place(self, place: Sequence[int]) -> bool:
        """Whether a place can be one of this connector's."""

    @abstractmethod
    def _rewritten(self, name: str, place: Sequence[int]) -> str | None:
        """Say what became of the content up to a place of a file whose state is another; None if it is the same."""

    @override
    def read(self, cursor: Cursor | None, batch_size: int) -> Iterator[Page[RecordT]]:
        position = None if cursor is None else self._position(cursor)
        names = self._files()
        if position is not None:
            self._check(names, position)
        return self._pages(names, position, batch_size)

    @override
    def count(self) -> int | None:
        """Give None: the number of records is known only when all are read."""
        return None

    def cursor_at(self, offset: int) -> Cursor | None:
        """Give the cursor after the first `offset` records, which are read for it; None for 0 or if there are fewer."""
        cursor, left = None, offset
        while left > 0:
            pages = self.read(cursor, min(left, _SEEK_BATCH))
            page = next(pages, None)
            close_if_closable(pages)
            if page is None:
                return None
            cursor, left = page.cursor, left - len(page)
        return cursor

    @override
    def moved(self, cursor: Cursor) -> str | None:
        try:
            position = self._position(cursor)
        except CursorError:
            return None
        try:
            names = self._files()
        except FileNotFoundError:
            names = []
        return self._moved(names, position)

    def _pages(self, names: list[str], position: Position | None, batch_size: int) -> Iterator[Page[RecordT]]:
        start = 0 if position is None else names.index(position.file)
        columns: tuple[str, ...] | None = None
        types: Mapping[str, Any] = {}
        for name, before in islice(zip(names, _before(names), strict=True), start, None):
            place = position.place if position is not None and name == position.file else None
            with closing(self._opened(name, place, names)) as records:
                arranged = records
                if records.columns is not None:
                    if columns is None:
                        columns, types = self._first(self._storage.names()) or (tuple(records.columns), records.types)
                    arranged = _Arranged(records, columns, types, name)
                while taken := arranged.take(batch_size):
                    at = Position(file=name, place=tuple(records.place), facts=records.facts, before=before)
                    yield Page(taken, at.cursor(), columns)
                    del taken  # the page that is read next shall not find this one still in memory

    def _opened(self, name: str, place: Sequence[int] | None, names: list[str]) -> Records:
        try:
            return self._open(name, place)
        except FileNotFoundError as error:
            if len(names) == 1:
                raise
            text = f"{error}; it was there when the files were listed: call again to go on without it"
        raise FileNotFoundError(text)

    def _first(self, names: list[str]) -> tuple[tuple[str, ...], Mapping[str, Any]] | None:
        """Give the columns of the run and their types, which are those of the first file of the whole that has any."""
        for name in names:
            with closing(self._opened(name, None, names)) as records:
                if records.columns is not None:
                    return tuple(records.columns), records.types
        return None

    def _first_columns(self, names: list[str]) -> tuple[str, ...] | None:
        found = self._first(names)
        return None if found is None else found[0]

    def _position(self, cursor: Cursor) -> Position:
        position = position_of(cursor)
        if not self._check_place(position.place):
            msg = f"the cursor is none of this {type(self).__name__}; give back one that it yielded"
            raise CursorError(msg)
        return position

    def _check(self, names: list[str], position: Position) -> None:
        """Refuse to go on in files that are not as they were; with `if_moved="warn"` as far as that is possible.

        Raises:
            CursorError: If they are not.
        """
        if self.if_moved == "warn" and position.file in names:
            return
        moved = self._moved(names, position)
        if moved is not None:
            msg = f"the last record delivered {moved}; put the files back, or start over with reset_job(job_id)"
            raise CursorError(msg)

    def _moved(self, names: list[str], position: Position) -> str | None:
        name = position.file
        if name not in names:
            return f"is in the file {name!r}, which is gone"
        before = next(islice(_before(names), names.index(name), None))
        if before != position.before:
            return (
                f"is in the file {name!r}, and of the files that sort before it some came or went "
                f"({position.before[0]} then, {before[0]} now)"
            )
        file, facts = self._storage.open(name)
        file.close()
        if facts.same(position.facts):
            return None
        old, new = position.facts.size, facts.size
        if old is not None and new is not None and new < old:
            return f"is in the file {name!r}, which was truncated or replaced: it had {old} bytes and has {new}"
        became = self._rewritten(name, position.place)
        return None if became is None else f"is in the file {name!r}, which {became}"

    @override
    def __repr__(self) -> str:
        shown = f"{type(self).__name__}({self._storage.shown!r})"
        return shown if self._range is None else f"<a part of {shown}>"


def _before(names: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Say for each file how many come before it, and the digest of their names.

    Yields:
        Number and digest.
    """
    seen = hashlib.blake2b(digest_size=8, person=b"resumable_sync")
    for number, name in enumerate(names):
        yield number, seen.hexdigest()
        seen.update(name.encode("utf-8", "surrogatepass") + b"\0")


class _Arranged(Records):
    """Records as tuples in the order of the run's columns.

    Args:
        records: Those of a file.
        columns: Of the run.
        types: Their Arrow types, by name, where the records are Arrow data.
        name: Of the file.

    Raises:
        ValueError: If the file has other columns.
    """

    def __init__(self, records: Records, columns: Sequence[str], types: Mapping[str, Any], name: str) -> None:
        self._records = records
        self._types = types
        self._name = name
        self.columns: Sequence[str] | None = columns
        self.facts = records.facts
        own = list(records.columns or ())
        if set(own) != set(columns):
            other = [f"{what} {sorted(names)}" for what, names in _differences(own, columns) if names]
            msg = (
                f"the file {name!r} has other columns than the first one: {'; '.join(other)}; sync it in a job of its "
                "own, or name the columns of all files in columns="
            )
            raise ValueError(msg)
        self._places = None if own == list(columns) else [own.index(column) for column in columns]

    @property
    @override
    def place(self) -> list[int]:
        return self._records.place

    @override
    def take(self, most: int) -> Any:
        taken: Any = self._records.take(most)
        places = self._places
        if hasattr(taken, "select"):
            return self._as_types(taken if places is None else taken.select(places))
        if places is None:
            return taken
        return [tuple([record[place] for place in places]) for record in taken]

    def _as_types(self, taken: Any) -> Any:
        """Give Arrow data as the types of the first file.

        Raises:
            ValueError: If a value would be another one.
        """
        if all(field.type == self._types.get(field.name, field.type) for field in taken.schema):
            return taken
        from resumable_sync._arrow.cast import cast_exactly  # noqa: PLC0415 - files of text do without Arrow

        made = {}
        for field, values in zip(taken.schema, taken.columns, strict=True):
            made[field.name] = cast_exactly(values, self._types.get(field.name, field.type))
            if made[field.name] is None:
                msg = (
                    f"the file {self._name!r} has the column {field.name!r} as {field.type}, which does not fit "
                    f"{self._types[field.name]}, as which the first one has it; write it with one type, or sync it in "
                    "a job of its own"
                )
                raise ValueError(msg)
        return type(taken).from_pydict(made)

    @override
    def close(self) -> None:
        self._records.close()


def _differences(own: Sequence[str], columns: Sequence[str]) -> list[tuple[str, set[str]]]:
    return [("it lacks", set(columns) - set(own)), ("it has besides", set(own) - set(columns))]
