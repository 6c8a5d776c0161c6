"""Running a verb as a job of a Ray cluster: package the code, submit once, follow the log, stop."""
