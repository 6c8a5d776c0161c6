"""A verb as a job of a running Ray cluster: shipped, submitted once, followed to its end, and stopped."""
