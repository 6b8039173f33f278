"""Compressed streams, read from the member (gzip) or frame (zstd) that holds a place instead of from the beginning."""

import io
import zlib
from collections import deque
from collections.abc import Callable
from typing import Any, BinaryIO, Literal, Protocol, TypeAlias

from typing_extensions import override

from resumable_sync._errors import ConfigurationError
from resumable_sync._zstd import zstd_module

__all__ = ["BUFFER", "Compression", "CompressionError", "Members", "compression_of"]

Compression: TypeAlias = Literal["gzip", "zstd"]

BUFFER = 1 << 18
"""Bytes that are read at once."""

_SUFFIXES: dict[str, Compression] = {".gz": "gzip", ".gzip": "gzip", ".zst": "zstd", ".zstd": "zstd"}
_GZIP_WINDOW = 31
"""To zlib: with the header and checksum of gzip."""


class CompressionError(Exception):
    """The compressed data is damaged or ends early."""


def compression_of(name: str, given: object) -> Compression | None:
    """Say how a file is compressed.

    Args:
        name: Its name, whose ending tells it.
        given: `"infer"`, `"gzip"`, `"zstd"` or None, which is what holds unless it is `"infer"`.

    Raises:
        ConfigurationError: If it is none of these.
    """
    if given is None or given == "gzip" or given == "zstd":  # noqa: PLR1714 - so that the type is known
        return given
    if given != "infer":
        msg = f"compression={given!r} is none of 'infer', 'gzip', 'zstd' and None; give one of them"
        raise ConfigurationError(msg)
    lower = name.lower()
    return next((kind for suffix, kind in _SUFFIXES.items() if lower.endswith(suffix)), None)


class _Decoder(Protocol):
    eof: bool
    needs_input: bool
    unused_data: bytes

    def decompress(self, data: bytes, most: int) -> bytes: ...


class _Gzip:
    """zlib's decoder with the interface of the one for zstd."""

    def __init__(self) -> None:
        self._decoder = zlib.decompressobj(_GZIP_WINDOW)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._decoder.eof

    @property
    def unused_data(self) -> bytes:
        return self._decoder.unused_data

    def decompress(self, data: bytes, most: int) -> bytes:
        found = self._decoder.decompress(self._decoder.unconsumed_tail + data, most)
        # What zlib keeps inside shows only in that it gave as much as it was allowed to.
        self.needs_input = not self._decoder.unconsumed_tail and len(found) < most
        return found


def _decoder_of(kind: Compression) -> tuple[Callable[[], Any], type[Exception]]:
    if kind == "gzip":
        return _Gzip, zlib.error
    zstd = zstd_module()
    return zstd.ZstdDecompressor, zstd.ZstdError


class Members(io.RawIOBase):
    """The content of a compressed file, in which the members' beginnings are known as far as they were read.

    Args:
        file: Positioned at the beginning of a member.
        kind: How it is compressed.
        start: Where that is: the place in the file, and in its content.
    """

    def __init__(self, file: BinaryIO, kind: Compression, start: tuple[int, int] = (0, 0)) -> None:
        self._file = file
        self._kind = kind
        self._new, self._error = _decoder_of(kind)
        self._decoder: _Decoder | None = None
        self._pending = b""
        self._end, self._content = start
        self._starts: deque[tuple[int, int]] = deque()

    @override
    def readable(self) -> bool:
        return True

    @override
    def readinto(self, buffer: Any) -> int:
        try:
            data = self._next(len(buffer))
        except self._error as error:
            raise CompressionError(f"is damaged: {error}") from None
        buffer[: len(data)] = data
        self._content += len(data)
        return len(data)

    def start_of(self, place: int) -> tuple[int, int]:
        """Give the beginning of the member that holds a place of the content; places only grow.

        Returns:
            Where it stands in the file, and in its content.
        """
        while len(self._starts) > 1 and self._starts[1][1] <= place:
            self._starts.popleft()
        return self._starts[0] if self._starts else (self._end, self._content)

    def _next(self, most: int) -> bytes:
        while self._decoder is not None or self._open_member():
            assert self._decoder is not None  # noqa: S101 - for the type checker
            found = self._decoded(self._decoder, most)
            if self._decoder.eof:
                self._pending, self._decoder = self._decoder.unused_data, None
            if found:
                return found
        return b""

    def _decoded(self, decoder: _Decoder, most: int) -> bytes:
        while not decoder.eof:
            data = b""
            if decoder.needs_input:
                data = self._pending or self._read()
                self._pending = b""
                if not data:
                    msg = "ends in the middle of its compressed data"
                    raise CompressionError(msg)
            found = decoder.decompress(data, most)
            if found:
                return found
        return b""

    def _open_member(self) -> bool:
        if self._kind == "gzip":
            # Tapes and some writers fill up the last block.
            self._pending = self._pending.lstrip(b"\0")
        while not self._pending:
            self._pending = self._read()
            if not self._pending:
                return False
            if self._kind == "gzip":
                self._pending = self._pending.lstrip(b"\0")
        self._starts.append((self._end - len(self._pending), self._content))
        self._decoder = self._new()
        return True

    def _read(self) -> bytes:
        data = self._file.read(BUFFER)
        self._end += len(data)
        return data

    @override
    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()
