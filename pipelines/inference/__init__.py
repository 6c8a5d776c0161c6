"""Answers of a model in this process, without Ray: `jobs.predict`, the demo page, serving, and evaluation's actors."""
