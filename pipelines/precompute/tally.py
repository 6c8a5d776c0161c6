"""The counts of a run: its progress, and the stop of a run with too much bad input."""

import logging
import math
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from pipelines.core.errors import DataRefused
from pipelines.core.shards import ShardIndex

log = logging.getLogger("lion.precompute")
_SECONDS_BETWEEN_LINES = 5.0


class Tally:
    """Counts of finished and quarantined images; it logs progress and stops a run with too much bad input.

    Args:
        index: the cut source.
        max_bad_fraction: largest fraction of the input (images and bad annotations) that may be quarantined.
        proofs: the shards that earlier runs finished.
    """

    def __init__(self, index: ShardIndex, max_bad_fraction: float, proofs: Iterable[Mapping[str, Any]]) -> None:
        self.total = index.rows
        self.bad_annotations = sum(index.bad_records.values())
        # The small number makes 0.29 * 100 (28.999… in floating point) count as 29.
        self.allowed = math.floor(max_bad_fraction * (self.total + self.bad_annotations) + 1e-9)
        self.max_bad_fraction = max_bad_fraction
        self.reasons: Counter[str] = Counter(index.bad_records)
        self.done = 0
        for proof in proofs:
            self.add(proof)
        self.done_before = self.done
        self.started = self.reported = time.monotonic()

    def add(self, proof: Mapping[str, Any]) -> None:
        """Add a finished shard."""
        self.done += proof["rows"] + sum(proof["quarantined"].values())
        self.reasons.update(proof["quarantined"])

    def check(self) -> None:
        """Check the quarantined share of the input.

        Raises:
            DataRefused: it is above `max_bad_fraction`.
        """
        bad = self.reasons.total()
        if bad > self.allowed:
            reasons = ", ".join(f"{reason} {count}" for reason, count in self.reasons.most_common())
            raise DataRefused(
                f"{bad} of {self.total + self.bad_annotations} inputs are bad ({reasons}), more than max_bad_fraction "
                f"{self.max_bad_fraction:g} allows; see quarantine/. Computed shards are kept: repair the input and "
                "run again with --retry_quarantined true, or raise --max_bad_fraction."
            )

    def report(self, now: bool = False) -> None:
        """Log progress.

        Args:
            now: log in any case; otherwise at most one line in a few seconds.
        """
        clock = time.monotonic()
        if not now and clock - self.reported < _SECONDS_BETWEEN_LINES:
            return
        self.reported = clock
        rate = (self.done - self.done_before) / max(clock - self.started, 1e-9)
        remaining = self.total - self.done
        left = remaining / rate if rate else math.inf if remaining else 0.0
        log.info(
            "%d/%d images (%.0f %%), %.1f images/s, %d quarantined, %.0f s left",
            self.done, self.total, 100 * self.done / self.total, rate, self.reasons.total(), left,
        )  # fmt: skip
