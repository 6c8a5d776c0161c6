"""MLflow runs and registered models."""
