"""The three ways a job ends other than well. Every message says what is wrong and what to change."""


class UserError(Exception):
    """The user's mistake: a bad configuration, a bad path, or a plan that cannot fit. Exit code 2."""

    exit_code = 2


class DataRefused(Exception):
    """The data is worse than `max_bad_fraction` allows; what was computed is kept. Exit code 3."""

    exit_code = 3


class Stopped(Exception):
    """Asked from outside to end (SIGTERM, a stopped job). What was done is saved; running it again goes on. Exit code
    1."""

    exit_code = 1
