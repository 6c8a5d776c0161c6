"""What asks a training from outside to save or to end: SIGTERM, a driver's mark, a machine about to be taken."""

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
    """What one worker hears. The loop sums it over the workers, so that all of them act after the same step.

    Args:
        mark: a URI whose existence asks to end; for workers that no signal reaches. None: there is none.
        preemption: says what is known of machines that are about to be taken, None while there are none. It may be a
            collective: it is called after the same steps by all workers.
        every: seconds between two looks at the mark.
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
        self._asked, self._over = threading.Event(), threading.Event()
        self._looked, self._known = time.monotonic(), None

    @property
    def stop(self) -> bool:
        """Whether this worker was asked to end."""
        return self._asked.is_set()

    def due(self) -> bool:
        """Whether it is time to call `preempted`. Only the main worker's answer counts: clocks differ."""
        if self._preemption is None or time.monotonic() - self._looked < self._patience:
            return False
        self._looked = time.monotonic()
        return True

    def preempted(self) -> bool:
        """Whether there is news of a machine that is about to be taken."""
        known = None if self._preemption is None else self._preemption()
        news = known is not None and known != self._known
        self._known = known
        return news

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Hears SIGTERM (in a process's main thread) and looks for the mark. It never ends anything by itself."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(on_sigterm(self._asked.set))
            if self._mark is not None:
                looking = threading.Thread(target=self._look, name="interrupts", daemon=True)
                looking.start()
                stack.callback(looking.join)
                stack.callback(self._over.set)
            yield

    def _look(self) -> None:
        assert self._mark is not None
        while not self._over.wait(self._every):
            try:
                found = storage.exists(self._mark)
            except OSError as error:
                log.warning("%s cannot be looked for (%s); the driver is not heard meanwhile", self._mark, error)
                continue
            if found:
                self._asked.set()
                return
