"""Closing what somebody else made: an iterator may be a generator, a store may have connections, or nothing at all."""

from typing import Any

__all__ = ["close_if_closable"]


def close_if_closable(thing: Any) -> None:
    """Close an iterator of pages, a connector or a store; what has no `close` has opened nothing."""
    close = getattr(thing, "close", None)
    if callable(close):
        close()
