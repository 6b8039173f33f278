"""Addresses: the parts of a URL, what of it may be shown, and which other URLs lead to the same host."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote, quote_plus, unquote_plus, urljoin, urlsplit

import attrs
from typing_extensions import override

from resumable_sync._errors import ConfigurationError, mask_credentials

__all__ = ["Address", "Pairs", "as_pairs", "filled_in", "is_credential", "parse_url", "query_of", "taken_out"]

Pairs = tuple[tuple[str, str], ...]
"""Query parameters: names and values, not encoded."""

_DEFAULT_PORTS = {"http": 80, "https": 443}
# A browser passes over tabs and line breaks inside a URL; here they would only hide a host.
_CONTROL = re.compile(r"[\x00-\x20\x7f\\]")
_OWN = "{}"
"""Stands in a link for the value of a parameter that is the caller's own; a URL has no braces."""


@attrs.frozen
class Address:
    """Where a request goes, without user, password and query.

    Attributes:
        scheme: `"http"` or `"https"`.
        host: The host's name, in lower case.
        port: Its port.
        path: The path, encoded as it was given.
    """

    scheme: str
    host: str
    port: int
    path: str

    @property
    def origin(self) -> str:
        """Scheme, host and port, as a URL begins."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == _DEFAULT_PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{host}{port}"

    @override
    def __str__(self) -> str:
        return mask_credentials(self.origin + self.path)

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


def as_pairs(params: Mapping[str, Any] | None) -> Pairs:
    """Give query parameters as pairs of text.

    Raises:
        ConfigurationError: If a value is none that a query can hold.
    """
    pairs = []
    for name, given in (params or {}).items():
        for value in given if isinstance(given, list | tuple) else [given]:
            if type(name) is not str or not isinstance(value, str | int | float):
                # The value may be secret.
                msg = f"params[{name!r}] is a {type(value).__name__}; give text, a number, a bool, or a list of them"
                raise ConfigurationError(msg)
            pairs.append((name, str(value).lower() if isinstance(value, bool) else str(value)))
    return tuple(pairs)


def query_of(pairs: Iterable[tuple[str, str]]) -> str:
    """Give parameters as the query of a URL."""
    return "&".join(f"{quote_plus(name)}={quote_plus(value)}" for name, value in pairs)


def is_credential(name: str) -> bool:
    """Whether a query parameter holds a credential, told by its name."""
    return mask_credentials(f"?{name}=value") != f"?{name}=value"


def taken_out(link: str, own: Sequence[tuple[str, str]]) -> str:
    """Give a link without the values of the caller's own parameters, which APIs repeat in it: `"/items?key={}&page=2"`.

    One of them may be a credential, and a link becomes a cursor. Each value is put back by `filled_in`.
    """
    path, _, query = link.partition("?")
    single = _singles(own)
    parts = []
    for part in query.split("&") if query else []:
        name, _, value = part.partition("=")
        kept = single.get(unquote_plus(name)) != unquote_plus(value)
        parts.append(part.replace("{", "%7B").replace("}", "%7D") if kept else f"{name}={_OWN}")
    return f"{path}?{'&'.join(parts)}" if parts else path


def filled_in(link: str, own: Sequence[tuple[str, str]]) -> tuple[str, str]:
    """Give path and query of a link with the caller's own parameters put back; those it does not name are added."""
    path, _, query = link.partition("?")
    single = _singles(own)
    parts, named = [], set()
    for part in query.split("&") if query else []:
        name, _, value = part.partition("=")
        plain = unquote_plus(name)
        named.add(plain)
        parts.append(f"{name}={quote_plus(single.get(plain, ''))}" if value == _OWN else part)
    missing = query_of(pair for pair in own if pair[0] not in named and is_credential(pair[0]))
    return path, "&".join([*parts, missing] if missing else parts)


def _singles(own: Sequence[tuple[str, str]]) -> dict[str, str]:
    names = [name for name, _ in own]
    return {name: value for name, value in own if names.count(name) == 1}


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
