"""Sets of millions of ids in little memory: 8 bytes per id instead of about 100 in a Python `set`."""

from hashlib import blake2b

import numpy as np

_RECENT = 65_536  # ids in the Python set before they are merged into the sorted array


def hash64(text: str) -> int:
    """Return a 64-bit hash of a text that is equal in every process, unlike Python's `hash`."""
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


class SeenIds:
    """The ids that a reader has read, as sorted 64-bit hashes, to detect duplicates.

    A new id has the hash of one of n others with the probability n / 2⁶⁴. For ten million ids the probability of any
    such collision is 3 in a million; it would put one good row into quarantine.
    """

    def __init__(self) -> None:
        self._sorted = np.empty(0, np.uint64)
        self._recent: set[int] = set()

    def __len__(self) -> int:
        return len(self._sorted) + len(self._recent)

    def __contains__(self, image_id: str) -> bool:
        return self._has(hash64(image_id))

    def add(self, image_id: str) -> bool:
        """Add an id. Return whether it is new."""
        hashed = hash64(image_id)
        if self._has(hashed):
            return False
        self._recent.add(hashed)
        # Merging is linear in all ids, so it is done once per 65,536 ids and not for each.
        if len(self._recent) == _RECENT:
            new = np.sort(np.fromiter(self._recent, np.uint64, _RECENT))
            self._sorted = np.insert(self._sorted, np.searchsorted(self._sorted, new), new)
            self._recent.clear()
        return True

    def _has(self, hashed: int) -> bool:
        if hashed in self._recent:
            return True
        position = int(np.searchsorted(self._sorted, np.uint64(hashed)))
        return position < len(self._sorted) and int(self._sorted[position]) == hashed
