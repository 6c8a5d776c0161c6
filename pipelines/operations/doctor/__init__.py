"""Preflight checks: find what would make a job hang or fail, before it starts."""
