"""Handling of SIGTERM, with which cluster managers announce that a process will be killed."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def on_sigterm(act: Callable[[], Any]) -> Iterator[None]:
    """Call `act` at each SIGTERM instead of ending the process.

    Outside the main thread this is a no-op, because Python delivers signals to the main thread only.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: act())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)
