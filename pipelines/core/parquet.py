"""Reading and writing of tables as Parquet files, on local disks and in object stores.

A result of a step, such as `predictions`, is a folder of Parquet files in the step's folder (`result_files`). A table
of images may be one file, one step's folder, or a folder of several steps (`table_files`).
"""

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.core import storage
from pipelines.core.errors import UserError

# Folders in a step's folder whose Parquet files are not part of its table.
_NOT_TABLE = {"quarantine", "source"}


def table_files(uri: str) -> list[str]:
    """Return the Parquet files of a table, sorted: the file itself, or those at any depth of a folder.

    Files in folders named `quarantine` or `source` are not part of the table.
    """
    if not storage.is_folder(uri):
        return [uri]
    root = storage.absolute(uri)
    files = storage.list_files(uri, ".parquet")
    return [name for name in files if not _NOT_TABLE & set(name.removeprefix(root).split("/"))]


def result_files(uri: str, table: str) -> list[str]:
    """Return the Parquet files of a step's result, sorted; for the arguments see `read_parquet`.

    Raises:
        UserError: the file or folder does not exist, or the folder has no Parquet file.
    """
    uri = storage.absolute(uri)
    if not storage.exists(uri):
        raise UserError(f"The {table} {uri} do not exist; check the path.")
    files = [uri]
    if storage.is_folder(uri):
        inner = storage.join(uri, table)
        files = storage.list_files(inner if storage.is_folder(inner) else uri, ".parquet", recursive=False)
    if not files:
        raise UserError(f"{uri} has no Parquet file of {table}; pass the file, or the folder of the step's result.")
    return files


def read_parquet(uri: str, table: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Return all rows of a step's result, in the order of the files' names.

    Args:
        uri: a Parquet file, a folder of Parquet files, or a step's folder with the folder `table` in it.
        table: the name of the result, such as `predictions`.
        columns: the columns to read; columns that are missing in a file are skipped. None: all.

    Raises:
        UserError: the result does not exist, a file is not Parquet, or the files have different columns.
    """
    uri, files = storage.absolute(uri), result_files(uri, table)
    try:
        return pa.concat_tables([read_file(name, columns) for name in files], promote_options="default")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise UserError(f"{uri} cannot be read as Parquet files of one table ({error}).") from error


@storage.retry_transient
def read_file(uri: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Read one Parquet file; `columns` as in `read_parquet`."""
    with open_file(uri) as file:
        present = None if columns is None else [name for name in columns if name in file.schema_arrow.names]
        return file.read(present)


@storage.retry_transient
def read_schema(uri: str) -> pa.Schema:
    """Return the schema of a Parquet file, without reading rows."""
    filesystem, path = storage.resolve(uri)
    return pq.read_schema(path, filesystem=filesystem)


@contextlib.contextmanager
def open_file(uri: str) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file, to read it in parts."""
    filesystem, path = storage.resolve(uri)
    with filesystem.open_input_file(path) as stream, pq.ParquetFile(stream) as file:
        yield file


def write_file(uri: str, table: pa.Table) -> str:
    """Write a Parquet file atomically and return its SHA-256. Equal tables give equal bytes."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", compression_level=1)
    content = sink.getvalue().to_pybytes()
    storage.write_atomic(uri, content)
    return hashlib.sha256(content).hexdigest()


def write_parquet(folder: str, name: str, table: pa.Table) -> dict[str, Any]:
    """Write a Parquet file of a step's result atomically.

    Args:
        folder: the step's folder.
        name: the file's name, relative to the folder.
        table: the rows.

    Returns:
        `path` (the name), `rows` and `sha256`: the entry of the file in the step's manifest.
    """
    digest = write_file(storage.join(folder, name), table)
    return {"path": name, "rows": table.num_rows, "sha256": digest}
