"""Files behind a URL, through fsspec. What it and its libraries say of an error is cleared of credentials."""

import io
import re
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from typing import Any, BinaryIO, TypeVar, cast

from typing_extensions import override

from resumable_sync._fsspec import RemotePlace
from resumable_sync.connectors._storage import FileFacts, Storage, digest

__all__ = ["RemoteFiles"]

T = TypeVar("T")

# What the filesystems of fsspec call what changes whenever a file is written.
_VERSIONS = (
    "ETag",
    "etag",
    "e_tag",
    "checksum",
    "md5Hash",
    "content_md5",
    "Content-MD5",
    "Digest",
    "version_id",
    "generation",
    "ino",
    "mtime",
    "last_modified",
    "LastModified",
    "Last-Modified",
    "modified",
    "updated",
    "created",
)


class RemoteFiles(Storage):
    """Files of any filesystem that fsspec has.

    Args:
        url: Its URL; may hold `*`, `?` and `[...]` where the filesystem can list files.
        options: Arguments of the filesystem, such as keys.
    """

    def __init__(self, url: str, options: Mapping[str, Any] | None) -> None:
        self._place = RemotePlace(url, options)
        self.shown, self.identity = self._place.shown, self._place.identity

    @override
    def names(self) -> list[str]:
        def found(filesystem: Any, path: str) -> list[str]:
            filesystem.invalidate_cache()
            root = _root(filesystem, path)
            return [_last(path)] if root is None else sorted(one.removeprefix(root) for one in filesystem.glob(path))

        names = self._place.call(found)
        if not names:
            msg = f"no file matches {self.shown!r}; correct the pattern"
            raise FileNotFoundError(msg)
        return names

    @override
    def open(self, name: str) -> tuple[BinaryIO, FileFacts]:
        def opened(filesystem: Any, path: str) -> tuple[Any, Mapping[str, Any]]:
            root = _root(filesystem, path)
            found = path if root is None else root + name
            info = filesystem.info(found)
            return filesystem.open(found, "rb"), info

        file, info = self._place.call(opened)
        known = [(key, str(info[key])) for key in _VERSIONS if info.get(key) is not None]
        size = info.get("size")
        facts = FileFacts(size=size if isinstance(size, int) else None, version=digest(known) if known else None)
        return cast("BinaryIO", _Scrubbed(file, self._place.translated)), facts


class _Scrubbed(io.RawIOBase):
    """A file of fsspec whose errors tell no credentials."""

    def __init__(self, file: Any, translated: Callable[[Exception], Exception]) -> None:
        self._file = file
        self._translated = translated

    @override
    def readable(self) -> bool:
        return True

    @override
    def seekable(self) -> bool:
        # A body of unknown length is streamed, whatever it says of itself.
        return getattr(self._file, "size", 0) is not None and bool(self._file.seekable())

    @override
    def readinto(self, buffer: Any) -> int:
        data = self._guarded(lambda: self._file.read(len(buffer)))
        buffer[: len(data)] = data
        return len(data)

    @override
    def seek(self, offset: int, whence: int = 0) -> int:
        return int(self._guarded(lambda: self._file.seek(offset, whence)))

    @override
    def tell(self) -> int:
        return int(self._guarded(self._file.tell))

    @override
    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()

    def _guarded(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except Exception as error:  # noqa: BLE001 - every filesystem has its own
            failed = self._translated(error)
        raise failed


def _last(path: str) -> str:
    return PurePosixPath(re.split(r"[?#]", path)[0]).name


def _root(filesystem: Any, path: str) -> str | None:
    """Give the part of a pattern that is fixed, with its last slash; None if it is no pattern."""
    # A question mark begins the query of a web address.
    web = "http" in str(filesystem.protocol)
    found = re.search(r"\*" if web else r"[*?\[]", path)
    if found is None or (not web and filesystem.exists(path)):
        return None
    return path[: found.start()].rpartition("/")[0] + "/"
