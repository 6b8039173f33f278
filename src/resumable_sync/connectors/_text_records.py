"""Records in lines of text: what CSV and JSON Lines have in common."""

import io
import zlib
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO, TypeVar

from typing_extensions import override

from resumable_sync._errors import ConfigurationError, CursorError, TransientError
from resumable_sync.connectors._file_source import FileSource, Records
from resumable_sync.connectors._lines import LONGEST_MARK, Lines, encoding_of
from resumable_sync.connectors._members import BUFFER, CompressionError, Members, compression_of
from resumable_sync.connectors._storage import FileFacts, Storage

__all__ = ["MAX_LINE_BYTES", "TextFile", "TextRecords", "TextSource"]

T = TypeVar("T")

MAX_LINE_BYTES = 16 * 1024 * 1024
_PLAIN_FIELDS, _COMPRESSED_FIELDS = 4, 6


class TextFile:
    """A file of text, opened at a place: `[offset, records, checksum, unterminated]`.

    Offset and checksum are those of the content. For a compressed file two numbers follow: where the member begins that
    holds the place, in the file and in its content.

    Args:
        storage: The files.
        name: Name of this one.
        compression: As given to the connector.
        encoding: As given to the connector.
        place: Where to begin; None is the first line.
        longest: Most bytes of a line.

    Raises:
        CursorError: If there is no such place.
    """

    def __init__(
        self,
        storage: Storage,
        name: str,
        *,
        compression: object,
        encoding: str,
        place: Sequence[int] | None = None,
        longest: int = MAX_LINE_BYTES,
    ) -> None:
        self.name = name
        self._kind = compression_of(name, compression)
        self._members: Members | None = None
        self._file, self.facts = storage.open(name)
        try:
            self._start(encoding, place, longest)
        except CompressionError as error:
            problem = f"the file {name!r} {error}; get it again"
        except BaseException:
            self._file.close()
            raise
        else:
            return
        self._file.close()
        raise ValueError(problem)

    def _start(self, encoding: str, place: Sequence[int] | None, longest: int) -> None:
        self._stream = self._content(self._file, (0, 0))
        found = encoding_of(encoding, self._stream.peek(LONGEST_MARK)[:LONGEST_MARK])
        self.records = 0 if place is None else place[1]
        if place is None or place[0] == 0:
            mark = self._stream.read(found.mark)
            self.lines = Lines(self._stream, found, offset=len(mark), checksum=zlib.crc32(mark), longest=longest)
            return
        self._stream = self._at(self._file, self._stream, place)
        self.lines = Lines(self._stream, found, offset=place[0], checksum=place[2], longest=longest)
        if place[3] and not self.lines.follows():
            msg = f"the last line of {self.name!r} that was delivered went on since; start over with reset_job(job_id)"
            raise CursorError(msg)

    def _at(self, file: BinaryIO, stream: io.BufferedReader, place: Sequence[int]) -> io.BufferedReader:
        if len(place) != (_PLAIN_FIELDS if self._kind is None else _COMPRESSED_FIELDS):
            msg = f"the cursor is none of a file compressed as {self.name!r} is; give back one that was yielded for it"
            raise CursorError(msg)
        start = (place[0], place[0]) if self._kind is None else (place[4], place[5])
        if file.seekable():
            file.seek(start[0])
            stream = self._content(file, start)
            left = place[0] - start[1]
        else:
            left = place[0]
        while left > 0:
            data = stream.read(min(left, BUFFER))
            if not data:
                msg = f"{self.name!r} is shorter than what was read of it; start over with reset_job(job_id)"
                raise CursorError(msg)
            left -= len(data)
        return stream

    def _content(self, file: BinaryIO, start: tuple[int, int]) -> io.BufferedReader:
        raw: Any = _Unclosed(file)
        if self._kind is not None:
            raw = self._members = Members(raw, self._kind, start)
        return io.BufferedReader(raw, BUFFER)

    @property
    def place(self) -> list[int]:
        """The place behind the last line that was taken."""
        place = [self.lines.offset, self.records, self.lines.checksum, int(self.lines.unterminated)]
        return place if self._members is None else [*place, *self._members.start_of(self.lines.offset)]

    def read(self, most: int) -> bytes:
        """Give the next bytes of the content, past all counting of lines."""
        return self._stream.read(most)

    def check_end(self) -> None:
        """See to it that a file that came to its end had all the bytes it was said to have.

        Raises:
            TransientError: If it had not.
        """
        size = self.facts.size
        if self._kind is None and size is not None and self.lines.offset < size:
            raise TransientError(
                f"the file {self.name!r} of {size} bytes ended after {self.lines.offset}: the connection broke off, or "
                "it was truncated while it was read"
            )

    def close(self) -> None:
        """Close the file."""
        self._stream.close()
        self._file.close()


