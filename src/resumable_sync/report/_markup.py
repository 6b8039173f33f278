"""HTML and SVG in which everything is escaped, because only markup made here is taken as it is."""

import html
from collections.abc import Iterable

__all__ = ["Markup", "element", "join", "shown"]

_UNSEEN = "\N{REPLACEMENT CHARACTER}"
_EMPTY = {"line", "path", "rect", "meta", "polyline"}


class Markup(str):
    """Text that is markup already."""

    __slots__ = ()


def shown(text: str) -> Markup:
    """Give a text as markup: escaped, and without what is no character to look at."""
    return Markup(html.escape("".join(letter if letter.isprintable() else _UNSEEN for letter in text)))


def join(parts: Iterable[str]) -> Markup:
    """Put parts together, those that are no markup escaped."""
    return Markup("".join(part if isinstance(part, Markup) else shown(part) for part in parts))


def element(name: str, /, *content: str, **attributes: object) -> Markup:
    """Give an element.

    Args:
        name: Its name.
        content: What is in it, escaped where it is no markup.
        attributes: Those that are None are left out; `class_` is `class`, `data_x` is `data-x`.
    """
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{shown(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _EMPTY and not content:
        return Markup(f"<{name}{given}/>")
    return Markup(f"<{name}{given}>{join(content)}</{name}>")
