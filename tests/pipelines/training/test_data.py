"""Tables that the workers of a machine share by memory mapping, and micro-batches of similar length."""

import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch

from pipelines.core.errors import UserError
from pipelines.core.local_tables import open_table, row_numbers
from pipelines.core.tables import INSTRUCTIONS, to_table
from pipelines.training.config import LoopConfig, TrainStageConfig
from pipelines.training.context import Context
from pipelines.training.data import Lengths, Loader
from pipelines.training.order import SampleOrder
from pipelines.training.stage import StageTask
from tests.pipelines.training.conftest import World

COLUMNS = ("sample_id", "instruction")


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the path of some megabytes of instructions; shared files go to a temporary folder of the test."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    rows = [
        {"sample_id": f"vqa-{number}", "image_id": f"image-{number}", "task": "vqa", "level": "image",
         "instruction": f"What is at place {number}? " * 8, "answers": ["a dog"]}
        for number in range(20_000)
    ]  # fmt: skip
    pq.write_table(to_table(rows, INSTRUCTIONS), tmp_path / "instructions.parquet")
    return str(tmp_path / "instructions.parquet")


def mapped(path: Path) -> dict[str, int]:
    """Return the KiB of this process's mapping of a file, by the kernel's kinds of memory."""
    sizes: dict[str, int] = {}
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first, *rest = line.split()
        if not first.endswith(":"):
            inside = line.endswith(path.name)
        elif inside and rest[-1:] == ["kB"]:
            sizes[first[:-1]] = sizes.get(first[:-1], 0) + int(rest[0])
    return sizes


def test_a_table_is_mapped_and_not_copied(table: str, tmp_path: Path) -> None:
    open_table(table, INSTRUCTIONS, COLUMNS)  # writes the file
    (shared,) = tmp_path.glob("*/*.arrow")
    written, before = shared.stat(), pa.total_allocated_bytes()
    opened = open_table(table, INSTRUCTIONS, COLUMNS)
    assert pc.sum(pc.utf8_length(opened["instruction"])).as_py() > 3_000_000  # reads every page
    assert opened.nbytes > 3_000_000
    assert pa.total_allocated_bytes() - before < 0.01 * opened.nbytes
    assert shared.stat().st_mtime_ns == written.st_mtime_ns, "the second process sizes the first one's"
    pages = mapped(shared)
    assert pages["Rss"] * 1024 >= 0.9 * opened.nbytes
    assert pages["Anonymous"] == 0, "pages of its own"


def test_what_cannot_be_joined_is_said(table: str) -> None:
    opened = open_table(table, INSTRUCTIONS, COLUMNS)
    keys = pa.chunked_array([["vqa-7", "vqa-0"]])
    assert row_numbers(keys, opened, "sample_id", "ids").tolist() == [7, 0]
    with pytest.raises(UserError, match=r"1 of 2 ids, e\.g\. \['nobody'\]"):
        row_numbers(pa.chunked_array([["vqa-7", "nobody"]]), opened, "sample_id", "ids")
    with pytest.raises(UserError, match="lacks"):
        open_table(table, pa.schema([("tags", pa.string())]), ("tags",))


@pytest.mark.parametrize("workers", [1, 2])
def test_micro_batches_are_of_like_length_and_each_step_keeps_its_samples(
    world: World, lion: str, workers: int
) -> None:
    settings = TrainStageConfig("", "", "", stage=3, validation_fraction=0.0, loop=LoopConfig(batch_size=12))
    data = StageTask(settings, world.instructions, world.tagged, lion, None, ()).data()
    assert isinstance(data, Lengths)
    order = SampleOrder(data.pools, data.ratios, 12, 0)
    length_of = {data.load(draw).sample_id: data.length(draw) for step in range(3) for draw in order.batch(step)}
    devices = [Context(rank, workers, torch.device("cpu")) for rank in range(workers)]
    shares = [list(Loader(data, order, context, 3, 36, 1, 1).steps(0, 3)) for context in devices]
    for step in range(3):
        drawn = sorted(data.load(draw).sample_id for draw in order.batch(step))
        assert sorted(name for share in shares for name in share[step].ids) == drawn
        parts = [[name for share in shares for name in share[step].micro_batches[part].ids] for part in range(3)]
        lengths = [[length_of[name] for name in names] for names in parts]
        assert [length for part in lengths for length in sorted(part)] == sorted(length_of[name] for name in drawn)
        assert lengths[0] != lengths[-1]
