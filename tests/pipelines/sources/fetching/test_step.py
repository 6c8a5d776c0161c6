"""`fetch` with a server that fails, a mirror, an offline folder, and files that the user put there."""

import dataclasses
import hashlib
import io
import json
import random
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.core.errors import UserError
from pipelines.sources.fetching import download as downloads
from pipelines.sources.fetching.catalog import Entry
from pipelines.sources.fetching.step import RECORD, FetchConfig, fetch
from tests.pipelines.sources.fetching.server import Home, serve

CONTENT = random.Random(0).randbytes(3_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def home() -> Iterator[Home]:
    with serve(Home({"/w.bin": CONTENT})) as opened:
        yield opened


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the pauses between tries."""
    monkeypatch.setattr(downloads.time, "sleep", lambda seconds: None)


def entries(home: Home, **fields: object) -> dict[str, Entry]:
    properties = {"size": len(CONTENT), "sha256": SHA256, **fields}
    return {"w": Entry("w", "weights/w.bin", (f"{home.address}/w.bin",), "MIT", ("weights",), **properties)}  # type: ignore[arg-type]


def config(out: Path, **fields: object) -> FetchConfig:
    return FetchConfig(names=["weights"], out=str(out), **fields)  # type: ignore[arg-type]


def test_a_download_that_breaks_is_resumed(home: Home, tmp_path: Path) -> None:
    home.breaks, home.refuses = [1_200_000, 900_000], 1
    result = fetch(config(tmp_path), entries(home))
    assert (tmp_path / "weights/w.bin").read_bytes() == CONTENT
    assert home.ranges_seen[:2] == [None, None]
    offsets = [int(span.removeprefix("bytes=").rstrip("-")) for span in home.ranges_seen[2:] if span]
    assert offsets == [1_200_000, 2_100_000]
    assert (result.skipped, result.summary["fetched"], result.summary["bytes"]) == (False, 1, len(CONTENT))
    assert [path.name for path in (tmp_path / "weights").iterdir()] == ["w.bin"]
    again = fetch(config(tmp_path), entries(home))
    assert again.skipped
    assert len(home.ranges_seen) == 4


def test_a_killed_download_is_continued_by_the_next_run(home: Home, tmp_path: Path) -> None:
    home.breaks = [1_000_000, 0, 0]
    with pytest.raises(UserError, match=r"failed 2 times in a row(.|\n)*put it at"):
        fetch(config(tmp_path, tries=2), entries(home))
    assert (tmp_path / "weights/w.bin.part").stat().st_size == 1_000_000
    assert not (tmp_path / "weights/w.bin").exists()
    fetch(config(tmp_path), entries(home))
    assert home.ranges_seen[-1] == "bytes=1000000-"
    assert (tmp_path / "weights/w.bin").read_bytes() == CONTENT


def test_a_file_that_changed_meanwhile_is_not_joined(home: Home, tmp_path: Path) -> None:
    home.breaks = [1_000_000, 0, 0]
    with pytest.raises(UserError):
        fetch(config(tmp_path, tries=2), entries(home))
    home.tag, home.files["/w.bin"] = '"two"', CONTENT[::-1]
    fetch(config(tmp_path), entries(home, sha256=None))
    assert (tmp_path / "weights/w.bin").read_bytes() == CONTENT[::-1]


def test_a_server_without_ranges_starts_anew(home: Home, tmp_path: Path) -> None:
    home.breaks, home.ranges = [1_000_000], False
    fetch(config(tmp_path), entries(home))
    assert (tmp_path / "weights/w.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("wrong", [{"sha256": "0" * 64}, {"size": 5}])
def test_another_file_than_the_published_one_is_deleted(home: Home, tmp_path: Path, wrong: dict[str, object]) -> None:
    with pytest.raises(UserError, match=r"sha256 is|are published"):
        fetch(config(tmp_path), entries(home, **wrong))
    assert not list((tmp_path / "weights").iterdir())


def test_an_unknown_digest_is_recorded_and_required_later(home: Home, tmp_path: Path) -> None:
    unknown = entries(home, size=None, sha256=None)
    fetch(config(tmp_path), unknown)
    assert json.loads((tmp_path / RECORD).read_text())["weights/w.bin"]["sha256"] == SHA256
    (tmp_path / "weights/w.bin").write_bytes(b"x" * len(CONTENT))
    with pytest.raises(UserError, match="is another file"):
        fetch(config(tmp_path, verify=True), unknown)
    (tmp_path / "weights/w.bin").unlink()
    home.files["/w.bin"] = CONTENT[::-1]
    with pytest.raises(UserError, match="sha256 is"):
        fetch(config(tmp_path), unknown)


def test_a_file_put_there_by_hand_counts(home: Home, tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights/w.bin").write_bytes(CONTENT)
    assert fetch(config(tmp_path), entries(home)).skipped
    assert home.ranges_seen == []


def test_a_folder_replaces_the_network(home: Home, tmp_path: Path) -> None:
    (tmp_path / "mirror/weights").mkdir(parents=True)
    (tmp_path / "mirror/weights/w.bin").write_bytes(CONTENT)
    fetch(config(tmp_path / "out", mirror=str(tmp_path / "mirror"), offline=True), entries(home))
    assert (tmp_path / "out/weights/w.bin").read_bytes() == CONTENT
    assert home.ranges_seen == []
    with pytest.raises(UserError, match="does not exist"):
        fetch(config(tmp_path / "two", mirror=str(tmp_path), offline=True), entries(home))


def test_a_web_mirror_is_tried_before_the_public_address(home: Home, tmp_path: Path) -> None:
    with serve(Home({"/m/weights/w.bin": CONTENT})) as mirror:
        fetch(config(tmp_path / "a", mirror=f"{mirror.address}/m"), entries(home))
        assert home.ranges_seen == []
        fetch(config(tmp_path / "b", mirror=f"{mirror.address}/wrong"), entries(home))
    assert (tmp_path / "b/weights/w.bin").read_bytes() == CONTENT
    assert len(home.ranges_seen) == 1


def test_hf_endpoint_replaces_the_address_of_the_hub(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = entries(home)
    hub["w"] = dataclasses.replace(hub["w"], urls=("https://huggingface.co/w.bin", f"{home.address}/other"))
    monkeypatch.setenv("HF_ENDPOINT", f"{home.address}/")
    fetch(config(tmp_path), hub)
    assert json.loads((tmp_path / RECORD).read_text())["weights/w.bin"]["from"] == f"{home.address}/w.bin"


def test_a_file_that_is_not_available_does_not_stop_the_others(home: Home, tmp_path: Path) -> None:
    both = entries(home)
    both = {"lost": dataclasses.replace(both["w"], name="lost", path="l.bin", urls=(f"{home.address}/no",))} | both
    with pytest.raises(UserError, match=r"1 of 2 files are not available(.|\n)*answers 404"):
        fetch(config(tmp_path), both)
    assert (tmp_path / "weights/w.bin").exists()


def test_too_little_space_is_reported_before_the_download(home: Home, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="files need at least"):
        fetch(config(tmp_path), entries(home, size=10**18))
    assert home.ranges_seen == []


def _zip(names: list[str]) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        for name in names:
            archive.writestr(name, "x")
    return sink.getvalue()


def _tar(names: list[str]) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w:gz") as archive:
        for name in names:
            archive.addfile(tarfile.TarInfo(name))
    return sink.getvalue()


@pytest.mark.parametrize("pack", [_zip, _tar])
def test_archives_are_unpacked_completely_and_inside_their_folder(home: Home, tmp_path: Path, pack: object) -> None:
    home.files["/w.bin"] = pack(["a/b.json"])  # type: ignore[operator]
    packed = entries(home, size=None, sha256=None, unpack="w")
    fetch(config(tmp_path / "good"), packed)
    assert (tmp_path / "good/w/a/b.json").exists()
    assert fetch(config(tmp_path / "good"), packed).skipped
    home.files["/w.bin"] = pack(["fine.json", "../../evil.json"])  # type: ignore[operator]
    with pytest.raises(UserError, match=r"evil|unpacked"):
        fetch(config(tmp_path / "bad"), packed)
    assert not (tmp_path / "bad/w").exists()
    assert not list(tmp_path.rglob("evil.json"))


def test_an_archive_of_one_folder_becomes_that_folder(home: Home, tmp_path: Path) -> None:
    home.files["/w.bin"] = _zip(["refcoco/instances.json", "__MACOSX/refcoco/._instances.json"])
    fetch(config(tmp_path), entries(home, size=None, sha256=None, unpack="refer/refcoco"))
    assert [path.name for path in (tmp_path / "refer").iterdir()] == ["refcoco"]
    assert [path.name for path in (tmp_path / "refer/refcoco").iterdir()] == ["instances.json"]


def test_the_list_shows_which_files_exist(home: Home, tmp_path: Path) -> None:
    lines = fetch(FetchConfig(list=True, out=str(tmp_path)), entries(home)).lines
    assert lines[0].startswith("name\tsize")
    assert lines[1].split("\t")[:4] == ["w", str(len(CONTENT)), SHA256, "MIT"]
    assert "no" in lines[1].split("\t")
    assert home.ranges_seen == []


@pytest.mark.parametrize(
    ("change", "complaint"),
    [({"names": []}, "names is empty"), ({"out": "s3://b/x"}, "local or mounted"), ({"tries": 0}, "at least 1")],
)
def test_mistakes_are_reported(home: Home, tmp_path: Path, change: dict[str, object], complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        fetch(dataclasses.replace(config(tmp_path), **change), entries(home))  # type: ignore[arg-type]
