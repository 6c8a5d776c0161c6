"""Models as MLflow serves them: one file per kind, logged as code together with `models` and `pipelines`."""
