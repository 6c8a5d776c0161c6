"""Pictures from files, folders, s3:// and gs://, web addresses and tagged tables."""

import os
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence

import pyarrow as pa
from PIL import Image

from pipelines.core import storage
from pipelines.core.errors import UserError
from pipelines.core.parquet import read_file, table_files
from pipelines.sources.embedded import open_embedded
from pipelines.sources.formats.folder import IMAGE_SUFFIXES
from pipelines.sources.images import BadImage, Reason, decode_image, load_image

_TIMEOUT = 30.0  # seconds without a byte from the server
_MOST_BYTES = 200_000_000


def is_web(uri: str) -> bool:
    """Return whether a URI is a web address."""
    return uri.startswith(("http://", "https://"))


def find_pictures(names: Sequence[str]) -> list[str]:
    """Return the URIs of pictures, in order; a folder stands for all image files in it, sorted by name.

    Args:
        names: files, folders, URIs and web addresses.

    Raises:
        UserError: a folder holds no image file, or the list is empty.
    """
    uris: list[str] = []
    for name in names:
        if is_web(name) or not storage.is_folder(name):
            uris.append(name if is_web(name) else storage.absolute(name))
            continue
        inside = _image_files(name)
        if not inside:
            raise UserError(f"{name} holds no image file ({', '.join(IMAGE_SUFFIXES)}).")
        uris += inside
    if not uris:
        raise UserError("No image is named; give --image FILE, FOLDER or ADDRESS.")
    return uris


def find_table(name: str) -> dict[str, Callable[[], bytes | None]] | None:
    """Return the pictures of a tagged table: URI → a function that reads the embedded bytes. None: it is no such table.

    Args:
        name: a Parquet file, or a folder that holds Parquet files and no image file, such as a precompute step's.

    Raises:
        UserError: the files lack the columns of a tagged table.
    """
    if is_web(name) or not (name.endswith(".parquet") or storage.is_folder(name)):
        return None
    files = table_files(name)
    if not files or (storage.is_folder(name) and _image_files(name)):
        return None
    images = pa.concat_tables([_uris(file) for file in files])
    embedded = open_embedded(name)
    rows = [-1] * images.num_rows if embedded is None else embedded.rows(images["image_id"]).tolist()

    def reader(row: int) -> Callable[[], bytes | None]:
        return lambda: None if embedded is None else embedded.content(row)

    return {uri: reader(row) for uri, row in zip(images["uri"].to_pylist(), rows, strict=True)}


def _uris(file: str) -> pa.Table:
    table = read_file(file, ["image_id", "uri"])
    if missing := {"image_id", "uri"} - set(table.column_names):
        raise UserError(f"{file} is not a tagged table: it lacks the columns {sorted(missing)}.")
    return table


def _image_files(folder: str) -> list[str]:
    return [uri for uri in storage.list_files(folder) if os.path.splitext(uri)[1].lower() in IMAGE_SUFFIXES]


def open_picture(uri: str, content: bytes | None = None) -> "Image.Image | BadImage":
    """Return a picture, upright and RGB, or the reason why it cannot be read.

    Args:
        uri: a file, a URI or a web address.
        content: the encoded bytes, where a table embeds them.
    """
    try:
        return decode_image(_download(uri)) if is_web(uri) else load_image(uri, content)
    except BadImage as error:
        return error


def _download(address: str) -> bytes:
    request = urllib.request.Request(address, headers={"User-Agent": "dynamic-lion"})
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:
            content: bytes = response.read(_MOST_BYTES + 1)
    except urllib.error.HTTPError as error:
        reason: Reason = "missing" if error.code in (404, 410) else "unreadable"
        raise BadImage(reason, f"{address} responds with {error.code} {error.reason}") from error
    except (OSError, ValueError) as error:  # includes URLError and time-outs
        raise BadImage("unreadable", f"{address}: {error}") from error
    if len(content) > _MOST_BYTES:
        raise BadImage("too_large", f"{address} sends more than {_MOST_BYTES} bytes")
    return content
