"""Addresses: the parts of a URL, what of it may be shown, and which other URLs lead to the same host."""

import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote, quote_plus, unquote_plus, urljoin, urlsplit

import attrs
from typing_extensions import override

from resumable_sync._errors import ConfigurationError, mask_credentials

__all__ = ["Address", "Pairs", "as_pairs", "is_credential", "parse_url", "query_of"]

Pairs = tuple[tuple[str, str], ...]
"""Query parameters: names and values, not encoded."""

_DEFAULT_PORTS = {"http": 80, "https": 443}
# A browser passes over tabs and line breaks inside a URL; here they would only hide a host.
_CONTROL = re.compile(r"[\x00-\x20\x7f\\]")


@attrs.frozen
class Address:
    """Where a request goes, without user, password and query.

    Attributes:
        scheme: `"http"` or `"https"`.
        host: The host's name, in lower case.
        port: Its port.
        path: The path, encoded as it was given.
        hidden: Values that are not to be shown, and what to show instead of each, longest first.
    """

    scheme: str
    host: str
    port: int
    path: str
    hidden: tuple[tuple[str, str], ...] = attrs.field(default=(), repr=False, eq=False)

    @property
    def origin(self) -> str:
        """Scheme, host and port, as a URL begins."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == _DEFAULT_PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{host}{port}"

    @override
    def __str__(self) -> str:
        return mask_credentials(self.origin + self.shown_path)

    @property
    def shown_path(self) -> str:
        """The path without what is not to be shown."""
        path = self.path
        for value, shown in self.hidden:
            path = path.replace(value, shown)
        return path

    def url(self, query: str, path: str | None = None) -> str:
        """Give a whole URL.

        Args:
            query: The query, encoded; may be empty.
            path: Another path than this address has.
        """
        target = self.origin + (self.path if path is None else path)
        return f"{target}?{query}" if query else target

    def redirected(self, base: str, location: str) -> str | None:
        """Give the URL that a redirect leads to, or None if credentials must not be sent there.

        They stay with scheme, host and port, or go from http to https of the same host.

        Args:
            base: The URL that was asked for.
            location: Where the answer leads to.
        """
        target = _resolved(base, location)
        if target is None:
            return None
        there, query = target
        same = (there.scheme, there.host, there.port) == (self.scheme, self.host, self.port)
        safer = (self.scheme, self.port, there.scheme, there.port) == ("http", 80, "https", 443)
        return there.url(query) if same or (safer and there.host == self.host) else None

    def linked(self, base: str, link: str) -> str | None:
        """Give path and query of a link to another page, or None if it leads to another host.

        APIs behind a proxy often name themselves by the wrong scheme: requests go where this address says in any case.

        Args:
            base: The URL that was asked for.
            link: The link, absolute or relative.
        """
        target = _resolved(base, link)
        if target is None:
            return None
        there, query = target
        usual = set(_DEFAULT_PORTS.values())
        same_port = there.port == self.port or {there.port, self.port} <= usual
        if there.host != self.host or not same_port:
            return None
        return f"{there.path}?{query}" if query else there.path


def parse_url(url: Any) -> tuple[Address, Pairs, tuple[str, str] | None]:
    """Give the address, the query parameters, and user and password of a URL.

    Raises:
        ConfigurationError: If it is none; does not quote it, since there may be a password in it.
    """
    target = _split(url) if isinstance(url, str) else None
    if target is None:
        msg = "the url is none that can be asked; give one such as 'https://api.example.com/v1/orders'"
        raise ConfigurationError(msg)
    parts = urlsplit(url)
    user = None
    if parts.username is not None:
        user = (
            unquote_plus(parts.username.replace("+", "%2B")),
            unquote_plus((parts.password or "").replace("+", "%2B")),
        )
    return target[0], tuple(_pairs(target[1])), user


def as_pairs(params: Any) -> Pairs:
    """Give query parameters as pairs of text.

    Raises:
        ConfigurationError: If a value is none that a query can hold.
    """
    if params is not None and not isinstance(params, Mapping):
        msg = f"params is a {type(params).__name__}; give a mapping of names to values"
        raise ConfigurationError(msg, ("params",))
    pairs = []
    for name, given in (params or {}).items():
        for value in given if isinstance(given, list | tuple) else [given]:
            if type(name) is not str or not isinstance(value, str | int | float):
                # The value may be secret.
                msg = f"params[{name!r}] is a {type(value).__name__}; give text, a number, a bool, or a list of them"
                raise ConfigurationError(msg, ("params", str(name)))
            pairs.append((name, str(value).lower() if isinstance(value, bool) else str(value)))
    return tuple(pairs)


def query_of(pairs: Iterable[tuple[str, str]]) -> str:
    """Give parameters as the query of a URL."""
    return "&".join(f"{quote_plus(name)}={quote_plus(value)}" for name, value in pairs)


def is_credential(name: str) -> bool:
    """Whether a query parameter holds a credential, told by its name."""
    return mask_credentials(f"?{name}=value") != f"?{name}=value"


def _resolved(base: str, link: str) -> tuple[Address, str] | None:
    try:
        return _split(urljoin(base, link))
    except ValueError:
        return None


def _split(url: str) -> tuple[Address, str] | None:
    if _CONTROL.search(url):
        return None
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    if parts.scheme not in _DEFAULT_PORTS or not host:
        return None
    path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._")
    return Address(parts.scheme, host, _DEFAULT_PORTS[parts.scheme] if port is None else port, path), parts.query


def _pairs(query: str) -> Iterable[tuple[str, str]]:
    for part in query.split("&") if query else []:
        name, _, value = part.partition("=")
        yield unquote_plus(name), unquote_plus(value)
