"""What the adapters that work with Arrow and ADBC share."""
