"""Annotation files are read in pieces, from any file system."""

import json
import tracemalloc
from pathlib import Path

from pipelines.sources.streams import array_elements, json_lines
from tests.pipelines.sources.conftest import Write


def test_an_array_is_never_in_memory_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "large.json"
    entry = json.dumps({"id": 1, "caption": "x" * 200})
    path.write_text(f'{{"images": [{",".join([entry] * 20_000)}]}}')
    size = path.stat().st_size
    tracemalloc.start()
    assert sum(1 for _ in array_elements(str(path), "images")) == 20_000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < size / 4


def test_lines_longer_than_a_read_are_whole(write: Write) -> None:
    rows = [{"text": "y" * 3_000_000}, {"text": "z"}]
    results = [entry for _, entry in json_lines(write(rows, lines=True))]
    assert results == rows


def test_the_last_line_needs_no_line_break(write: Write) -> None:
    assert [number for number, _ in json_lines(write('{"a": 1}\n\n{"a": 2}'))] == [1, 3]
