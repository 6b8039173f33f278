"""Lines of a stream of bytes as text, with the exact place behind the last one that was taken."""

import codecs
import io
import sys
import zlib
from collections.abc import Iterator

import attrs

from resumable_sync._errors import ConfigurationError

__all__ = ["Encoding", "Lines", "encoding_of"]

LONGEST_MARK = 4
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

    Args:
        stream: Positioned at `offset`.
        encoding: How the text is written.
        offset: Bytes before the first line.
        checksum: CRC-32 of these bytes.
        longest: Most bytes of a line.

    Attributes:
        offset: Bytes up to the end of the last line that was taken.
        checksum: CRC-32 of these bytes.
        unterminated: Whether the last line had no break: it was the last one of the file.
    """

    def __init__(
        self, stream: io.BufferedIOBase, encoding: Encoding, *, offset: int, checksum: int, longest: int
    ) -> None:
        self.encoding = encoding
        self.offset = offset
        self.checksum = checksum
        self.unterminated = False
        self._longest = longest
        self._raw = _lines(stream, encoding.newline, longest)

    def __iter__(self) -> Iterator[str]:
        codec, newline = self.encoding.name, self.encoding.newline
        for raw in self._raw:
            yield self._counted(raw).decode(codec)
            if not raw.endswith(newline):
                # What a writer adds behind it while we read belongs to that line, which was delivered.
                return

    def follows(self) -> bool:
        """Take the break that was missing behind the line before, if anything came there meanwhile.

        Returns:
            False if something else came: that line went on.
        """
        raw = next(self._raw, b"")
        if raw and raw not in self.encoding.breaks:
            return False
        self._counted(raw)
        return True

    def _counted(self, raw: bytes) -> bytes:
        if len(raw) > self._longest:
            raise ValueError(f"has a line of more than {self._longest} bytes; raise max_line_bytes if that is right")
        self.offset += len(raw)
        self.checksum = zlib.crc32(raw, self.checksum)
        self.unterminated = bool(raw) and not raw.endswith(self.encoding.newline)
        return raw


def _lines(stream: io.BufferedIOBase, newline: bytes, longest: int) -> Iterator[bytes]:
    if newline != b"\n":
        return _wide_lines(stream, newline, longest)
    readline = stream.readline
    return iter(lambda: readline(longest + 1), b"")


def _wide_lines(stream: io.BufferedIOBase, newline: bytes, longest: int) -> Iterator[bytes]:
    """Split at line breaks of several bytes, which count only where a character begins.

    Yields:
        Lines with their breaks.
    """
    width = len(newline)
    pending = bytearray()
    begun = searched = 0
    while True:
        found = pending.find(newline, searched)
        if found >= 0 and (found - begun) % width:
            searched = found + 1
        elif found >= 0:
            yield bytes(pending[begun : found + width])
            begun = searched = found + width
        else:
            del pending[:begun]
            searched, begun = max(len(pending) - width, 0), 0
            data = stream.read(1 << 16)
            if not data or len(pending) > longest:
                break
            pending += data
    if pending:
        yield bytes(pending)
