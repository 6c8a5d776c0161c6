"""Public weights and annotation files: a catalog of their addresses, and downloads that resume after failures."""
