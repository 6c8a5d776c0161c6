"""A fixture that writes small annotation files."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Return a function that writes a document, text, bytes, or rows as JSON lines, and returns the path."""

    def write_file(content: Any, name: str = "annotations.json", lines: bool = False) -> str:
        path = tmp_path / name
        if lines:
            content = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in content)
        elif not isinstance(content, str | bytes):
            content = json.dumps(content)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write_file
