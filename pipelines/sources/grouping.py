"""Rows of a file gathered by key in little memory, for formats whose two halves must be joined."""

from array import array
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from pipelines.sources.ids import hash64
from pipelines.sources.records import BadAnnotation, BadRecord, id_field, text_field
from pipelines.sources.streams import array_elements

_CHUNK = 65_536


class RowsByKey:
    """Texts by key, in the order in which they came: Arrow buffers and one 64-bit hash a row, no Python object kept.

    Add all rows first, then look up: the first look-up after an addition sorts.
    """

    def __init__(self) -> None:
        self._hashes = array("Q")
        self._pending: list[tuple[str, str]] = []
        self._chunks: list[pa.RecordBatch] = []
        self._order: np.ndarray | None = None
        self._sorted: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self._hashes)

    def add(self, key: str, text: str) -> None:
        """One more row of `key`."""
        self._order = None
        self._hashes.append(hash64(key))
        self._pending.append((key, text))
        if len(self._pending) == _CHUNK:
            self._flush()

    def get(self, key: str) -> list[str]:
        """Return the texts of a key; none where it has no row."""
        if self._order is None or self._sorted is None:
            self._flush()
            hashes = np.asarray(self._hashes, dtype=np.uint64)
            self._order = np.argsort(hashes, kind="stable")
            self._sorted = hashes[self._order]
        wanted = np.uint64(hash64(key))
        low, high = np.searchsorted(self._sorted, wanted, "left"), np.searchsorted(self._sorted, wanted, "right")
        rows = (self._row(int(number)) for number in self._order[low:high])
        return [text for found, text in rows if found == key]

    def items(self) -> Iterator[tuple[str, str]]:
        """Return every key and text in the order in which they came."""
        for number in range(len(self)):
            yield self._row(number)

    def _row(self, number: int) -> tuple[str, str]:
        chunk, place = divmod(number, _CHUNK)
        if chunk == len(self._chunks):
            return self._pending[place]
        batch = self._chunks[chunk]
        return batch.column(0)[place].as_py(), batch.column(1)[place].as_py()

    def _flush(self) -> None:
        """Only full chunks become Arrow, so that a row's chunk is its number divided by the chunk's size."""
        if len(self._pending) == _CHUNK:
            keys, texts = zip(*self._pending, strict=True)
            columns = [pa.array(keys, pa.large_string()), pa.array(texts, pa.large_string())]
            self._chunks.append(pa.RecordBatch.from_arrays(columns, ["key", "text"]))
            self._pending = []


def add_captions(captions: RowsByKey, annotations: str, place: str, key: str) -> Iterator[BadRecord]:
    """Group the captions of a file by image; yields what cannot be read of it.

    Args:
        captions: filled by image id.
        annotations: the JSON file.
        place: the array of its entries, each with an `image_id`.
        key: what an entry calls its caption.
    """
    for number, entry in enumerate(array_elements(annotations, place)):
        where, image_id = f"{place}[{number}]", None
        try:
            image_id = id_field(entry, "image_id", where)
            captions.add(image_id, text_field(entry, key, where))
        except BadAnnotation as error:
            yield error.record(image_id)
