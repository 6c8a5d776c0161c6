"""Encoded images in the column `image_bytes` of a tagged table (written by `precompute --embed_bytes`).

Training needs many images in random order, which Parquet cannot read efficiently. `open_embedded` therefore copies the
images once per machine to a local file and maps it into memory, so that all processes share its pages. `find_embedded`
reads a few images from the Parquet files without a copy.
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import uuid
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.core.errors import UserError
from pipelines.core.local_tables import shared_folder
from pipelines.core.parquet import open_file, read_file, read_schema, table_files
from pipelines.core.steps import fingerprint
from pipelines.core.tables import IMAGE_BYTES

_BATCH_ROWS = 32  # images in memory while a file is read
_RANGES = pa.schema([pa.field("image_id", pa.string()), pa.field("start", pa.int64()), pa.field("end", pa.int64())])


class EmbeddedImages:
    """The embedded images of a table, in a local file that is mapped into memory.

    Args:
        ranges: a row per image: its id, and the start and end of its bytes in the file.
        path: the file.
    """

    def __init__(self, ranges: pa.Table, path: str) -> None:
        self._ids = ranges["image_id"].combine_chunks()
        self._starts, self._ends = (ranges[name].to_numpy() for name in ("start", "end"))
        self._bytes = np.memmap(path, np.uint8, "r")

    def rows(self, ids: pa.ChunkedArray) -> np.ndarray:
        """Return the row of each image id for `content`, (n,) int64; -1 if the image is not embedded."""
        return pc.fill_null(pc.index_in(ids, value_set=self._ids), -1).to_numpy().astype(np.int64)

    def content(self, row: int) -> bytes | None:
        """Return the encoded bytes of an image; None for the row -1."""
        return None if row < 0 else self._bytes[self._starts[row] : self._ends[row]].tobytes()


def open_embedded(uri: str) -> EmbeddedImages | None:
    """Open the embedded images of a table. Return None if the table has none.

    The first process of a machine copies the images to the temporary folder, under the digest of the table. Other
    processes wait for the copy and share it.

    Args:
        uri: a Parquet file, or a folder of them (the result of a step).

    Raises:
        UserError: the disk of the temporary folder is full.
    """
    path = os.path.join(shared_folder(), f"{fingerprint(uri)[:24]}-{IMAGE_BYTES.name}")
    # The temporary folder is on a local disk, where flock is reliable (it is not on every network file system).
    with open(f"{path}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.exists(f"{path}.arrow"):
            _copy(uri, path)
    with pa.memory_map(f"{path}.arrow") as source:
        ranges = pa.ipc.open_file(source).read_all()
    return EmbeddedImages(ranges, f"{path}.bin") if ranges.num_rows else None


def find_embedded(uri: str, ids: Collection[str]) -> dict[str, bytes]:
    """Return the encoded bytes of a few images by id, without a local copy. Images that are not embedded are left out.

    Args:
        uri: as for `open_embedded`.
        ids: of the images.
    """
    contents: dict[str, bytes] = {}
    requested = pa.array(sorted(ids), pa.string())
    for name in _embedding_files(table_files(uri)):
        if not pc.any(pc.is_in(read_file(name, ["image_id"])["image_id"], value_set=requested)).as_py():
            continue
        for image_id, content in _images(name):
            if image_id in ids:
                contents.setdefault(image_id, content)
    return contents


def embedded_digests(file: str) -> dict[str, bytes]:
    """Return the SHA-256 of each embedded image of a Parquet file by id; empty if the file has none."""
    return {
        image_id: hashlib.sha256(content).digest()
        for name in _embedding_files([file])
        for image_id, content in _images(name)
    }


def _embedding_files(files: Sequence[str]) -> list[str]:
    """Return the files that have a column of embedded images. Their schemas are read by 16 threads."""

    def embeds(name: str) -> bool:
        return {"image_id", IMAGE_BYTES.name} <= set(read_schema(name).names)

    with ThreadPoolExecutor(16) as pool:
        return [name for name, has_images in zip(files, pool.map(embeds, files), strict=True) if has_images]


def _images(name: str) -> Iterator[tuple[str, bytes]]:
    """Yield the ids and encoded bytes of a file's embedded images, with a few of them in memory."""
    with open_file(name) as file:
        for batch in file.iter_batches(_BATCH_ROWS, columns=["image_id", IMAGE_BYTES.name]):
            for image_id, content in zip(batch["image_id"], batch[IMAGE_BYTES.name], strict=True):
                if content.is_valid:
                    yield image_id.as_py(), content.as_py()


def _copy(uri: str, path: str) -> None:
    """Write PATH.bin, the bytes of all images, then PATH.arrow, their ranges, which marks the copy as complete."""
    # A process that is killed leaves only this file: .bin and .arrow appear complete, by renaming.
    partial = f"{path}.{uuid.uuid4().hex[:8]}.partial"
    ids: list[str] = []
    ends: list[int] = []
    try:
        with open(partial, "wb") as sink:
            for name in _embedding_files(table_files(uri)):
                for image_id, content in _images(name):
                    sink.write(content)
                    ids.append(image_id)
                    ends.append(sink.tell())
        os.replace(partial, f"{path}.bin")
        ranges = pa.table([ids, [0, *ends[:-1]][: len(ends)], ends], schema=_RANGES)
        with pa.OSFile(partial, "wb") as stream, pa.ipc.new_file(stream, _RANGES) as writer:
            writer.write_table(ranges)
        os.replace(partial, f"{path}.arrow")
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise UserError(
            f"{os.path.dirname(path)} has no space for the embedded images of {uri} ({error}); free space, or set "
            "TMPDIR to a folder on a larger disk."
        ) from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(partial)
