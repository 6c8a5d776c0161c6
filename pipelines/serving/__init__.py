"""Models as MLflow serves them: one file per kind, logged as code; the files import `models` and no other of ours."""
