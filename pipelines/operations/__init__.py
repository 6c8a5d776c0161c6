"""Work around the trainings: pipelines of steps, preflight checks, job submission, checkpoint conversion."""
