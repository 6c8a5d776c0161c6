"""Reading and writing of Parquet files: which files belong to a table, equal bytes, and clear errors."""

import ast
from pathlib import Path

import pyarrow as pa
import pytest

from pipelines.core import storage
from pipelines.core.errors import UserError
from pipelines.core.parquet import (
    read_file,
    read_parquet,
    read_schema,
    result_files,
    table_files,
    write_file,
    write_parquet,
)

ROOT = Path(__file__).resolve().parents[3]
TABLE = pa.table({"image_id": ["a", "b"], "uri": ["a.png", "b.png"]})
# Modules that use pyarrow's Parquet reader themselves, each with the reason.
OTHERS = {
    "pipelines/precompute/tag_table.py": "a tag table of the user: any file or folder that pyarrow recognizes",
    "pipelines/sample_world/formats.py": "the file of another project's layout, made in memory",
}


def written(folder: Path, *names: str) -> str:
    for name in names:
        write_file(str(folder / name), TABLE)
    return str(folder)


def test_a_table_is_every_parquet_file_of_a_folder_without_quarantine_and_source(tmp_path: Path) -> None:
    names = ("tagged/part-1.parquet", "tagged/part-0.parquet", "quarantine/part-0.parquet", "source/part-0.parquet")
    folder = written(tmp_path / "source" / "step", *names)  # only folders inside the table count
    files = [name.removeprefix(folder) for name in table_files(folder)]
    assert files == ["/tagged/part-0.parquet", "/tagged/part-1.parquet"]
    assert table_files(f"{folder}/source/part-0.parquet") == [f"{folder}/source/part-0.parquet"]


def test_a_result_is_the_folder_of_its_name_in_a_step_or_the_files_themselves(tmp_path: Path) -> None:
    step = written(tmp_path, "predictions/part-1.parquet", "predictions/part-0.parquet", "scores.parquet")
    inner = [f"{step}/predictions/part-{number}.parquet" for number in range(2)]
    assert result_files(step, "predictions") == result_files(f"{step}/predictions", "predictions") == inner
    assert result_files(f"{step}/scores.parquet", "predictions") == [f"{step}/scores.parquet"]
    assert read_parquet(step, "predictions", ["uri", "absent"]).to_pydict() == {"uri": ["a.png", "b.png"] * 2}


def test_a_missing_or_damaged_result_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="do not exist"):
        result_files(str(tmp_path / "nothing"), "predictions")
    with pytest.raises(UserError, match="no Parquet file of predictions"):
        result_files(str(tmp_path), "predictions")
    (tmp_path / "part-0.parquet").write_bytes(b"no table")
    with pytest.raises(UserError, match="cannot be read as Parquet"):
        read_parquet(str(tmp_path), "predictions")


def test_equal_tables_give_equal_bytes_and_the_entry_of_a_manifest(tmp_path: Path) -> None:
    entry = write_parquet(str(tmp_path), "tagged/part-0.parquet", TABLE)
    digest = write_file(str(tmp_path / "other.parquet"), TABLE)
    assert entry == {"path": "tagged/part-0.parquet", "rows": 2, "sha256": digest}
    assert digest == storage.sha256(str(tmp_path / "tagged/part-0.parquet"))
    assert read_file(str(tmp_path / "other.parquet")).equals(TABLE)
    assert read_schema(str(tmp_path / "other.parquet")) == TABLE.schema


def test_no_other_room_has_a_parquet_reader_or_writer_without_a_reason() -> None:
    users = set()
    for path in (ROOT / "pipelines").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = {alias.name for alias in node.names} if isinstance(node, ast.Import) else set()
            if names & {"pyarrow.parquet", "pyarrow.dataset"}:
                users.add(str(path.relative_to(ROOT)))
    assert {name for name in users if not name.startswith("pipelines/core/")} == set(OTHERS)
