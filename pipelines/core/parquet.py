"""Tables as Parquet files: read whole, written whole or not at all."""

import io
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.core import storage
from pipelines.core.errors import UserError


def read_parquet(uri: str, table: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Return all rows of a Parquet file, or of the Parquet files of a folder in the order of their names.

    Args:
        uri: a file, a folder of files, or a step's folder, whose table is the folder `table` in it.
        table: what is read, such as `predictions`.
        columns: only these, as far as they are there.

    Raises:
        UserError: nothing is there, or a file is not Parquet, or the files have different columns.
    """
    uri, files = storage.absolute(uri), table_files(uri, table)
    try:
        return pa.concat_tables([read_file(name, columns) for name in files], promote_options="default")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise UserError(f"{uri} cannot be read as Parquet files of one table ({error}).") from error


def table_files(uri: str, table: str) -> list[str]:
    """Return the Parquet files of a table in the order of their names; for the arguments see `read_parquet`.

    Raises:
        UserError: nothing is there, or no Parquet file is in the folder.
    """
    uri = storage.absolute(uri)
    if not storage.exists(uri):
        raise UserError(f"The {table} {uri} do not exist; check the path.")
    files = [uri]
    if storage.is_folder(uri):
        inner = storage.join(uri, table)
        files = storage.list_files(inner if storage.is_folder(inner) else uri, ".parquet", recursive=False)
    if not files:
        raise UserError(f"{uri} holds no Parquet file of {table}; give the file, or the folder of the step's result.")
    return files


def read_file(uri: str, columns: Sequence[str] | None = None) -> pa.Table:
    """One Parquet file."""
    filesystem, path = storage.resolve(uri)
    with filesystem.open_input_file(path) as stream:
        file = pq.ParquetFile(stream)
        wanted = None if columns is None else [name for name in columns if name in file.schema_arrow.names]
        return file.read(wanted)


def write_file(uri: str, table: pa.Table) -> None:
    """One Parquet file, whole or not at all."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    storage.write_atomic(uri, buffer.getvalue())
