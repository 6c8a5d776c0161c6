"""Training: one loop that does not know Ray, and the ways to launch it."""
