"""What connectors and sinks share of fsspec: calls whose errors tell no credentials."""

import functools
import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar
from urllib.parse import unquote

from resumable_sync._errors import (
    ConfigurationError,
    MissingExtraError,
    ResumableSyncError,
    TransientError,
    mask_credentials,
)
from resumable_sync._hidden import hidden_values, hide
from resumable_sync._plain import suggestion

__all__ = ["RemotePlace", "is_url", "shown_url"]

T = TypeVar("T")

_PASSING = {408, 425, 429, 500, 502, 503, 504}
_KINDS: dict[int | None, type[OSError]] = {
    401: PermissionError,
    403: PermissionError,
    404: FileNotFoundError,
    410: FileNotFoundError,
    0: IsADirectoryError,
}
_SHORTEST_SECRET = 4
_QUERY = re.compile(r"[\w.$-]+=")
# Of no use to another host, or left out there by aiohttp: a cookie by its newer versions alone.
_LEFT_OUT = {"authorization", "accept", "accept-encoding", "user-agent"}
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,30}")


class RemotePlace:
    """A place in any filesystem that fsspec has.

    Args:
        url: Its URL.
        options: Arguments of the filesystem, such as keys.

    Attributes:
        shown: The URL without credentials.
        identity: The same for fingerprints: also where what is not shown makes the difference.

    Raises:
        ConfigurationError: If fsspec, where it is installed, knows no such filesystem.
    """

    def __init__(self, url: str, options: Mapping[str, Any] | None) -> None:
        _check_schemes(url)
        self._url = url
        self._options = dict(options or {})
        self._hidden = hidden_values()
        plain = shown_url(url)
        self.shown = hide(mask_credentials(plain), self._hidden)
        digest = hashlib.blake2b(plain.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
        self.identity = plain if plain == self.shown else f"{self.shown} {digest}"

    def call(self, work: Callable[[Any, str], T]) -> T:
        """Do work with the filesystem and the place's path in it; its errors become ours or the system's.

        Raises:
            MissingExtraError: If fsspec is not installed.
            ResumableSyncError: If the work raises one.
        """
        try:
            from fsspec.core import url_to_fs  # noqa: PLC0415 - local files need none of it
        except ModuleNotFoundError:
            package, extra = "fsspec", "files"
            raise MissingExtraError(package, extra) from None
        try:
            return work(*url_to_fs(self._url, **_guarded(self._url, self._options)))
        except ResumableSyncError:
            raise
        except Exception as error:  # noqa: BLE001 - every filesystem has its own
            failed = self.translated(error)
        # Outside of the handler, so that the original, whose fields hold the URL, is not kept as the context.
        raise failed

    def translated(self, error: Exception) -> Exception:
        """Give what to raise instead of a filesystem's error: the same without credentials, and known as transient."""
        # The web's filesystem says of whatever fails that there is no such file.
        cause = error.__cause__ if isinstance(error, FileNotFoundError) else None
        error = cause if isinstance(cause, Exception) and not isinstance(cause, OSError) else error
        if isinstance(error, _LedAwayError):
            msg = (
                f"{self.shown} redirects to another host, where headers and cookies of storage_options must not go; "
                "give the URL that it means, or only the header Authorization, which is left out there"
            )
            return ConfigurationError(msg)
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
        return hide(mask_credentials(text), self._hidden)


def _check_schemes(url: str) -> None:
    """See to it that there are such filesystems, before anything is done that needs them.

    Raises:
        ConfigurationError: If not.
    """
    try:
        from fsspec.registry import known_implementations, registry  # noqa: PLC0415 - local files need none of it
    except ModuleNotFoundError:
        return  # told when it is needed
    known = {*known_implementations, *registry}
    for link in url.split("::"):
        scheme, colon, _ = link.partition("://")
        if colon and scheme not in known:
            shown = repr(scheme) if _SCHEME.fullmatch(scheme) else "of this kind"
            msg = (
                f"{shown_url(url) if _SCHEME.fullmatch(scheme) else 'the URL'}: fsspec has no filesystem "
                f"{shown}{suggestion(scheme, known)}; correct the URL, or install what adds it"
            )
            raise ConfigurationError(msg)


def is_url(path: str) -> bool:
    """Whether it is an fsspec URL (`s3://...`, `zip://...::https://...`) rather than a local path."""
    return "://" in path or "::" in path


def shown_url(url: str) -> str:
    """Give a URL without user, password, query and fragment; a signature may stand in any of them."""
    return "::".join(_shown_link(link) for link in url.split("::"))


def _shown_link(link: str) -> str:
    scheme, colon, rest = link.partition("://")
    if not colon:
        return link
    web = scheme.startswith(("http", "ftp", "sftp", "webdav", "dav"))
    rest = re.split(r"[?#]", rest)[0] if web else _without_query(rest)
    host, slash, path = rest.partition("/")
    # A password that was not percent-encoded may hold a slash.
    host, path = ("", rest.rpartition("@")[2]) if "@" in path and ":" in host else (host, slash + path)
    user, at, place = host.rpartition("@")
    # In abfs://container@account it is no user.
    return f"{scheme}://{place if ':' in user or scheme.startswith('http') else user + at + place}{path}"


def _without_query(rest: str) -> str:
    """Give what is no web address without what looks like a query; a question mark may be a wildcard there."""
    path, mark, query = rest.rpartition("?")
    if not mark or not _QUERY.match(query):
        return rest
    return path if "/" not in query or mask_credentials(mark + query) != mark + query else rest


class _LedAwayError(Exception):
    """A redirect leads to another host."""


def _guarded(url: str, options: Mapping[str, Any]) -> Mapping[str, Any]:
    """Give options with which neither cookie nor header goes to another host, but what aiohttp leaves out there."""
    links = url.split("::")
    for at, link in enumerate(links):
        scheme = link.partition("://")[0]
        if scheme not in ("http", "https"):
            continue
        own = dict(options.get(scheme) or {})
        # What stands for no protocol is for the first one.
        mine = {**options, **own} if at == 0 else own
        client = dict(mine.get("client_kwargs") or {})
        headers = {*(mine.get("headers") or ()), *(client.get("headers") or ())}
        cookies = mine.get("cookies") or client.get("cookies")
        if not cookies and {str(name).lower() for name in headers} <= _LEFT_OUT:
            continue
        client["trace_configs"] = [*client.get("trace_configs", ()), _stay()]
        if at == 0 and "client_kwargs" not in own:
            options = {**options, "client_kwargs": client}
        else:
            options = {**options, scheme: {**own, "client_kwargs": client}}
    return options


@functools.cache
def _stay() -> Any:
    """Give what has aiohttp refuse to follow a redirect to another host; one for all, as filesystems are kept by it."""
    from aiohttp import TraceConfig  # noqa: PLC0415 - only where there are web addresses

    async def refuse(_session: Any, _context: Any, parameters: Any) -> None:
        there = parameters.response.headers.get("Location", "")
        here = parameters.response.url
        target = here.join(type(here)(there))
        safer = (here.scheme, here.port, target.scheme, target.port) == ("http", 80, "https", 443)
        if target.host != here.host or not (target.origin() == here.origin() or safer):
            raise _LedAwayError

    config = TraceConfig()
    config.on_request_redirect.append(refuse)
    return config


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
