"""The pretrain_tiny step: parts are trained once, measured, and stored in half precision."""

import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipelines.core.errors import UserError
from pipelines.core.resources import LaunchConfig
from pipelines.sample_world.backbones.config import PretrainTinyConfig, TagTextSettings
from pipelines.sample_world.backbones.step import pretrain_tiny, to_half_precision
from pipelines.training.config import LoopConfig


def test_a_part_is_trained_measured_and_stored_and_a_second_run_does_nothing(tmp_path: Path) -> None:
    settings = TagTextSettings(
        width=16, feed_forward=16, scenes=8, validation_scenes=4, loop=LoopConfig(steps=2, batch_size=4)
    )
    config = PretrainTinyConfig(
        parts=["tag_encoder"], tag_encoder=settings, launch=LaunchConfig("local"), out=str(tmp_path)
    )

    first, second = pretrain_tiny(config), pretrain_tiny(config)

    kept = Path(str(first.summary["backbones"]))
    assert {"card.json", "CARD.md", "tag_encoder"} <= {path.name for path in kept.iterdir()}
    assert (
        load_file(kept / "tag_encoder" / "model.safetensors")["embeddings.word_embeddings.weight"].dtype == torch.half
    )
    assert "tag_encoder/cosine_positive_untrained" in first.summary
    assert second.skipped
    assert second.path == first.path


@pytest.mark.parametrize(("parts", "complaint"), [(["vision", "hearing"], "no part hearing"), ([], "parts is empty")])
def test_unknown_or_no_parts_are_refused(parts: list[str], complaint: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=complaint):
        pretrain_tiny(dataclasses.replace(PretrainTinyConfig(out=str(tmp_path)), parts=parts))


def test_half_precision_keeps_integers(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"weight": torch.ones(2) / 3, "index": torch.arange(3)}, path, metadata={"format": "pt"})

    to_half_precision(str(tmp_path))

    weights = load_file(path)
    assert weights["weight"].dtype == torch.half
    assert weights["index"].tolist() == [0, 1, 2]
