"""Where batches go: one technology per module."""
