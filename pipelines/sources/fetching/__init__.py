"""Public weights and annotation files: a catalog of where they are, and downloads that survive bad networks."""
