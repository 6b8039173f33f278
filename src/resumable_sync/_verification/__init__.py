"""The comparison of two sides, range by range, that `verify_full_sync` runs as a sync of its own."""
