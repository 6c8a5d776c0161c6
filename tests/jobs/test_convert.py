"""`python -m jobs.convert`: conversions in both directions, and their errors."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from jobs.cli import parse
from models.lion import LionForConditionalGeneration, LionProcessor
from models.ram import RamConfig, RamForImageTagging, RamProcessor
from models.ram.conversion import to_released
from models.tags import TagRule
from pipelines.core.errors import UserError
from pipelines.core.steps import StepResult
from pipelines.operations.conversion import ConvertConfig, convert
from tests.models.lion.golden import Case, lion_cases
from tests.models.lion.test_conversion import released_files

TAGS = ["ant", "bee", "cat"]


def verb(root: Path, *options: object) -> subprocess.CompletedProcess[str]:
    """Run the verb in a separate process, as a user does."""
    command = [sys.executable, "-m", "jobs.convert", *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True, cwd=root)


def here(*options: object) -> StepResult:
    """Run the verb in this process, because importing torch in a new one takes seconds."""
    return convert(parse("convert", ConvertConfig, [str(option) for option in options]))


@pytest.fixture
def released(tmp_path: Path) -> Path:
    """Save a tiny RAM in the released format: a .pth file and two lists."""
    torch.manual_seed(0)
    model = RamForImageTagging(RamConfig.preset("tiny", n_tags=len(TAGS)))
    folder = tmp_path / "released"
    folder.mkdir()
    torch.save({"model": to_released(model.state_dict())}, folder / "ram.pth")
    RamProcessor(TAGS, [0.5, 0.6, 0.7]).write_lists(folder)
    return folder


def lists(folder: Path) -> list[object]:
    return ["--tags", folder / "ram_tag_list.txt", "--thresholds", folder / "ram_tag_list_threshold.txt"]


def test_ram_in_both_directions_and_each_only_once(root: Path, released: Path, tmp_path: Path) -> None:
    there = ["--kind", "ram", "--checkpoint", released / "ram.pth", *lists(released), "--out", tmp_path / "out"]
    done = verb(root, *there)
    assert done.returncode == 0, done.stderr
    first = json.loads(done.stdout.splitlines()[-1])
    assert (first["step"], first["skipped"], first["kind"]) == ("convert", False, "ram")
    folder = Path(first["path"])
    assert RamProcessor.from_pretrained(folder).thresholds == [0.5, 0.6, 0.7]
    assert here(*there).skipped

    file = tmp_path / "back" / "ram.pth"
    back = ["--kind", "ram", "--back", "--checkpoint", folder, "--out", file]
    again = here(*back)
    assert (again.path, again.skipped, again.summary["rows"]) == (str(file), False, first["rows"])
    original = torch.load(released / "ram.pth", weights_only=True)["model"]
    returned = torch.load(file, weights_only=True)["model"]
    assert original.keys() == returned.keys()
    assert all(original[key].equal(returned[key]) for key in original)
    assert here(*back).skipped

    file.write_bytes(b"a user's file")
    with pytest.raises(UserError, match="remove it or rename --out"):
        here(*back)
    assert file.read_bytes() == b"a user's file"


@pytest.mark.skipif(not lion_cases(), reason="needs ../shared/golden or $LION_GOLDEN")
def test_lion_in_both_directions(tmp_path: Path) -> None:
    case = Case(lion_cases()[0])
    files = released_files(case, tmp_path)
    assert case.tokenizers is not None
    paths = {**files, "tokenizer": case.tokenizers / "t5", "qformer_tokenizer": case.tokenizers / "bert"}
    options = [word for name, path in paths.items() for word in (f"--{name}", path)]
    done = here("--kind", "lion", *options, "--out", tmp_path / "out")
    assert done.summary["kind"] == "lion"
    LionForConditionalGeneration.from_pretrained(done.path)
    assert LionProcessor.from_pretrained(done.path).threshold is None  # decided by the caller
    RamProcessor(TAGS, [0.5, 0.6, 0.7]).write_lists(tmp_path)
    listed = here("--kind", "lion", *options, *lists(tmp_path), "--out", tmp_path / "out")
    own = {tag: value for tag, value in zip(TAGS, [0.5, 0.6, 0.7], strict=True)}
    assert LionProcessor.from_pretrained(listed.path).rule == TagRule(40, "per_tag", "list", own)
    here("--kind", "lion", "--back", "--checkpoint", done.path, "--out", tmp_path / "back.pth")
    original = torch.load(files["checkpoint"], weights_only=True)["model"]
    returned = torch.load(tmp_path / "back.pth", weights_only=True)["model"]
    assert returned.keys() <= original.keys()  # the original also has aliases and buffers
    assert all(returned[key].equal(original[key]) for key in returned)


def test_dtype_is_written(released: Path, tmp_path: Path) -> None:
    options = ["--kind", "ram", "--checkpoint", released / "ram.pth", *lists(released), "--out", tmp_path]
    path = here(*options, "--dtype", "bfloat16").path
    assert RamForImageTagging.from_pretrained(path).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--kind", "ram"], r"also needs --tags\."),
        (["--kind", "lion"], r"also needs --llm, --tokenizer, --vit\."),
        (["--kind", "ram", "--tags", "t.txt", "--vit", "v.pth"], "does not read --vit"),
        (["--kind", "lion", "--vit", "v", "--llm", "l", "--tokenizer", "t", "--thresholds", "t.txt"], "without --tags"),
        (["--kind", "ram", "--back", "--tags", "t.txt"], "does not read --tags"),
        (["--kind", "ram", "--back", "--dtype", "float16"], "leave --dtype out"),
        (["--kind", "ram", "--back", "--out", "s3://bucket/x"], "writes a local file"),
        (["--kind", "ram", "--tags", "missing.txt"], "does not exist"),
    ],
)
def test_options_that_cannot_work_are_a_user_error(released: Path, options: list[str], complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        here("--checkpoint", released / "ram.pth", *options)


def test_a_checkpoint_that_does_not_fit_publishes_nothing(released: Path, tmp_path: Path) -> None:
    state = torch.load(released / "ram.pth", weights_only=True)["model"]
    del state["fc.bias"]
    torch.save({"model": state}, released / "ram.pth")
    with pytest.raises(UserError, match=r"missing fc\.bias"):
        here("--kind", "ram", "--checkpoint", released / "ram.pth", *lists(released), "--out", tmp_path / "out")
    assert not list((tmp_path / "out").rglob("manifest.json"))


def test_the_yaml_file_of_the_verb_is_read(root: Path) -> None:
    done = verb(root, "--config", "jobs/convert.yaml", "--checkpoint", "nowhere.pth")
    assert done.returncode == 2
    assert "nowhere.pth does not exist" in done.stderr
