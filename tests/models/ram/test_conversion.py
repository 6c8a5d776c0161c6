"""Released RAM checkpoints convert to a folder of this project and back."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from models.checkpoint_files import read_state_dict
from models.ram import RamConfig, RamForImageTagging, RamProcessor
from models.ram.conversion import (
    check_placed,
    convert_ram,
    export_ram,
    from_released,
    ignored_reason,
    infer_config,
    to_released,
)

TAGS = [f"tag {i}" for i in range(7)]


@pytest.fixture
def released() -> dict[str, Tensor]:
    """Return a tiny released state dict with one key of each kind that is left out."""
    torch.manual_seed(0)
    state = to_released(RamForImageTagging(RamConfig.preset("tiny", n_tags=len(TAGS))).state_dict())
    extras = [
        "text_decoder.bert.embeddings.word_embeddings.weight",
        "tag_encoder.encoder.layer.0.crossattention.self.query.weight",
        "visual_encoder.layers.0.blocks.0.attn.relative_position_index",
        "visual_encoder.layers.0.blocks.1.attn_mask",
        "tagging_head.embeddings.word_embeddings.weight",
        "tagging_head.encoder.layer.0.attention.self.query.weight",
    ]
    return state | {key: torch.zeros(1) for key in extras}


@pytest.fixture
def lists(tmp_path: Path) -> tuple[Path, Path]:
    tags, thresholds = tmp_path / "tags.txt", tmp_path / "thresholds.txt"
    tags.write_text("\n".join(TAGS))
    thresholds.write_text("\n".join(["0.65"] * 6 + ["1"]))
    return tags, thresholds


def save(state: Any, path: Path) -> Path:
    torch.save(state, path)
    return path


def test_every_key_of_the_real_checkpoint_is_placed_or_left_out_for_a_reason(shared: Path) -> None:
    keys = json.loads((shared / "golden/ram_swin_large_keys.json").read_text())["keys"]
    real = {key: torch.empty(entry["shape"], device="meta") for key, entry in keys.items()}
    config = infer_config(real)
    assert (config.swin.image_size, config.swin.depths, config.n_tags) == (384, [2, 2, 18, 2], 4585)
    state, ignored = from_released(real)
    check_placed(state, config)
    # Left out is what tagging does not read, and buffers.
    assert ignored.keys() == {k for k, e in keys.items() if not e["used_by_generate_tag"] or e["buffer"]}
    back = to_released(state)
    assert {k: tuple(t.shape) for k, t in back.items()} == {
        k: tuple(t.shape) for k, t in real.items() if k not in ignored
    }
    with torch.device("meta"):
        built = RamForImageTagging(RamConfig.preset("swin_large"))
    assert {k: t.shape for k, t in built.state_dict().items()} == {k: t.shape for k, t in state.items()}
    assert sum(p.numel() for p in built.parameters()) == 212117045


def test_golden_checkpoint_survives_both_ways(shared: Path, tmp_path: Path) -> None:
    case = shared / "golden/ram"
    lists = case / "assets/data"
    report = convert_ram(
        case / "state_dict.safetensors",
        lists / "ram_tag_list.txt",
        lists / "ram_tag_list_threshold.txt",
        tmp_path / "ours",
    )
    expected = load_file(case / "outputs.safetensors")["scores"]
    pixels = load_file(case / "inputs.safetensors")["image"]
    confidences = RamForImageTagging.from_pretrained(tmp_path / "ours").confidences(pixels)
    torch.testing.assert_close(confidences, expected, atol=2e-5, rtol=0)
    assert report["tags"] == 20
    export_ram(tmp_path / "ours", tmp_path / "back/ram.pth")
    back, original = read_state_dict(tmp_path / "back/ram.pth"), read_state_dict(case / "state_dict.safetensors")
    assert back.keys() == {key for key in original if ignored_reason(key) is None}
    assert all(back[key].equal(original[key]) for key in back)
    assert len(back) == report["placed"]
    assert (tmp_path / "back/ram_tag_list.txt").read_text().split("\n")[0] == "airport"


def test_a_pth_file_becomes_a_folder_with_its_lists(
    released: dict[str, Tensor], lists: tuple[Path, Path], tmp_path: Path
) -> None:
    report = convert_ram(save({"model": released}, tmp_path / "ram.pth"), *lists, tmp_path / "out")
    assert sum(report["ignored"].values()) == 6
    assert len(report["ignored"]) == 6
    processor = RamProcessor.from_pretrained(tmp_path / "out")
    assert processor.tag_list == TAGS
    assert processor.thresholds[-1] == 1.0
    assert processor.image_size == 48
    model = RamForImageTagging.from_pretrained(tmp_path / "out")
    assert to_released(model.state_dict())["fc.weight"].equal(released["fc.weight"])


def test_the_older_name_of_the_head_is_read(released: dict[str, Tensor]) -> None:
    renamed = {key.replace("tagging_head.", "vision_multi."): tensor for key, tensor in released.items()}
    config = infer_config(renamed)
    state, _ = from_released(renamed)
    check_placed(state, config)


def test_the_requested_dtype_is_saved(released: dict[str, Tensor], lists: tuple[Path, Path], tmp_path: Path) -> None:
    checkpoint = save({"model": released}, tmp_path / "ram.pth")
    convert_ram(checkpoint, lists[0], None, tmp_path / "out", dtype=torch.bfloat16)
    assert RamForImageTagging.from_pretrained(tmp_path / "out").dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda s: s.pop("fc.weight"), r"missing fc\.weight"),
        (lambda s: s.pop("label_embed"), "lacks 'label_embed'"),
        (lambda s: s.update({"fc.extra": torch.zeros(1)}), r"unexpected fc\.extra"),
        (lambda s: s.update({"fc.bias": torch.zeros(2)}), r"fc\.bias is \(2,\) instead of \(1,\)"),
    ],
)
def test_a_key_out_of_place_is_named(
    released: dict[str, Tensor],
    lists: tuple[Path, Path],
    tmp_path: Path,
    change: Callable[[dict[str, Tensor]], Any],
    complaint: str,
) -> None:
    change(released)
    with pytest.raises(ValueError, match=complaint):
        convert_ram(save({"model": released}, tmp_path / "ram.pth"), *lists, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_list_of_another_length_is_refused(
    released: dict[str, Tensor], lists: tuple[Path, Path], tmp_path: Path
) -> None:
    lists[0].write_text("only one")
    with pytest.raises(ValueError, match="1 tags, but the checkpoint's head has 7"):
        convert_ram(save({"model": released}, tmp_path / "ram.pth"), *lists, tmp_path / "out")


class Hostile:
    """An object that writes a file when pickle loads it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("writer", ["torch", "pickle"])
def test_a_hostile_pickle_is_refused_and_does_nothing(tmp_path: Path, writer: str) -> None:
    trace, checkpoint = tmp_path / "trace", tmp_path / "ram.pth"
    if writer == "torch":
        torch.save({"model": {"fc.weight": Hostile(trace)}}, checkpoint)
    else:
        checkpoint.write_bytes(pickle.dumps({"model": Hostile(trace)}))
    with pytest.raises(ValueError, match="contains other objects than tensors"):
        read_state_dict(checkpoint)
    assert not trace.exists()
