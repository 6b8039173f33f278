"""Values that are shown nowhere: what a configuration took from the environment, known to whatever is made of it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["LEAST_HIDDEN", "hidden_values", "hide", "hiding"]

LEAST_HIDDEN = 3
"""Characters; a shorter value would be found in every word."""

_values: ContextVar[Mapping[str, str]] = ContextVar("resumable_sync_hidden", default={})  # noqa: B039 - never changed


@contextmanager
def hiding(values: Mapping[str, str]) -> Iterator[None]:
    """Let what is made within the block know that it may not show these values.

    Args:
        values: Name of the variable by value.
    """
    token = _values.set(values)
    try:
        yield
    finally:
        _values.reset(token)


def hidden_values() -> dict[str, str]:
    """Give the values that what is being made may not show: name of the variable by value, longest first."""
    return dict(sorted(_values.get().items(), key=lambda pair: -len(pair[0])))


def hide(text: str, values: Mapping[str, str]) -> str:
    """Give a text with values replaced by the names of their variables; those that are too short stay.

    Args:
        text: The text.
        values: Name of the variable by value.
    """
    for value in sorted(values, key=len, reverse=True):
        if len(value) >= LEAST_HIDDEN:
            text = text.replace(value, f"${{{values[value]}}}")
    return text
