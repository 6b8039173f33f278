"""Where records come from: the bases to subclass; each built-in connector has a module of its own here."""

from resumable_sync._bases import KeysetConnector, OffsetConnector, TokenConnector

__all__ = ["KeysetConnector", "OffsetConnector", "TokenConnector"]
