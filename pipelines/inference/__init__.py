"""Asking a model about images in this process, without Ray: what `jobs.predict` and the demo page share."""
