"""The store of those who give none."""

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from resumable_sync.stores.redis import RedisJobStore
    from resumable_sync.stores.sql import SQLJobStore

__all__ = ["default_store", "is_redis"]


def default_store() -> "SQLJobStore | RedisJobStore":
    """Make the store on the URL in `RESUMABLE_SYNC_STORE`, by default that of a SQLite file in the working directory.

    The core knows the adapters only by name, here: what they need is loaded for those who use it.
    """
    sql = importlib.import_module("resumable_sync.stores.sql")
    url = os.environ.get(sql.ENVIRONMENT_VARIABLE, "")
    made: Any
    if is_redis(url):
        made = importlib.import_module("resumable_sync.stores.redis").RedisJobStore(url)
    else:
        made = sql.SQLJobStore()
    return made  # type: ignore[no-any-return]


def is_redis(url: str) -> bool:
    """Whether a URL leads to a store of `RedisJobStore`; all others are SQLAlchemy's."""
    return url.startswith(("redis://", "rediss://", "unix://"))
