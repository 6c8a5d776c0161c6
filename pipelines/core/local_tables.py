"""Tables as Arrow files on the local disk, mapped into memory: all processes of a machine share their pages.

The first process of a machine that opens a table converts its columns to an Arrow file in the temporary folder. The
file's name contains the table's digest, so a changed table is converted again.
"""

import contextlib
import os
import tempfile
import uuid
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from pipelines.core import storage
from pipelines.core.errors import UserError
from pipelines.core.parquet import table_files
from pipelines.core.steps import fingerprint


def shared_folder() -> str:
    """Return the user's folder in the machine's temporary folder; create it if it is missing.

    Raises:
        UserError: another user owns it.
    """
    path = os.path.join(tempfile.gettempdir(), f"dynamic-lion-{os.getuid()}")
    os.makedirs(path, mode=0o700, exist_ok=True)
    if os.stat(path).st_uid != os.getuid():
        raise UserError(f"{path} belongs to another user; set TMPDIR to a folder that you own.")
    return path


def open_table(uri: str, schema: pa.Schema, columns: Sequence[str]) -> pa.Table:
    """Return columns of a Parquet table, mapped into memory: no process has its own copy of the rows.

    Args:
        uri: the table's file or folder; see `table_files`.
        schema: the schema to which the columns are cast.
        columns: the names of the columns.

    Raises:
        UserError: the table does not exist, or lacks a column.
    """
    path = os.path.join(shared_folder(), f"{fingerprint(uri)[:24]}-{'-'.join(columns)}.arrow")
    if not os.path.exists(path):
        # No lock: two processes may convert the same table at the same time. Each writes a temporary file, and the
        # rename replaces one complete file by an equal one.
        partial = f"{path}.{uuid.uuid4().hex[:8]}.partial"
        try:
            _write_arrow(partial, uri, pa.schema([schema.field(name) for name in columns]))
            os.replace(partial, path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.remove(partial)
    with pa.memory_map(path) as source:
        return pa.ipc.open_file(source).read_all()


def row_numbers(keys: pa.ChunkedArray, table: pa.Table, key: str, what: str) -> np.ndarray:
    """Return for each key the number of the row of `table` that has it, (n,) int64: a join that needs 8 bytes per row.

    Args:
        keys: the keys to look up.
        table: the table to search.
        key: the name of the table's column of keys.
        what: the beginning of the error message's text about missing keys.

    Raises:
        UserError: no row has a key.
    """
    rows = pc.index_in(keys, value_set=table.column(key).combine_chunks())
    if rows.null_count:
        missing = pc.filter(keys, pc.is_null(rows)).slice(0, 3).to_pylist()
        raise UserError(
            f"{rows.null_count} of {len(keys)} {what}, e.g. {missing}; make both tables from the same images."
        )
    return rows.to_numpy().astype(np.int64)


def _write_arrow(path: str, uri: str, schema: pa.Schema) -> None:
    files = table_files(uri)
    if not files:
        raise UserError(f"{uri} has no Parquet files; pass the `path` of the step that made the table.")
    filesystem, _ = storage.resolve(uri)
    source = pads.dataset([storage.resolve(name)[1] for name in files], format="parquet", filesystem=filesystem)
    if missing := set(schema.names) - set(source.schema.names):
        raise UserError(f"The table {uri} lacks the columns {sorted(missing)}; pass a table of the right step.")
    with pa.OSFile(path, "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for batch in source.to_batches(columns=schema.names):
            writer.write_table(pa.Table.from_batches([batch]).select(schema.names).cast(schema))