class _Unclosed(io.RawIOBase):
    """A file that outlives the buffers before it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    @override
    def readable(self) -> bool:
        return True

    @override
    def readinto(self, buffer: Any) -> int:
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


class TextRecords(Records):
    """The records of a file of text.

    Args:
        file: It, opened.
    """

    def __init__(self, file: TextFile) -> None:
        self.file = file
        self.facts: FileFacts = file.facts
        self.columns: Sequence[str] | None = None

    @property
    @override
    def place(self) -> list[int]:
        return self.file.place

    @abstractmethod
    def parse(self, most: int) -> list[Any]:
        """Give the next records; none at the end.

        Raises:
            ValueError: If a line is no such record; its text tells what, without the line.
        """

    @override
    def take(self, most: int) -> list[Any]:
        records = self.guarded(lambda: self.parse(most))
        self.file.records += len(records)
        if not records:
            self.file.check_end()
        return records

    def guarded(self, work: Callable[[], T]) -> T:
        """Do work; its errors say which file and place they are about, and hold nothing of the text.

        Raises:
            ConfigurationError: As the work does.
            ValueError: If a line cannot be read.
        """
        try:
            return work()
        except ConfigurationError:
            raise
        except (CompressionError, ValueError) as error:
            problem = _problem(error, self.file.lines.encoding.name)
        # Outside of the handler: the errors of codecs and parsers hold the text that they are about.
        offset = self.file.lines.offset
        msg = f"the file {self.file.name!r}, in the records after {self.file.records}, before byte {offset}, {problem}"
        raise ValueError(msg)

    @override
    def close(self) -> None:
        self.file.close()


def _problem(error: Exception, encoding: str) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"is not {encoding} ({error.reason}); name its encoding in encoding="
    if isinstance(error, CompressionError):
        return f"{error}; get it again, or let its writer finish"
    return str(error)


class TextSource(FileSource[Any]):
    """Files of text, in which a place is an offset in bytes."""

    _encoding: str
    _compression: object
    _longest: int

    def _text(self, name: str, place: Sequence[int] | None) -> TextFile:
        return TextFile(
            self._storage,
            name,
            compression=self._compression,
            encoding=self._encoding,
            place=place,
            longest=self._longest,
        )

    @override
    def _check_place(self, place: Sequence[int]) -> bool:
        return len(place) in (_PLAIN_FIELDS, _COMPRESSED_FIELDS)

    @override
    def _rewritten(self, name: str, place: Sequence[int]) -> str | None:
        offset, _, checksum, unterminated = place[:_PLAIN_FIELDS]
        file = self._text(name, None)
        try:
            return _compared(file, offset, checksum, unterminated=bool(unterminated))
        finally:
            file.close()


def _compared(file: TextFile, offset: int, checksum: int, *, unterminated: bool) -> str | None:
    found, left = file.lines.checksum, offset - file.lines.offset
    try:
        while left > 0 and (data := file.read(min(left, BUFFER))):
            found, left = zlib.crc32(data, found), left - len(data)
        if left > 0:
            return "was truncated or replaced: it is shorter than what was read of it"
        if left < 0 or found != checksum:
            return "was replaced, or changed before the place that was reached"
        if unterminated and not file.lines.follows():
            return "did not end with a line break, and whose last line went on since"
    except CompressionError as error:
        return f"{error} before the place that was reached"
    return None
