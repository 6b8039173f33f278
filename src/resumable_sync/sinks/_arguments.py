"""The arguments of `SQLSink`, checked when it is made."""

from typing import Any

from resumable_sync._errors import ConfigurationError

__all__ = ["check_mode", "key_names", "split_name"]


def check_mode(mode: object, *, publish_incomplete: bool) -> None:
    """Check the mode, and what goes with it.

    Raises:
        ConfigurationError: If there is no such mode, or it has no runs to publish.
    """
    if mode not in ("append", "upsert", "replace"):
        msg = f"mode={mode!r} is no mode of SQLSink; use 'append', 'upsert' or 'replace'"
        raise ConfigurationError(msg)
    if publish_incomplete and mode != "replace":
        msg = f"publish_incomplete= has no meaning with mode={mode!r}, which publishes every batch; leave it out"
        raise ConfigurationError(msg)


def split_name(table: object, schema: object) -> tuple[str | None, str]:
    """Give schema and name of a table that is named as `"name"` or `"schema.name"`.

    Raises:
        ConfigurationError: If it is no name.
    """
    if not isinstance(table, str) or not (schema is None or isinstance(schema, str)):
        msg = f"the table {table!r} is no name; give 'name' or 'schema.name'"
        raise ConfigurationError(msg)
    found, dot, name = table.rpartition(".") if schema is None else (schema, ".", table)
    if not name or (dot and not found) or "\0" in found + name:
        msg = f"the table {table!r} is no name; give 'name' or 'schema.name'"
        raise ConfigurationError(msg)
    return found or None, str(name)


def key_names(key: Any, mode: str) -> tuple[str, ...] | None:
    """Give the names of a key's columns; None if there is no key.

    Raises:
        ConfigurationError: If it is no key, or the mode takes none.
    """
    if key is None:
        return None
    names = (key,) if isinstance(key, str) else tuple(key)
    if not names or len(set(names)) != len(names) or not all(isinstance(name, str) and name for name in names):
        msg = f"key={key!r} is no key; name its columns, each once"
        raise ConfigurationError(msg)
    if mode == "append":
        msg = "key= has no meaning with mode='append'; leave it out, or use mode='upsert'"
        raise ConfigurationError(msg)
    return names
