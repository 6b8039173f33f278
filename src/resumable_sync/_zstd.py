"""The module for zstd: the standard library's since Python 3.14, before that its backport."""

import sys
from typing import Any

from resumable_sync._errors import MissingExtraError

__all__ = ["zstd_module"]


def zstd_module() -> Any:
    """Give the module for zstd; only files that end in `.zst` need it.

    Raises:
        MissingExtraError: If it is not installed.
    """
    try:
        if sys.version_info >= (3, 14):
            from compression import zstd  # noqa: PLC0415 - as this docstring says
        else:
            from backports import zstd  # noqa: PLC0415 - as this docstring says
    except ImportError:
        package, extra = "backports.zstd", "files"
        raise MissingExtraError(package, extra) from None
    return zstd
