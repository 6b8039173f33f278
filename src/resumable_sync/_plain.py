"""Plain data: where a value stands, the environment's values in it, and whether it is of a type."""

import re
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Literal, TypeAlias, Union, get_args, get_origin
from urllib.parse import quote

import attrs

from resumable_sync._errors import ConfigurationError
from resumable_sync._hidden import hide

__all__ = ["Filled", "Place", "at", "fill", "is_plain", "misfit", "suggestion"]

Place: TypeAlias = Sequence[str | int]
"""Keys and indexes that lead to a value, such as `("jobs", "orders", "source")`."""

_REFERENCE = re.compile(r"\$\$\{|\$\{([^}]*)\}?")
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)")
_VALUE_IN_QUERY = re.compile(r"\?(?:[^#]*&)?[^=&?#]+=[^&#]*")
_IN_PATH = ":@!$&'()*+,;=~-._/"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_BARE = re.compile(r"[A-Za-z0-9_-]+")


def at(place: Place) -> str:
    """Give a place as it is written, such as `jobs.orders.source.url`."""
    text = ""
    for part in place:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + (part if _BARE.fullmatch(part) else f'"{part}"')
    return text


def suggestion(word: Any, choices: Iterable[str]) -> str:
    """Give `; did you mean 'x'?` if one of the choices is close to a word, else nothing."""
    close = get_close_matches(word.lower(), list(choices), n=1) if isinstance(word, str) else []
    return f"; did you mean {close[0]!r}?" if close else ""


@attrs.frozen
class Filled:
    """Plain data with the values of the environment in them.

    Attributes:
        values: The data.
        secrets: Name of the variable by each value that came from the environment, also as it stands in URLs.
    """

    values: dict[str, Any]
    secrets: dict[str, str]

    def hide(self, text: str) -> str:
        """Give a text with what came from the environment replaced by the name of its variable."""
        return hide(text, self.secrets)

    def value(self, key: str, hint: Any) -> Any:
        """Give a value; one that is the environment's as a whole, and so a text, as the number that `hint` asks for."""
        return self.converted(self.values[key], hint)

    def converted(self, value: Any, hint: Any) -> Any:
        """Give a value from anywhere in the data, as `value` does."""
        if not isinstance(value, str) or value not in self.secrets or misfit(value, hint) is None:
            return value
        for kind in (int, float, _true_or_false):
            try:
                number: Any = kind(value)
            except ValueError:
                continue
            if misfit(number, hint) is None:
                return number
        return value


def _true_or_false(text: str) -> bool:
    """Give a bool by its name.

    Raises:
        ValueError: If it is none.
    """
    return ("false", "true").index(text) == 1


def fill(data: Mapping[str, Any], place: Place, environ: Mapping[str, str]) -> Filled:
    """Replace `${NAME}` in every text of plain data by the environment variable of that name; `$${` becomes `${`.

    In a URL the value may hold any character, and is percent-encoded: in user and password, as the value of a query's
    parameter, and in the path of a web address, where a slash remains one.

    Raises:
        ConfigurationError: If there is no such variable, or what stands in the braces is no name.
    """
    filled = Filled({}, {})
    for key, value in data.items():
        filled.values[key] = _filled(value, (*place, key), environ, filled.secrets)
    return filled


def _filled(value: Any, place: Place, environ: Mapping[str, str], secrets: dict[str, str]) -> Any:
    if isinstance(value, Mapping):
        return {key: _filled(item, (*place, str(key)), environ, secrets) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_filled(item, (*place, index), environ, secrets) for index, item in enumerate(value)]
    if not isinstance(value, str):
        return value

    def replace(match: re.Match[str]) -> str:
        if match[1] is None:
            return "${"
        found = _looked_up(match[0], match[1], place, environ)
        encoded = _encoded(found, value, match.start(), environ)
        secrets.update({found: match[1], encoded: match[1]})
        return encoded

    return _REFERENCE.sub(replace, value)


