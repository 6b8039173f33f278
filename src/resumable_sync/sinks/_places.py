"""A folder that a sink fills: of this machine, or of any filesystem that fsspec has."""

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

from typing_extensions import override

from resumable_sync._errors import ConfigurationError
from resumable_sync._fsspec import RemotePlace, is_url
from resumable_sync.sinks._lock import sync_to_disk

__all__ = ["Place", "open_place"]

T = TypeVar("T")


class Place(Protocol):
    """A folder. Names are relative to it, with slashes; a file is durable when a call returns.

    Attributes:
        shown: Path or URL, without credentials, for people to read.
    """

    shown: str

    def check(self) -> None:
        """See to it that files can be made here.

        Raises:
            FileNotFoundError: If the folder above it does not exist.
        """
        ...

    def names(self, folder: str) -> list[str]:
        """Give the names of what is in a folder, in no order; none if there is no such folder."""
        ...

    def make(self, folder: str) -> None:
        """Make a folder, and those above it, unless it is there."""
        ...

    def make_within(self, folder: str) -> None:
        """Make a folder in one that holds something, unless it is there.

        Raises:
            FileNotFoundError: If that is gone.
        """
        ...

    def read(self, name: str) -> bytes | None:
        """Give a file's bytes; None if there is no such file."""
        ...

    def write(self, name: str, data: bytes) -> None:
        """Make a file in a folder that is there.

        Raises:
            FileNotFoundError: If the folder is gone, where there are folders.
        """
        ...

    def move(self, name: str, to: str) -> None:
        """Put a file in the place of another one, or of none: in one step, where the filesystem can do that.

        Raises:
            FileNotFoundError: If the file is gone, or the folder it goes to.
        """
        ...

    def remove(self, name: str) -> None:
        """Remove a file, or a folder with all that is in it; it may be gone."""
        ...


def open_place(path: object, options: Mapping[str, Any] | None) -> Place:
    """Give the folder of a path or URL; nothing is looked at yet.

    Raises:
        ConfigurationError: If it is none, or options come with a local one.
    """
    given = os.fspath(path) if isinstance(path, (str, os.PathLike)) else None
    if not isinstance(given, str) or not given or "\0" in given:
        msg = f"the path is a {type(path).__name__} that names no folder; give a path or an fsspec URL"
        raise ConfigurationError(msg)
    if given.startswith(("file://", "local://")):
        given = given.partition("://")[2]
    elif is_url(given):
        return _Remote(given, options)
    if options:
        msg = f"storage_options are for URLs, and {given!r} is a local path; leave them out"
        raise ConfigurationError(msg)
    # Another process may be in another folder.
    return _Local(Path(os.path.realpath(os.path.expanduser(given))))  # noqa: PTH111 - of the text, as the rest


class _Local(Place):
    """A folder of this machine."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.shown = str(path)

    @override
    def check(self) -> None:
        if not self._path.parent.is_dir():
            msg = f"the folder {str(self._path.parent)!r} of the target does not exist; make it"
            raise FileNotFoundError(msg)

    @override
    def names(self, folder: str) -> list[str]:
        try:
            return os.listdir(self._path / folder)  # noqa: PTH208 - pathlib makes a Path of each
        except FileNotFoundError:
            return []

    @override
    def make(self, folder: str) -> None:
        missing, path = [], self._path / folder
        while not path.is_dir():
            missing.append(path)
            path = path.parent
        for each in reversed(missing):
            each.mkdir(exist_ok=True)
            sync_to_disk(each.parent)

    @override
    def make_within(self, folder: str) -> None:
        path = self._path / folder
        path.mkdir(exist_ok=True)
        sync_to_disk(path.parent)

    @override
    def read(self, name: str) -> bytes | None:
        try:
            return (self._path / name).read_bytes()
        except FileNotFoundError:
            return None

    @override
    def write(self, name: str, data: bytes) -> None:
        with (self._path / name).open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    @override
    def move(self, name: str, to: str) -> None:
        target = self._path / to
        (self._path / name).replace(target)
        sync_to_disk(target.parent)

    @override
    def remove(self, name: str) -> None:
        path = self._path / name
        if path.is_dir():
            # Somebody may still put files there, who is refused the next time that he looks.
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


class _Remote(Place):
    """A folder of any filesystem that fsspec has."""

    def __init__(self, url: str, options: Mapping[str, Any] | None) -> None:
        self._place = RemotePlace(url, options)
        self.shown = self._place.shown

    def _call(self, work: Callable[[Any, str], T], *, missing: Callable[[], T] | None = None) -> T:
        try:
            return self._place.call(lambda filesystem, path: work(filesystem, path.rstrip("/")))
        except FileNotFoundError:
            if missing is None:
                raise
            return missing()

    @override
    def check(self) -> None:
        pass

    @override
    def names(self, folder: str) -> list[str]:
        def listed(filesystem: Any, path: str) -> list[str]:
            filesystem.invalidate_cache()
            within = f"{path}/{folder}".rstrip("/")
            found = (name.rstrip("/") for name in filesystem.ls(within, detail=False))
            return [name.rpartition("/")[2] for name in found if name.lstrip("/") != within.lstrip("/")]

        return self._call(listed, missing=list)

    @override
    def make(self, folder: str) -> None:
        self._call(lambda filesystem, path: filesystem.makedirs(f"{path}/{folder}".rstrip("/"), exist_ok=True))

    @override
    def make_within(self, folder: str) -> None:
        above = folder.rpartition("/")[0]
        if not self._call(lambda filesystem, path: bool(filesystem.exists(f"{path}/{above}"))):
            msg = f"{self.shown}: the folder {above!r} is gone"
            raise FileNotFoundError(msg)
        self.make(folder)

    @override
    def read(self, name: str) -> bytes | None:
        def content(filesystem: Any, path: str) -> bytes | None:
            return bytes(filesystem.cat_file(f"{path}/{name}"))

        return self._call(content, missing=lambda: None)

    @override
    def write(self, name: str, data: bytes) -> None:
        self._call(lambda filesystem, path: filesystem.pipe_file(f"{path}/{name}", bytes(data)))

    @override
    def move(self, name: str, to: str) -> None:
        def moved(filesystem: Any, path: str) -> None:
            filesystem.mv(f"{path}/{name}", f"{path}/{to}")

        self._call(moved)

    @override
    def remove(self, name: str) -> None:
        def removed(filesystem: Any, path: str) -> None:
            filesystem.invalidate_cache()
            if filesystem.exists(f"{path}/{name}"):
                filesystem.rm(f"{path}/{name}", recursive=True)

        self._call(removed, missing=lambda: None)
