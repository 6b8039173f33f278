"""Connections to an API: one request, one whole answer, within limits of time and size.

The client library's own client would write every URL into its log, credentials included, and bounds each byte of an
answer but not the whole. Its requests, answers and authentication are used as they are, on the connections of its
transport.
"""

import contextlib
import functools
import logging
import math
import ssl
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Self
from urllib.request import getproxies, proxy_bypass

import attrs
from typing_extensions import override

from resumable_sync._errors import ConfigurationError, MissingExtraError, ResumableSyncError, TransientError
from resumable_sync.connectors._http_address import Address, parse_url
from resumable_sync.connectors._http_body import BodyTooLargeError, BrokenBodyError, NotReadableError, collected, parsed
from resumable_sync.connectors._http_errors import HTTPResponseError
from resumable_sync.connectors._http_network import Network

try:
    import httpcore2
    import httpx2
except ImportError:
    raise MissingExtraError("httpx2", "http") from None  # noqa: EM101 - the package, not a message

__all__ = ["Limits", "Link", "as_auth", "as_headers", "default_ssl_context", "new_request"]

_MAX_REDIRECTS = 5
_KEEPALIVE = 5.0
_ERROR_BODY = 64 * 1024
_HEADERS = {"Accept": "application/json", "Accept-Encoding": "gzip", "User-Agent": "resumable_sync"}
_HOP_HEADERS = ("content-encoding", "content-length", "transfer-encoding")
_FAILURES = (
    httpcore2.TimeoutException,
    httpcore2.NetworkError,
    httpcore2.ProtocolError,
    httpcore2.ProxyError,
    httpcore2.UnsupportedProtocol,
    BodyTooLargeError,
    BrokenBodyError,
    NotReadableError,
)
_WHOLE = 10
"""How many times the limit for silence a whole answer may take."""


class _Discreet(logging.Filter):
    """Keeps the headers of answers to our requests out of the transport's debug log: APIs repeat URLs in them."""

    def __init__(self) -> None:
        super().__init__()
        self.ours = threading.local()

    @override
    def filter(self, record: logging.LogRecord) -> bool:
        return not (getattr(self.ours, "is_sending", False) and "response_headers.complete" in record.getMessage())


_discreet = _Discreet()
logging.getLogger("httpcore2.http11").addFilter(_discreet)


