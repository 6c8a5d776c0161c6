"""Ids of millions of images in little memory: 8 bytes each instead of some 100 in Python's `set`."""

from hashlib import blake2b

import numpy as np

_RECENT = 65_536


def hash64(text: str) -> int:
    """Return the same 64-bit number for a text in every process, unlike Python's own."""
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


class SeenIds:
    """Ids met so far, as sorted 64-bit hashes, so that a reader finds one that comes a second time.

    A new id is taken for one of n others with a chance of n / 2⁶⁴: over ten million ids that is 3 in a million for a
    single mistake, which would be a row of the quarantine.
    """

    def __init__(self) -> None:
        self._sorted = np.empty(0, np.uint64)
        self._recent: set[int] = set()

    def __len__(self) -> int:
        return len(self._sorted) + len(self._recent)

    def __contains__(self, image_id: str) -> bool:
        return self._has(hash64(image_id))

    def add(self, image_id: str) -> bool:
        """Take an id in, and says whether it is new."""
        hashed = hash64(image_id)
        if self._has(hashed):
            return False
        self._recent.add(hashed)
        if len(self._recent) == _RECENT:
            new = np.sort(np.fromiter(self._recent, np.uint64, _RECENT))
            self._sorted = np.insert(self._sorted, np.searchsorted(self._sorted, new), new)
            self._recent.clear()
        return True

    def _has(self, hashed: int) -> bool:
        if hashed in self._recent:
            return True
        place = int(np.searchsorted(self._sorted, np.uint64(hashed)))
        return place < len(self._sorted) and int(self._sorted[place]) == hashed
