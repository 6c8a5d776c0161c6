"""Requests from outside to save or to stop: SIGTERM, the driver's stop mark, a machine that will be taken away."""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from pipelines.core import storage
from pipelines.core.signals import on_sigterm

log = logging.getLogger("lion.training")


class Interrupts:
    """The requests that one worker received. The loop sums them over the workers, so that all act after the same step.

    Args:
        mark: URI of a file whose existence is a request to stop, for workers that no signal reaches. None: no such
            file.
        preemption: returns what the cluster announces about machines that will be taken away; None while there is no
            announcement. It may be a collective: all workers call it after the same steps.
        every: seconds between two checks for the mark.
        patience: seconds between two calls of `preemption`.
    """

    def __init__(
        self,
        mark: str | None = None,
        preemption: Callable[[], Any] | None = None,
        every: float = 1.0,
        patience: float = 5.0,
    ) -> None:
        self._mark, self._preemption, self._every, self._patience = mark, preemption, every, patience
        self._stop, self._closed = threading.Event(), threading.Event()
        self._last_check, self._announcement = time.monotonic(), None

    @property
    def stop(self) -> bool:
        """Whether this worker received a request to stop."""
        return self._stop.is_set()

    def due(self) -> bool:
        """Return whether `preempted` must be called now. Only the main worker decides, because clocks differ."""
        if self._preemption is None or time.monotonic() - self._last_check < self._patience:
            return False
        self._last_check = time.monotonic()
        return True

    def preempted(self) -> bool:
        """Return whether there is a new announcement about a machine that will be taken away."""
        announcement = None if self._preemption is None else self._preemption()
        is_new = announcement is not None and announcement != self._announcement
        self._announcement = announcement
        return is_new

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Listen for SIGTERM (in a process's main thread) and for the mark. The loop decides when to stop."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(on_sigterm(self._stop.set))
            if self._mark is not None:
                watcher = threading.Thread(target=self._watch, name="interrupts", daemon=True)
                watcher.start()
                stack.callback(watcher.join)
                stack.callback(self._closed.set)
            yield

    def _watch(self) -> None:
        assert self._mark is not None
        while not self._closed.wait(self._every):
            try:
                exists = storage.exists(self._mark)
            except OSError as error:
                log.warning(
                    "the stop mark %s cannot be read (%s); requests to stop have no effect until it can",
                    self._mark, error,
                )  # fmt: skip
                continue
            if exists:
                self._stop.set()
                return
