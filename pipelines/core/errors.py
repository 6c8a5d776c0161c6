"""Exceptions that end a job with an exit code. Each message says what is wrong and what to change."""


class UserError(Exception):
    """A mistake in the input: a bad configuration, a missing path, or a plan that needs more than the cluster has.

    Exit code 2.
    """

    exit_code = 2


class DataRefused(Exception):
    """A data set with a larger share of unusable records than `max_bad_fraction`. Finished results are kept.

    Exit code 3.
    """

    exit_code = 3


class Stopped(Exception):
    """A request from outside to end the job (SIGTERM, `submit --stop`). The state is saved: the same command resumes.

    Exit code 1.
    """

    exit_code = 1
