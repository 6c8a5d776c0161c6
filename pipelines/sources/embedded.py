"""Encoded images that lie in a tagged table (column `image_bytes`, of `precompute --embed_bytes`), by image id.

A table of any size is read a few images at a time. Who needs many images in any order opens a copy on this machine's
disk, mapped into memory: all processes of the machine share its pages. Who needs a few looks them up in the files.
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

_IMAGES_AT_ONCE = 32
_PLACES = pa.schema([pa.field("image_id", pa.string()), pa.field("start", pa.int64()), pa.field("end", pa.int64())])


class EmbeddedImages:
    """The embedded images of a table, in a local file that is mapped into memory.

    Args:
        places: of each image its id, and its first byte in the file and the one behind its last.
        path: the file.
    """

    def __init__(self, places: pa.Table, path: str) -> None:
        self._ids = places["image_id"].combine_chunks()
        self._starts, self._ends = (places[name].to_numpy() for name in ("start", "end"))
        self._bytes = np.memmap(path, np.uint8, "r")

    def rows(self, ids: pa.ChunkedArray) -> np.ndarray:
        """Return for each image id the number that `content` takes, -1 where the image is not embedded (n,)."""
        return pc.fill_null(pc.index_in(ids, value_set=self._ids), -1).to_numpy().astype(np.int64)

    def content(self, row: int) -> bytes | None:
        """Return an image's encoded bytes; None for -1."""
        return None if row < 0 else self._bytes[self._starts[row] : self._ends[row]].tobytes()


def open_embedded(uri: str) -> EmbeddedImages | None:
    """Open the embedded images of a table; None where none are embedded.

    The first process of a machine copies their bytes to the temporary folder, named by the table's digest; the others
    wait for it and share the copy.

    Args:
        uri: a Parquet file, or a folder of them (a step's result).

    Raises:
        UserError: the temporary folder's disk is full.
    """
    path = os.path.join(shared_folder(), f"{fingerprint(uri)[:24]}-{IMAGE_BYTES.name}")
    with open(f"{path}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.exists(f"{path}.arrow"):
            _copy(uri, path)
    with pa.memory_map(f"{path}.arrow") as source:
        places = pa.ipc.open_file(source).read_all()
    return EmbeddedImages(places, f"{path}.bin") if places.num_rows else None


def find_embedded(uri: str, ids: Collection[str]) -> dict[str, bytes]:
    """Return the encoded bytes of a few images by id, without those that are not embedded. Nothing is copied.

    Args:
        uri: as for `open_embedded`.
        ids: of the images.
    """
    found: dict[str, bytes] = {}
    wanted = pa.array(sorted(ids), pa.string())
    for name in _embedding_files(table_files(uri)):
        if not pc.any(pc.is_in(read_file(name, ["image_id"])["image_id"], value_set=wanted)).as_py():
            continue
        for image_id, content in _images(name):
            if image_id in ids:
                found.setdefault(image_id, content)
    return found


def embedded_digests(file: str) -> dict[str, bytes]:
    """Return the SHA-256 of the embedded images of one Parquet file by id; empty where none are embedded."""
    return {
        image_id: hashlib.sha256(content).digest()
        for name in _embedding_files([file])
        for image_id, content in _images(name)
    }


def _embedding_files(files: Sequence[str]) -> list[str]:
    """Those files of a table that have embedded images."""

    def embeds(name: str) -> bool:
        return {"image_id", IMAGE_BYTES.name} <= set(read_schema(name).names)

    with ThreadPoolExecutor(16) as pool:
        return [name for name, whether in zip(files, pool.map(embeds, files), strict=True) if whether]


def _images(name: str) -> Iterator[tuple[str, bytes]]:
    """Ids and encoded bytes of a file's embedded images, a few in memory at a time."""
    with open_file(name) as file:
        for batch in file.iter_batches(_IMAGES_AT_ONCE, columns=["image_id", IMAGE_BYTES.name]):
            for image_id, content in zip(batch["image_id"], batch[IMAGE_BYTES.name], strict=True):
                if content.is_valid:
                    yield image_id.as_py(), content.as_py()


def _copy(uri: str, path: str) -> None:
    """Write PATH.bin, the bytes one image after another, then PATH.arrow, their places: the proof of the copy."""
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
        places = pa.table([ids, [0, *ends[:-1]][: len(ends)], ends], schema=_PLACES)
        with pa.OSFile(partial, "wb") as stream, pa.ipc.new_file(stream, _PLACES) as writer:
            writer.write_table(places)
        os.replace(partial, f"{path}.arrow")
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise UserError(
            f"{os.path.dirname(path)} has no room for the embedded images of {uri} ({error}); make room, or set TMPDIR "
            "to a folder on a larger disk."
        ) from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(partial)
