"""What a connector was given and an API repeats in its links: out of the cursor, and into the request again."""

import base64
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any
from urllib.parse import quote, quote_plus, unquote, unquote_plus

import attrs

from resumable_sync._errors import CursorError
from resumable_sync.connectors._http_address import Pairs, is_credential, query_of

__all__ = ["Own", "Secret", "not_shown", "secrets_of"]

_SHORTEST = 4
"""Characters of a credential that is known in the place of a whole value; a shorter one only under its own name."""
_SHORTEST_WITHIN = 8
"""Characters of any other value that is known there, and of a credential that is known inside of a text."""
_TELLING_NOTHING = {"accept", "user-agent", "content-type", "content-length", "referer", "origin", "host", "connection"}
_SENT = "sent"
_IN_PATH = ":@!$&'()*+,;=~-._"
_MARK = re.compile(r"\{([^{}]*)\}")
_DECODINGS = 3


@attrs.frozen
class Secret:
    """A value that may be a credential.

    Attributes:
        label: Stands for it in a link: `"params.key.0"`, `"headers.authorization"`; empty: nobody can put it back.
        value: The value.
        sure: Whether it is a credential by where it was given.
    """

    label: str
    value: str
    sure: bool


def secrets_of(
    params: Pairs,
    headers: Mapping[str, str],
    user: tuple[str, str] | None,
    hidden: Mapping[str, str],
) -> tuple[Secret, ...]:
    """Give the values that may be credentials.

    Args:
        params: Query parameters of every request.
        headers: Headers of every request.
        user: User and password.
        hidden: Values of the environment: name of the variable by value, also as it stands in a URL.
    """
    found = [Secret("auth.password", user[1], sure=True)] if user else []
    for name, value in headers.items():
        found += _of_header(f"headers.{name.lower()}", name, value)
    numbers: dict[str, int] = {}
    for name, value in params:
        number = numbers[name] = numbers.get(name, -1) + 1
        found.append(Secret(f"params.{quote(name, safe='')}.{number}", value, is_credential(name)))
    # Of a value and the same in percent-encoding the shorter one is the value.
    plain = {name: value for value, name in sorted(hidden.items(), key=lambda pair: -len(pair[0]))}
    found += [Secret(f"env.{name}", value, sure=True) for name, value in plain.items()]
    return tuple(sorted((one for one in found if one.value), key=lambda one: not one.sure))


