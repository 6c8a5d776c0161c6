"""Operations around the steps: pipelines, preflight checks (doctor), job submission and checkpoint conversion."""