def _encoded(found: str, written: str, start: int, environ: Mapping[str, str]) -> str:
    """Give the value of a variable as it must stand in a text.

    Args:
        found: The value.
        written: The text, with what stands for values in it.
        start: Where the value goes.
        environ: What a variable at the beginning of the text is looked up in: it may hold a URL.
    """
    before = written[:start]
    url = _URL.match(written)
    base = None if url else _REFERENCE.match(written)
    if base is not None and base[1] and base.end() <= start:
        url = _URL.match(environ.get(base[1], ""))
        before = environ.get(base[1], "") + written[base.end() : start]
    if url is None:
        return found
    if len(before) < url.end():
        return quote(found, safe="") if start < url[0].rfind("@") else found
    rest = before[url.end() :]
    if "?" in rest:
        return quote(found, safe="") if _VALUE_IN_QUERY.fullmatch(rest, rest.index("?")) else found
    is_path = rest.startswith("/") and url[1].lower() in ("http", "https")
    return quote(found, safe=_IN_PATH) if is_path else found


def _looked_up(written: str, name: str, place: Place, environ: Mapping[str, str]) -> str:
    """Give the value of a variable.

    Raises:
        ConfigurationError: If there is none, or it cannot have that name.
    """
    if not written.endswith("}") or not _NAME.fullmatch(name):
        msg = f"{at(place)}: behind '${{' stands no name of a variable; write ${{NAME}}, or $${{ where '${{' is meant"
        raise ConfigurationError(msg, place)
    if name not in environ:
        msg = f"{at(place)}: the environment variable {name} is not set{_meant(name, environ)}; set it"
        raise ConfigurationError(msg, place)
    return environ[name]


def _meant(name: str, environ: Mapping[str, str]) -> str:
    """Give ` (is NAME meant?)` if a variable is called nearly so, else nothing."""
    close = get_close_matches(name, list(environ), n=1, cutoff=0.8)
    return f" (is {close[0]} meant?)" if close else ""


_NAMES: dict[Any, str] = {
    str: "text",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    list: "a list",
    dict: "a table of keys and values",
}
_LISTS = (list, tuple, Sequence)
_TABLES = (dict, Mapping)
_ACCEPTED: dict[Any, tuple[type, ...]] = {
    float: (int, float),
    dict: (Mapping,),
    **dict.fromkeys(_LISTS, (list, tuple)),
}


def misfit(value: Any, hint: Any) -> str | None:
    """Say how a value of plain data misses a type; None if it is of that type, or the type says nothing about it."""
    wanted = [*_alternatives(hint)]
    known = [one for one in wanted if _name(one) is not None]
    if not known or any(_fits(value, one) for one in wanted):
        return None  # of other classes only the object itself knows what they can be made from
    choices = [choice for one in known if get_origin(one) is Literal for choice in get_args(one)]
    if isinstance(value, str) and choices and str not in wanted:
        listed = " and ".join(filter(None, [", ".join(map(repr, choices[:-1])), repr(choices[-1])]))
        return f"= {value!r} is none of {listed}{suggestion(value, map(str, choices))}"
    allowed = dict.fromkeys(str(_name(one)) for one in known)
    found = next((name for kind, name in _NAMES.items() if type(value) is kind), type(value).__name__)
    return f"must be {' or '.join(allowed)}, and is {found if type(value) is not bool else str(value).lower()}"


def is_plain(hint: Any) -> bool:
    """Whether plain data can be of a type: not if it is made of functions alone."""
    kinds = [get_origin(one) or one for one in _alternatives(hint)]
    return not all(kind in (Callable, types.NoneType) for kind in kinds)


def _alternatives(hint: Any) -> Iterable[Any]:
    if get_origin(hint) in (Union, types.UnionType):
        for one in get_args(hint):
            yield from _alternatives(one)
    else:
        yield hint


def _fits(value: Any, hint: Any) -> bool:
    origin = get_origin(hint) or hint
    if origin is Literal:
        return any(type(value) is type(choice) and value == choice for choice in get_args(hint))
    if origin is Any or not isinstance(origin, type):
        return True
    if isinstance(value, bool):
        return issubclass(bool, origin) and origin is not int
    return isinstance(value, _ACCEPTED.get(origin, origin))


def _name(hint: Any) -> str | None:
    origin = get_origin(hint) or hint
    if origin is Literal:
        return " or ".join(map(repr, get_args(hint)))
    if origin in _LISTS:
        return _NAMES[list]
    return _NAMES[dict] if origin in _TABLES else _NAMES.get(origin)
