"""SIGTERM as a request that a running step can answer before it ends."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def on_sigterm(act: Callable[[], Any]) -> Iterator[None]:
    """Call `act` at each SIGTERM instead of ending; outside a main thread, where Python hears none, does nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: act())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)
