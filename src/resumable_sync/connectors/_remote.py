"""Files behind a URL, through fsspec. What it and its libraries say of an error is cleared of credentials."""

import io
import re
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from typing import Any, BinaryIO, TypeVar, cast
from urllib.parse import unquote

from typing_extensions import override

from resumable_sync._errors import MissingExtraError, ResumableSyncError, TransientError, mask_credentials
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
_PASSING = {408, 425, 429, 500, 502, 503, 504}
_KINDS: dict[int | None, type[OSError]] = {
    401: PermissionError,
    403: PermissionError,
    404: FileNotFoundError,
    410: FileNotFoundError,
    0: IsADirectoryError,
}
_SHORTEST_SECRET = 4


class RemoteFiles(Storage):
    """Files of any filesystem that fsspec has.

    Args:
        url: Its URL; may hold `*`, `?` and `[...]` where the filesystem can list files.
        options: Arguments of the filesystem, such as keys.
    """

    def __init__(self, url: str, options: Mapping[str, Any] | None) -> None:
        self._url = url
        self._options = dict(options or {})
        self.shown = shown_url(url)
        self.identity = shown_url(url)

    @override
    def names(self) -> list[str]:
        def found(filesystem: Any, path: str) -> list[str]:
            filesystem.invalidate_cache()
            root = _root(filesystem, path)
            return [_last(path)] if root is None else sorted(one.removeprefix(root) for one in filesystem.glob(path))

        names = self._call(found)
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

        file, info = self._call(opened)
        known = [(key, str(info[key])) for key in _VERSIONS if info.get(key) is not None]
        size = info.get("size")
        facts = FileFacts(size=size if isinstance(size, int) else None, version=digest(known) if known else None)
        return cast("BinaryIO", _Scrubbed(file, self._translated)), facts

    def _call(self, work: Callable[[Any, str], T]) -> T:
        try:
            from fsspec.core import url_to_fs  # noqa: PLC0415 - local files need none of it
        except ModuleNotFoundError:
            package, extra = "fsspec", "files"
            raise MissingExtraError(package, extra) from None
        try:
            return work(*url_to_fs(self._url, **self._options))
        except ResumableSyncError:
            raise
        except Exception as error:  # noqa: BLE001 - every filesystem has its own
            failed = self._translated(error)
        # Outside of the handler, so that the original, whose fields hold the URL, is not kept as the context.
        raise failed

    def _translated(self, error: Exception) -> Exception:
        # The web's filesystem says of whatever fails that there is no such file.
        cause = error.__cause__ if isinstance(error, FileNotFoundError) else None
        error = cause if isinstance(cause, Exception) and not isinstance(cause, OSError) else error
        text = f"{self.shown}: {type(error).__name__}: {self._masked(str(error))}"
        kind: Any = _KINDS.get(_status(error)) or next(
            (kind for kind in _KINDS.values() if isinstance(error, kind)), None
        )
        if kind is not None:
            translated: Exception = kind(text)
            return translated
        if isinstance(error, ImportError):
            return ImportError(f"{text}; install what fsspec needs for this kind of URL")
        return TransientError(text) if _passing(error) else OSError(text)

    def _masked(self, text: str) -> str:
        for secret in sorted(_secrets(self._url, self._options), key=len, reverse=True):
            text = text.replace(secret, "***")
        return mask_credentials(text)


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


def shown_url(url: str) -> str:
    """Give a URL without user, password, query and fragment; a signature may stand in any of them."""
    return "::".join(_shown_link(link) for link in url.split("::"))


def _shown_link(link: str) -> str:
    scheme, colon, rest = link.partition("://")
    if not colon:
        return link
    rest = re.split(r"[?#]", rest)[0] if scheme.startswith(("http", "ftp", "sftp", "webdav", "dav")) else rest
    host, slash, path = rest.partition("/")
    # A password that was not percent-encoded may hold a slash.
    host, path = ("", rest.rpartition("@")[2]) if "@" in path and ":" in host else (host, slash + path)
    user, at, place = host.rpartition("@")
    # In abfs://container@account it is no user.
    return f"{scheme}://{place if ':' in user or scheme.startswith('http') else user + at + place}{path}"


def _secrets(url: str, options: Mapping[str, Any]) -> set[str]:
    found = set()
    for link in url.split("::"):
        shown = _shown_link(link)
        if shown != link:
            found.add(link)
            query = link.partition("?")[2].partition("#")[0]
            found |= {part.partition("=")[2] for part in query.split("&")} | {query}
            userinfo = link.partition("://")[2].rpartition("@")[0]
            found |= {userinfo, *userinfo.split(":")}
    found |= _texts(options)
    found |= {unquote(secret) for secret in found}
    return {secret for secret in found if len(secret) >= _SHORTEST_SECRET}


def _texts(value: Any) -> set[str]:
    if isinstance(value, str):
        return {value}
    if isinstance(value, bytes):
        return {value.decode("latin-1")}
    if isinstance(value, Mapping):
        return set().union(*map(_texts, value.values()))
    if isinstance(value, (list, tuple)):
        return set().union(*map(_texts, value))
    return set()


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


def _status(error: Exception) -> int | None:
    status = getattr(error, "status", None) or getattr(error, "status_code", None)
    return status if isinstance(status, int) else None


def _passing(error: Exception) -> bool:
    status = _status(error)
    if status is not None:
        return status in _PASSING
    if isinstance(error, ConnectionError | TimeoutError | EOFError):
        return True
    # Those of aiohttp without a status: the connection failed or broke off.
    return type(error).__module__.startswith("aiohttp")