def _check_seconds(_instance: Any, attribute: Any, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ConfigurationError(f"{attribute.name}={value!r} is not possible; give seconds above 0")


def _check_bytes(_instance: Any, attribute: Any, value: Any) -> None:
    if type(value) is not int or value < 1:
        raise ConfigurationError(f"{attribute.name}={value!r} is not possible; give a number of bytes, at least 1")


@attrs.frozen(kw_only=True)
class Limits:
    """How long and how large an answer may be.

    Attributes:
        timeout: Most seconds to connect, and of silence; a whole answer may take ten times as long.
        max_response_bytes: Most bytes of a body after it was decompressed.

    Raises:
        ConfigurationError: If one of them cannot work.
    """

    timeout: float = attrs.field(default=30.0, validator=_check_seconds)
    max_response_bytes: int = attrs.field(default=64 * 1024 * 1024, validator=_check_bytes)


def as_auth(auth: Any) -> httpx2.Auth | None:
    """Give an auth object for one, or for a pair of user and password.

    Raises:
        ConfigurationError: If it is something else.
    """
    if auth is None or isinstance(auth, httpx2.Auth):
        return auth
    if isinstance(auth, tuple) and len(auth) == 2 and all(isinstance(part, str | bytes) for part in auth):  # noqa: PLR2004
        return httpx2.BasicAuth(*auth)
    msg = f"auth is a {type(auth).__name__}; give an auth object of httpx2, or a tuple (user, password)"
    raise ConfigurationError(msg)


def as_headers(headers: Any) -> httpx2.Headers:
    """Give the headers of all requests: the usual ones, and those given.

    Raises:
        ConfigurationError: If one of them cannot be sent.
    """
    found = httpx2.Headers(_HEADERS)
    if headers is not None and not isinstance(headers, Mapping):
        msg = f"headers is a {type(headers).__name__}; give a mapping of names to texts"
        raise ConfigurationError(msg, ("headers",))
    for name, value in (headers or {}).items():
        # The client library would quote the value, which may be secret.
        if not isinstance(name, str) or not isinstance(value, str) or not (name + value).isprintable():
            msg = f"headers[{name!r}] cannot be sent; give text without line breaks for each name"
            raise ConfigurationError(msg, ("headers", str(name)))
        try:
            found[name] = value.encode("latin-1").decode("latin-1")
        except UnicodeError:
            msg = f"headers[{name!r}] holds characters that no header can; encode them as the API wants it"
            raise ConfigurationError(msg, ("headers", name)) from None
    return found


@functools.cache
def default_ssl_context() -> ssl.SSLContext:
    """Give what trusts the authorities that the system trusts; made once, since it takes longer than a request."""
    return httpx2.create_ssl_context()


def _url_of(text: str) -> httpx2.URL:
    """Give a URL to send a request to.

    Raises:
        ConfigurationError: If the client library cannot read it.
    """
    try:
        return httpx2.URL(text)
    except httpx2.InvalidURL:
        msg = "the url is none that can be asked; give one such as 'https://api.example.com/v1/orders'"
        raise ConfigurationError(msg) from None


class _Response(httpx2.Response):
    """An answer whose body may be cut off or hostile."""

    shown: Address

    @override
    def json(self, **options: Any) -> Any:
        shown = self.shown
        try:
            return parsed(self.content)
        except BrokenBodyError as error:
            msg = f"the answer of {shown} {error}"
            raise TransientError(msg) from None
        except NotReadableError as error:
            msg = f"the answer of {shown} {error}; ask for less in it, or take another API"
            raise HTTPResponseError(msg) from None


def new_request(url: str, headers: httpx2.Headers) -> httpx2.Request:
    """Give a GET request.

    Raises:
        ConfigurationError: If the client library cannot read the URL.
    """
    return httpx2.Request("GET", _url_of(url), headers=headers)


class Link:
    """The connections of one read, to be closed after it; used by several threads at once.

    Args:
        limits: How long and how large an answer may be.
        connections: How many requests may be on their way at once.
        context: Gives whom to trust over https.
        hidden: Values that no address may show, and what to show instead.
    """

    def __init__(
        self,
        limits: Limits,
        connections: int,
        context: Callable[[], ssl.SSLContext],
        hidden: tuple[tuple[str, str], ...] = (),
    ) -> None:
        self._limits = limits
        self._connections = connections
        self._context = context
        self._hidden = hidden
        self._network = Network()
        self._lock = threading.Lock()
        self._pools: dict[tuple[str, str], httpcore2.ConnectionPool] = {}
        timeout = limits.timeout
        self._timeouts = {"connect": timeout, "read": timeout, "write": timeout, "pool": timeout}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.abort()
        for pool in self._pools.values():
            pool.close()

    def abort(self) -> None:
        """Break off what is on its way, in whatever thread it is waited for."""
        self._network.abort()

    def send(self, request: httpx2.Request, auth: httpx2.Auth | None) -> httpx2.Response:
        """Give the whole answer to a request; follows redirects, as far as credentials may go.

        Raises:
            TransientError: If the connection failed, broke, or took too long.
            HTTPResponseError: If the answer is too large, or leads to another host.
        """
        shown = self._shown(request.url)
        self._network.allow(self._limits.timeout * _WHOLE)
        _discreet.ours.is_sending = True
        try:
            return self._followed(request, auth, shown)
        finally:
            _discreet.ours.is_sending = False

    def _shown(self, url: httpx2.URL) -> Address:
        return attrs.evolve(parse_url(str(url))[0], hidden=self._hidden)

    def _followed(self, request: httpx2.Request, auth: httpx2.Auth | None, shown: Address) -> httpx2.Response:
        for _ in range(_MAX_REDIRECTS):
            response = self._authenticated(request, auth)
            if not response.has_redirect_location:
                return response
            request = _redirected(request, response, shown)
        msg = f"{shown} redirects more than {_MAX_REDIRECTS} times; give the URL that it means"
        raise HTTPResponseError(msg)

    def _authenticated(self, request: httpx2.Request, auth: httpx2.Auth | None) -> httpx2.Response:
        if auth is None:
            return self._exchange(request)
        with contextlib.closing(auth.sync_auth_flow(request)) as flow:
            request = next(flow)
            while True:
                response = self._exchange(request)
                try:
                    request = flow.send(response)
                except StopIteration:
                    return response
                except (ValueError, KeyError, AssertionError, httpx2.ProtocolError) as error:
                    if not isinstance(auth, httpx2.DigestAuth):
                        raise
                    msg = (
                        f"{self._shown(request.url)} asks for a digest in a way that cannot be read "
                        f"({type(error).__name__}); check that the API takes Digest, or give another auth"
                    )
                    raise HTTPResponseError(msg, response.status_code) from None

    def _exchange(self, request: httpx2.Request) -> httpx2.Response:
        url = request.url
        shown = self._shown(url)
        stream: Any = request.stream
        sent = httpcore2.Request(
            request.method,
            httpcore2.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
            headers=request.headers.raw,
            content=stream,
            extensions={"timeout": self._timeouts},
        )
        try:
            answer = self._pool_for(url).handle_request(sent)
            try:
                return self._whole(answer, request)
            finally:
                answer.close()
        except _FAILURES as error:
            raise self._meaning(error, shown) from None

    def _meaning(self, error: Exception, shown: Address) -> ResumableSyncError:
        """Say what a failure of the transport, or of a body, means; never with what was sent or received."""
        seconds = self._limits.timeout
        match error:
            case BodyTooLargeError():
                most = f"more than {self._limits.max_response_bytes:,} bytes"
                return HTTPResponseError(f"{shown} answered {most}; ask for smaller pages, or raise max_response_bytes")
            case NotReadableError():
                return HTTPResponseError(f"the answer of {shown} {error}")
            case BrokenBodyError():
                return TransientError(f"the answer of {shown} {error}")
            case httpcore2.TimeoutException():
                return TransientError(
                    f"{shown} did not answer in time ({type(error).__name__}); if it needs more than {seconds:g} s of "
                    f"silence, or {seconds * _WHOLE:g} s in all, raise timeout"
                )
        return _broken(error, shown)

    def _pool_for(self, url: httpx2.URL) -> httpcore2.ConnectionPool:
        # An auth object may ask another host for a token.
        with self._lock:
            key = url.scheme, url.host
            if key not in self._pools:
                context = self._context() if url.scheme == "https" else None
                self._pools[key] = _make_pool(url, self._connections, context, self._network)
            return self._pools[key]

    def _whole(self, answer: httpcore2.Response, request: httpx2.Request) -> httpx2.Response:
        headers = httpx2.Headers(answer.headers)
        body = b""
        if answer.status < 300:  # noqa: PLR2004 - success
            body = collected(
                _chunks(answer), headers.get("Content-Encoding", "").strip().lower(), self._limits.max_response_bytes
            )
        else:
            with contextlib.suppress(BodyTooLargeError):  # nobody reads it: the connection goes with it
                body = collected(_chunks(answer), "", _ERROR_BODY)
        for name in _HOP_HEADERS:
            headers.pop(name, None)
        response = _Response(answer.status, headers=headers, content=body, request=request)
        response.shown = self._shown(request.url)
        return response


def _broken(error: Exception, shown: Address) -> ResumableSyncError:
    if _is_untrusted(error):
        return HTTPResponseError(
            f"{shown} has a certificate that is not trusted; check the host, or override ssl_context()"
        )
    if isinstance(error, httpcore2.LocalProtocolError | httpcore2.UnsupportedProtocol):
        return ConfigurationError(
            f"the request to {shown} cannot be sent ({type(error).__name__}); check url and headers"
        )
    # What breaks the protocol would be quoted.
    told = f": {error}" if isinstance(error, httpcore2.NetworkError) and str(error) else ""
    return TransientError(f"the connection to {shown} failed ({type(error).__name__}{told})")


def _chunks(answer: httpcore2.Response) -> Iterable[bytes]:
    stream: Iterable[bytes] = answer.stream  # type: ignore[assignment]  # of a synchronous pool
    return stream


def _redirected(request: httpx2.Request, response: httpx2.Response, shown: Address) -> httpx2.Request:
    base = str(request.url)
    target = parse_url(base)[0].redirected(base, response.headers["Location"])
    if target is None:
        msg = f"{shown} redirects to another host, where no credentials are sent; if it is right, give its URL instead"
        raise HTTPResponseError(msg, response.status_code)
    if request.method not in ("GET", "HEAD") and response.status_code not in (307, 308):
        msg = f"{shown} redirects a {request.method} to something else; give the URL that it means"
        raise HTTPResponseError(msg, response.status_code)
    headers = [(name, value) for name, value in request.headers.raw if name.lower() != b"host"]
    return httpx2.Request(request.method, _url_of(target), headers=headers, content=request.read() or None)


def _is_untrusted(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _make_pool(
    url: httpx2.URL, connections: int, context: ssl.SSLContext | None, network: Network
) -> httpcore2.ConnectionPool:
    settings: dict[str, Any] = {
        "ssl_context": context,
        "max_connections": connections,
        "keepalive_expiry": _KEEPALIVE,
        "network_backend": network,
    }
    proxies = getproxies()
    named = proxies.get(url.scheme) or proxies.get("all")
    if not named or proxy_bypass(url.host):
        return httpcore2.ConnectionPool(**settings)
    try:
        proxy = httpx2.Proxy(named if "://" in named else f"http://{named}")
    except ValueError:
        proxy = None
    if proxy is None or proxy.url.scheme not in ("http", "https"):
        msg = "the environment names a proxy that cannot be used; name one by http://, or put the host into NO_PROXY"
        raise ConfigurationError(msg)
    address = httpcore2.URL(
        scheme=proxy.url.raw_scheme, host=proxy.url.raw_host, port=proxy.url.port, target=proxy.url.raw_path
    )
    return httpcore2.HTTPProxy(address, proxy_auth=proxy.raw_auth, **settings)
