"""The command line: `resumable-sync`, or `python -m resumable_sync`."""

from resumable_sync._errors import MissingExtraError

try:
    import click as _click
    import rich as _rich
except ModuleNotFoundError as error:
    raise MissingExtraError(error.name or "click", "cli") from error

from resumable_sync.cli._app import main

__all__ = ["main"]

del _click, _rich
