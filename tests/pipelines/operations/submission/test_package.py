"""The package of a job: its files, its size limit, and the paths of configuration files."""

import subprocess
from pathlib import Path

import pytest
import yaml

from pipelines.core.errors import UserError
from pipelines.operations.submission.package import make_package, tracked, untracked_code


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Create a small repository with tracked, untracked and ignored files."""
    root = tmp_path / "checkout"
    for name, text in {
        "jobs/verb.py": "print()", "jobs/verb.yaml": "a: 1", "tests/data/big.bin": "x" * 5000,
        ".gitignore": "runs/\n*.bin", "models/kept.bin": "weights", "runs/out.bin": "result",
    }.items():  # fmt: skip
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    for command in (["init", "-q"], ["add", "-f", "jobs", "tests", ".gitignore", "models/kept.bin"]):
        subprocess.run(["git", *command], cwd=root, check=True)
    (root / "jobs/new.py").write_text("")
    return root


def test_only_tracked_files_are_copied_with_their_changes(checkout: Path, tmp_path: Path) -> None:
    (checkout / "jobs/verb.py").write_text("print('changed, not committed')")
    folder = make_package([], tmp_path / "package", checkout).folder
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    # A tracked file that .gitignore lists is copied too. With the .gitignore, Ray would leave it out.
    assert files == {"jobs/verb.py", "jobs/verb.yaml", "models/kept.bin"}
    assert "changed" in (folder / "jobs/verb.py").read_text()
    assert untracked_code(checkout) == ["jobs/new.py"]


def test_beyond_the_limit_the_largest_files_are_named(checkout: Path, tmp_path: Path) -> None:
    (checkout / "models/kept.bin").write_bytes(bytes(3 * 2**20))
    with pytest.raises(UserError, match=r"3\.0 MiB.* may have 1\. The largest are models/kept\.bin \(3\.0 MiB\)"):
        make_package([], tmp_path / "package", checkout, limit=2**20)


def test_a_configuration_file_from_outside_is_copied(checkout: Path, tmp_path: Path) -> None:
    outside = tmp_path / "mine.yaml"
    outside.write_text("a: 2")
    tracked_file = checkout / "jobs/verb.yaml"
    words = ["--config", str(outside), f"--config={tracked_file}", "--file", "s3://lion/a.yaml", "--a=3"]
    package = make_package(words, tmp_path / "package", checkout)
    option, sent, *rest = package.arguments
    assert (option, rest) == ("--config", ["--config=jobs/verb.yaml", "--file", "s3://lion/a.yaml", "--a=3"])
    assert (package.folder / sent).read_text() == "a: 2"


def test_a_configuration_is_sent_with_the_files_that_it_includes(checkout: Path, tmp_path: Path) -> None:
    own, verb = tmp_path / "own.yaml", checkout / "jobs/verb.yaml"
    own.write_text(f"include: {verb}\nb: 2")
    package = make_package(["--config", str(own)], tmp_path / "first", checkout)
    assert yaml.safe_load((package.folder / package.arguments[1]).read_text()) == {"a": 1, "b": 2}

    own.write_text("b: 2")
    verb.write_text(f"include: {own}\na: 3")  # a tracked file that includes another one
    package = make_package([f"--config={verb}"], tmp_path / "second", checkout)
    sent = package.arguments[0].removeprefix("--config=")
    assert sent.startswith("submitted/")
    assert yaml.safe_load((package.folder / sent).read_text()) == {"a": 3, "b": 2}


def test_a_folder_that_is_no_checkout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no git checkout"):
        tracked(tmp_path)
