"""Where jobs, checkpoints and leases are kept."""
