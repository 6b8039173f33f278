"""Files by path, glob pattern or URL: which there are, in which version, and opening them."""

import glob
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import attrs
from typing_extensions import override

from resumable_sync._errors import ConfigurationError
from resumable_sync._fsspec import is_url

__all__ = ["FileFacts", "Storage", "open_storage"]


@attrs.frozen(kw_only=True)
class FileFacts:
    """What tells one state of a file from another without reading it.

    Attributes:
        size: Bytes, before decompression; None if unknown.
        version: Digest of what changes whenever the file is written; None if there is nothing of that kind.
    """

    size: int | None
    version: str | None

    def same(self, other: "FileFacts") -> bool:
        """Whether both are certainly the same state."""
        return self == other and self.version is not None


class Storage(Protocol):
    """The files of a source.

    Attributes:
        shown: Path or URL, without credentials, for people to read.
        identity: The same for fingerprints: equal wherever it leads to the same files.
    """

    shown: str
    identity: str

    def names(self) -> list[str]:
        """Give the names of all files, below the part of the pattern that is fixed, in the order of their characters.

        Raises:
            FileNotFoundError: If there is none.
        """
        ...

    def open(self, name: str) -> tuple[BinaryIO, FileFacts]:
        """Open a file, and tell its state as it was then."""
        ...


def open_storage(path: Any, options: Mapping[str, Any] | None) -> Storage:
    """Give the files of a path, pattern or URL; nothing is looked at yet.

    Raises:
        ConfigurationError: If it is no path, or options come with a local one.
    """
    text = os.fspath(path) if isinstance(path, (str, os.PathLike)) else None
    if not isinstance(text, str) or not text or "\0" in text:
        msg = f"the path is a {type(path).__name__} that names no file; give a path, a glob pattern or an fsspec URL"
        raise ConfigurationError(msg)
    if is_url(text):
        from resumable_sync.connectors._remote import RemoteFiles  # noqa: PLC0415 - local files do not pay for it

        return RemoteFiles(text, options)
    if options:
        msg = f"storage_options are for URLs, and {text!r} is a local path; leave them out"
        raise ConfigurationError(msg)
    return LocalFiles(text)


class LocalFiles(Storage):
    """Files of this machine."""

    def __init__(self, path: str) -> None:
        # Another process that it travels to may be in another folder.
        self._path = os.path.abspath(os.path.expanduser(path))  # noqa: PTH100, PTH111 - pathlib drops what glob needs
        self.shown = self.identity = self._path

    @property
    def _pattern(self) -> bool:
        # A file may be named like a pattern.
        return glob.has_magic(self._path) and not os.path.lexists(self._path)

    @property
    def _root(self) -> Path:
        fixed = Path(self._path)
        while glob.has_magic(str(fixed)):
            fixed = fixed.parent
        return fixed

    @override
    def names(self) -> list[str]:
        if not self._pattern:
            return [Path(self._path).name]
        root = self._root
        found = (Path(path) for path in glob.iglob(self._path, recursive=True))  # noqa: PTH207 - an absolute pattern
        names = sorted(path.relative_to(root).as_posix() for path in found if not path.is_dir())
        if not names:
            msg = f"no file matches {self._path!r}; correct the pattern"
            raise FileNotFoundError(msg)
        return names

    @override
    def open(self, name: str) -> tuple[BinaryIO, FileFacts]:
        path = self._root / name if self._pattern else Path(self._path)
        file = path.open("rb", buffering=0)
        # Of the file that was opened, whatever stands at its path by now.
        state = os.fstat(file.fileno())
        version = digest(state.st_ino, state.st_mtime_ns, state.st_ctime_ns)
        return file, FileFacts(size=state.st_size, version=version)


def digest(*parts: object) -> str:
    """Give a short digest of values, the same in every process."""
    text = repr(parts).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=8, person=b"resumable_sync").hexdigest()