def not_shown(secrets: Iterable[Secret], hidden: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Give what is not to be shown of a path, as it stands there, and what to show instead, longest first."""
    known = [secret.value for secret in secrets if secret.sure and not secret.label.startswith("env.")]
    texts = {written: "***" for value in known for written in (value, quote(value), quote(value, safe=""))}
    texts |= {quote(value, safe=_IN_PATH + "/%"): f"${{{name}}}" for value, name in hidden.items()}
    found = [(value, shown) for value, shown in texts.items() if len(value) >= _SHORTEST]
    return tuple(sorted(found, key=lambda pair: -len(pair[0])))


def _of_header(label: str, name: str, value: str) -> Iterator[Secret]:
    if name.lower() in _TELLING_NOTHING or name.lower().startswith("accept-"):
        return
    sure = is_credential(name)
    yield Secret(label, value, sure)
    scheme, _, rest = value.partition(" ")
    if name.lower() == "cookie":
        for cookie in value.split(";"):
            key, _, held = cookie.strip().partition("=")
            yield Secret(f"{label}.{quote(key, safe='')}", held, sure)
    elif rest:
        yield Secret(f"{label}.rest", rest.strip(), sure)
        if scheme.lower() == "basic":
            yield Secret(f"{label}.password", _decoded(rest).partition(":")[2], sure)


def _decoded(text: str) -> str:
    try:
        return base64.b64decode(text).decode()
    except ValueError:
        return ""


@attrs.frozen(slots=False)
class Own:
    """The values of a connector, and how links do without them.

    Attributes:
        params: Its query parameters.
        secrets: Which values may be credentials.
    """

    params: Pairs
    secrets: tuple[Secret, ...] = attrs.field(default=(), repr=False)

    def with_sent(self, url_query: Pairs, headers: Mapping[str, str]) -> "Own":
        """Know what an auth object put into a request too; nobody can put that back but the auth object itself."""
        known = {secret.value for secret in self.secrets}
        found = [one for name, value in headers.items() for one in _of_header("", name, value)]
        found += [Secret("", value, sure=True) for name, value in url_query if is_credential(name)]
        new = tuple(Secret("", one.value, one.sure) for one in found if one.value and one.value not in known)
        return attrs.evolve(self, secrets=(*self.secrets, *new)) if new else self

    def taken_out(self, link: str) -> str:
        """Give path and query of a link without the caller's own values: `"/items?key={}&page=2"`.

        One of them may be a credential, whatever the API calls it, and a link becomes a cursor. `filled_in` puts each
        of them back.
        """
        path, _, query = link.partition("?")
        parts = [self._part_without(part) for part in query.split("&")] if query else []
        path = self._text_without(path, unquote, lambda text: quote(text, safe=_IN_PATH + "/"))
        return f"{path}?{'&'.join(parts)}" if parts else path

    def _part_without(self, part: str) -> str:
        name, equals, value = part.partition("=")
        if self._singles.get(unquote_plus(name)) == unquote_plus(value):
            return f"{name}={{}}"
        label = self._label_of(name, value)
        if label is not None:
            return f"{name}={{{label}}}"
        kept = self._text_without(value, unquote_plus, quote_plus)
        return _without_braces(name) + equals + kept

    def _label_of(self, name: str, value: str) -> str | None:
        written = {value, unquote(value), unquote_plus(value), unquote(unquote_plus(value))}
        prefix = f"params.{quote(unquote_plus(name), safe='')}."
        for secret in self.secrets:
            least = _SHORTEST if secret.sure else _SHORTEST_WITHIN
            known = len(secret.value) >= least or (secret.sure and secret.label.startswith(prefix))
            if known and secret.value in written:
                return secret.label or _SENT
        return None

    def _text_without(self, text: str, decode: Callable[[str], str], encode: Callable[[str], str]) -> str:
        plain = decode(text)
        if self._within is None or not self._within.search(plain):
            return _without_braces(text)
        labels = {secret.value: secret.label for secret in reversed(self._long)}
        parts = self._within.split(plain)
        return "".join(f"{{{labels[part]}}}" if at % 2 else encode(part) for at, part in enumerate(parts))

    def holds(self, link: str) -> bool:
        """Whether a credential still stands in the path or a value, percent-encoded or not."""
        path, _, query = link.partition("?")
        texts = [path, *(part.partition("=")[2] for part in query.split("&"))]
        known = [secret.value for secret in self._long if not secret.label.startswith("env.")]
        for _ in range(_DECODINGS):
            if any(value in text or value in unquote_plus(text) for value in known for text in texts):
                return True
            texts = [unquote(text) for text in texts]
        return False

    def filled_in(self, link: str) -> tuple[str, str]:
        """Give path and query of a link with the caller's own values put back; parameters it does not name are added.

        Raises:
            CursorError: If the path holds the place of a value that the connector does not have.
        """
        path, _, query = link.partition("?")
        values = {secret.label: secret.value for secret in self.secrets if secret.label}

        def fill(match: re.Match[str]) -> str:
            if match[1] not in values:
                msg = (
                    f"the stored cursor leaves out the value of {match[1]!r}, which the connector was begun with and "
                    "no longer has; give it again, or start over with reset_job(job_id)"
                )
                raise CursorError(msg)
            # What a configuration puts into a path may be several segments of it.
            return quote(values[match[1]], safe=_IN_PATH + ("/" if match[1].startswith("env.") else ""))

        parts, named = [], _named_by(_MARK.findall(path))
        for part in query.split("&") if query else []:
            name, equals, value = part.partition("=")
            plain = unquote_plus(name)
            labels = _MARK.findall(value)
            if labels == [""]:
                parts.append(f"{name}={quote_plus(self._singles.get(plain, ''))}")
            elif all(label in values for label in labels):
                parts.append(name + equals + _MARK.sub(lambda match: quote_plus(values[match[1]]), value))
                named |= _named_by(labels)
            else:
                continue  # an auth object puts it in, or the credential is given in another way by now
            named.add(plain)
        missing = query_of(pair for pair in self.params if pair[0] not in named and is_credential(pair[0]))
        return _MARK.sub(fill, path), "&".join([*parts, missing] if missing else parts)

    @cached_property
    def _singles(self) -> dict[str, str]:
        names = [name for name, _ in self.params]
        return {name: value for name, value in self.params if names.count(name) == 1}

    @cached_property
    def _long(self) -> tuple[Secret, ...]:
        return tuple(secret for secret in self.secrets if secret.sure and len(secret.value) >= _SHORTEST_WITHIN)

    @cached_property
    def _within(self) -> Any:
        # What nobody can put back stays, and is refused by whoever asks `holds`.
        longest = sorted({secret.value for secret in self._long if secret.label}, key=len, reverse=True)
        return re.compile(f"({'|'.join(map(re.escape, longest))})") if longest else None


def _named_by(labels: Iterable[str]) -> set[str]:
    return {unquote(label.split(".")[1]) for label in labels if label.startswith("params.")}


def _without_braces(text: str) -> str:
    return text.replace("{", "%7B").replace("}", "%7D")
