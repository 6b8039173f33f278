"""A job in parts: its plan, the parts, who works on them, and what holds them together."""
