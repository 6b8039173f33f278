"""Lines of a stream of bytes as text, with the exact place behind the last one that was taken."""

import codecs
import io
import sys
import zlib
from collections.abc import Iterator
from itertools import chain

import attrs

from resumable_sync._errors import ConfigurationError

__all__ = ["Encoding", "Lines", "encoding_of"]

LONGEST_MARK = 4

CHUNK = 1 << 16
"""Bytes whose lines are cut at once."""

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    # A mark of UTF-32 begins like one of UTF-16.
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_ENDIAN = "le" if sys.byteorder == "little" else "be"
_UNICODE = {
    "utf-8": "utf-8",
    "utf-8-sig": "utf-8",
    **{f"utf-{bits}": f"utf-{bits}-{_ENDIAN}" for bits in (16, 32)},
    **{f"utf-{bits}-{order}": f"utf-{bits}-{order}" for bits in (16, 32) for order in ("le", "be")},
}


@attrs.frozen(kw_only=True)
class Encoding:
    """How the text of a file is written.

    Attributes:
        name: Of the codec, which reads no byte order mark.
        mark: Length of the byte order mark that the file begins with, 0 to 4 bytes.
        newline: The line break.
    """

    name: str
    mark: int
    newline: bytes

    @property
    def breaks(self) -> tuple[bytes, bytes]:
        """The two forms of a line break."""
        return self.newline, "\r\n".encode(self.name)


def encoding_of(name: str, head: bytes = b"") -> Encoding:
    """Give the encoding of a file.

    Args:
        name: The encoding asked for; if it is one of Unicode, a byte order mark goes before it.
        head: The first four bytes of the file.

    Raises:
        ConfigurationError: If there is no such encoding.
    """
    try:
        codec = codecs.lookup(name).name
        newline = "\n".encode(codec)
    except (LookupError, TypeError, UnicodeError):
        msg = f"encoding={name!r} is no encoding of text that Python has; give one such as 'utf-8' or 'latin-1'"
        raise ConfigurationError(msg) from None
    if codec not in _UNICODE:
        return Encoding(name=codec, mark=0, newline=newline)
    mark, codec = next(((len(m), found) for m, found in _MARKS if head.startswith(m)), (0, _UNICODE[codec]))
    return Encoding(name=codec, mark=mark, newline="\n".encode(codec))


class Lines:
    """Iterates over lines, their breaks included.

    Lines are cut and decoded by the chunk, in C; where in the bytes the last one ended that was taken is worked out
    when somebody asks.

    Args:
        stream: Positioned at `offset`.
        encoding: How the text is written.
        offset: Bytes before the first line.
        checksum: CRC-32 of these bytes.
        longest: Most bytes of a line, if they are more than a chunk.
    """

    def __init__(
        self, stream: io.BufferedReader, encoding: Encoding, *, offset: int, checksum: int, longest: int
    ) -> None:
        self.encoding = encoding
        self._stream = stream
        self._longest = max(longest, CHUNK)
        self._pending = b""
        self._ended = False
        # Of the chunk in hand, `_bytes` and `_characters` are counted in `_offset` and `_checksum`.
        self._offset, self._checksum = offset, checksum
        self._chunk, self._string, self._text = b"", "", io.StringIO()
        self._bytes = self._characters = 0
        self._unterminated = False

    @property
    def offset(self) -> int:
        """Bytes up to the end of the last line that was taken."""
        self._count()
        return self._offset

    @property
    def checksum(self) -> int:
        """CRC-32 of these bytes."""
        self._count()
        return self._checksum

    @property
    def unterminated(self) -> bool:
        """Whether the last line had no break: it was the last one of the file."""
        self._count()
        return self._unterminated

    def __iter__(self) -> Iterator[str]:
        return chain.from_iterable(self._texts())

    def follows(self) -> bool:
        """Take the break that was missing behind the line before, if anything came there meanwhile.

        Returns:
            False if something else came: that line went on.
        """
        newline, both = self.encoding.breaks
        while len(self._pending) < len(both) and (more := self._stream.read1(CHUNK)):
            self._pending += more
        for found in (both, newline):
            if self._pending.startswith(found):
                self._pending = self._pending[len(found) :]
                self._offset += len(found)
                self._checksum = zlib.crc32(found, self._checksum)
                return True
        return not self._pending

    def _texts(self) -> Iterator[io.StringIO]:
        """Give the text in pieces that end with a line.

        Yields:
            Whole lines, as a stream that iterates over them.

        Raises:
            UnicodeDecodeError: If the next line is not in the encoding.
        """
        while chunk := self._next():
            self._count()
            try:
                string = chunk.decode(self.encoding.name)
            except UnicodeDecodeError as error:
                # The lines before are good.
                good = self._last_break(chunk[: error.start])
                if not good:
                    raise
                self._pending, self._ended = chunk[good:] + self._pending, False
                chunk = chunk[:good]
                string = chunk.decode(self.encoding.name)
            self._chunk, self._string, self._bytes, self._characters = chunk, string, 0, 0
            self._text = io.StringIO(string, newline="\n")
            yield self._text

    def _next(self) -> bytes:
        """Give some whole lines; at the end the last one, also without a break.

        Raises:
            ValueError: If a line is too long.
        """
        data = self._pending
        while not self._ended:
            end = self._last_break(data)
            if end:
                self._pending = data[end:]
                return data[:end]
            if len(data) > self._longest:
                msg = f"has a line of more than {self._longest} bytes; raise max_line_bytes if that is right"
                raise ValueError(msg)
            more = self._stream.read1(max(CHUNK, len(data)))
            # What a writer adds behind the end while we read belongs to that line, which was delivered.
            self._ended = not more
            data += more
        self._pending = b""
        return data

    def _last_break(self, data: bytes) -> int:
        """Give the place behind the last line break; 0 if there is none."""
        newline = self.encoding.newline
        width = len(newline)
        found = data.rfind(newline)
        # Of several bytes it counts only where a character begins.
        while found >= 0 and found % width:
            found = data.rfind(newline, 0, found + width - 1)
        return found + width if found >= 0 else 0

    def _count(self) -> None:
        """Count the bytes of the lines that were taken."""
        taken = self._text.tell()
        if taken == self._characters:
            return
        newline = self.encoding.newline
        if taken == len(self._string):
            end = len(self._chunk)
            self._unterminated = not self._chunk.endswith(newline)
        elif len(newline) == 1:
            # Not by encoding the text again: some encodings write one character in two ways.
            lines = self._string.count("\n", self._characters, taken)
            end = len(self._chunk) - len(self._chunk[self._bytes :].split(newline, lines)[-1])
        else:
            end = self._bytes + len(self._string[self._characters : taken].encode(self.encoding.name))
        part = self._chunk[self._bytes : end]
        self._offset += len(part)
        self._checksum = zlib.crc32(part, self._checksum)
        self._bytes, self._characters = end, taken
