"""The store of those who give none."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resumable_sync.stores.sql import SQLJobStore

__all__ = ["default_store"]


def default_store() -> "SQLJobStore":
    """Make a `SQLJobStore` on the URL in `RESUMABLE_SYNC_STORE`, by default a SQLite file in the working directory.

    The core knows the adapter only by name, here: SQLAlchemy is loaded for those who use it.
    """
    store: SQLJobStore = importlib.import_module("resumable_sync.stores.sql").SQLJobStore()
    return store
