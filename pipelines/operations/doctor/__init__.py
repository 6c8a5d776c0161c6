"""Preflight: what would make a job hang or fail, found before it starts."""
