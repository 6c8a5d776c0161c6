"""Storage: atomic writes, absolute paths, and retries of transient errors."""

import os
from pathlib import Path

import pytest

from pipelines.core import storage
from pipelines.core.errors import UserError
from pipelines.sources.images import read_image_bytes
from tests.faults.services import ObjectStore


def test_a_failed_write_leaves_only_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "a.json"
    storage.write_json(str(target), {"kept": True})

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        storage.write_json(str(target), {"kept": False})
    assert storage.read_json(str(target)) == {"kept": True}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_paths_become_independent_of_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert storage.absolute("runs/a") == str(tmp_path / "runs/a")
    assert storage.absolute("file:///data/a") == "/data/a"
    assert storage.absolute("s3://bucket/a/") == "s3://bucket/a"


def test_files_are_listed_in_order_by_suffix(tmp_path: Path) -> None:
    for name in ("b/2.parquet", "a.parquet", "b/note.txt"):
        storage.write_atomic(storage.join(str(tmp_path), name), b"")
    assert storage.list_files(str(tmp_path), ".parquet") == [f"{tmp_path}/a.parquet", f"{tmp_path}/b/2.parquet"]
    assert storage.list_files(str(tmp_path / "missing")) == []


def test_an_unknown_scheme_is_refused_with_the_supported_ones() -> None:
    with pytest.raises(UserError, match="s3://bucket"):
        storage.exists("gopher://hole/file")


def test_transient_errors_are_retried_and_others_are_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[str] = []
    monkeypatch.setattr(storage.time, "sleep", lambda seconds: None)

    @storage.retry_transient
    def ask(uri: str) -> str:
        if answers:
            raise OSError(answers.pop(0))
        return "well"

    answers[:] = ["AWS Error UNKNOWN (HTTP status 503) during HeadObject", "AWS Error SLOW_DOWN during PutObject",
                  "AWS Error NETWORK_CONNECTION during GetObject: curlCode: 7"]  # fmt: skip
    assert ask("s3://bucket/a") == "well"
    for uri, message in (("s3://bucket/a", "AWS Error ACCESS_DENIED (HTTP status 403)"), ("/a", "HTTP status 503")):
        answers[:] = [message]
        with pytest.raises(OSError, match=r"HTTP status") as caught:
            ask(uri)
        assert not isinstance(caught.value, storage.Unavailable)


def test_a_failing_object_store_is_reported_and_is_not_a_bad_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ObjectStore("store")
    try:
        for name, value in store.environment.items():
            monkeypatch.setenv(name, value)
        storage.write_atomic("s3://store/a.jpg", b"content")
        assert read_image_bytes("s3://store/a.jpg") == b"content"
        store.failing.set()
        with storage.patience(0), pytest.raises(storage.Unavailable, match="run the same command again"):
            read_image_bytes("s3://store/a.jpg")
        with storage.patience(0), pytest.raises(storage.Unavailable, match=r"s3://store/a\.jpg"):
            storage.copy_file("s3://store/a.jpg", str(tmp_path / "a.jpg"))
    finally:
        store.close()
