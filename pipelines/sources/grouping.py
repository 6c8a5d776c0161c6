"""Group the rows of a file by key in little memory, for formats that need a join of two files or arrays."""

from array import array
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from pipelines.sources.ids import hash64
from pipelines.sources.records import BadAnnotation, BadRecord, id_field, text_field
from pipelines.sources.streams import array_elements

_CHUNK = 65_536


class RowsByKey:
    """Texts by key, in the order of `add`. A row takes its Arrow buffers and a 64-bit hash, but no Python object.

    Add all rows before the first look-up: a look-up after an addition sorts all rows again.
    """

    def __init__(self) -> None:
        self._hashes = array("Q")  # 8 bytes per row; a list of Python integers would take 44
        self._pending: list[tuple[str, str]] = []
        self._chunks: list[pa.RecordBatch] = []
        self._order: np.ndarray | None = None
        self._sorted: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self._hashes)

    def add(self, key: str, text: str) -> None:
        """Add a row."""
        self._order = None
        self._hashes.append(hash64(key))
        self._pending.append((key, text))
        if len(self._pending) == _CHUNK:
            self._flush()

    def get(self, key: str) -> list[str]:
        """Return the texts of a key in the order of `add`; empty for a key without rows."""
        if self._order is None or self._sorted is None:
            self._flush()
            hashes = np.asarray(self._hashes, dtype=np.uint64)
            self._order = np.argsort(hashes, kind="stable")
            self._sorted = hashes[self._order]
        hashed = np.uint64(hash64(key))
        low, high = np.searchsorted(self._sorted, hashed, "left"), np.searchsorted(self._sorted, hashed, "right")
        rows = (self._row(int(number)) for number in self._order[low:high])
        return [text for row_key, text in rows if row_key == key]  # two keys may have the same hash

    def items(self) -> Iterator[tuple[str, str]]:
        """Yield every key and text in the order of `add`."""
        for number in range(len(self)):
            yield self._row(number)

    def _row(self, number: int) -> tuple[str, str]:
        chunk, row = divmod(number, _CHUNK)
        if chunk == len(self._chunks):
            return self._pending[row]
        batch = self._chunks[chunk]
        return batch.column(0)[row].as_py(), batch.column(1)[row].as_py()

    def _flush(self) -> None:
        """Convert a full chunk to Arrow. All chunks are full, so that `_row` finds a row by division."""
        if len(self._pending) == _CHUNK:
            keys, texts = zip(*self._pending, strict=True)
            columns = [pa.array(keys, pa.large_string()), pa.array(texts, pa.large_string())]
            self._chunks.append(pa.RecordBatch.from_arrays(columns, ["key", "text"]))
            self._pending = []


def add_captions(captions: RowsByKey, annotations: str, array_key: str, text_key: str) -> Iterator[BadRecord]:
    """Add the captions of a file by image id, and yield the entries that cannot be used.

    Args:
        captions: the rows are added to it.
        annotations: the JSON file.
        array_key: the key of the array of entries, each with an `image_id`.
        text_key: the key of the caption in an entry.
    """
    for number, entry in enumerate(array_elements(annotations, array_key)):
        where, image_id = f"{array_key}[{number}]", None
        try:
            image_id = id_field(entry, "image_id", where)
            captions.add(image_id, text_field(entry, text_key, where))
        except BadAnnotation as error:
            yield error.record(image_id)
