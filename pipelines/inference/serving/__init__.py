"""Models as MLflow serves them: one file per kind of model, logged as code with `models` and `pipelines`."""
