"""What RAM gives against the reference tensors, for the parity tests and the parity table."""

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from models.ram import RamForImageTagging, RamProcessor
from models.ram.conversion import check_placed, from_released, infer_config

GOLDEN = Path(os.environ.get("LION_GOLDEN", Path(__file__).resolve().parents[4] / "shared" / "golden"))
FILES = ("meta.json", "state_dict.safetensors", "inputs.safetensors", "outputs.safetensors")
ATTENTION = ("eager", "sdpa")


def find_cases(golden: Path = GOLDEN) -> list[Path]:
    """Every folder below ``golden`` that holds a RAM case, known by its file names and RAM's fields in meta.json."""
    folders = sorted(path.parent for path in golden.rglob("meta.json"))
    complete = [folder for folder in folders if all((folder / name).exists() for name in FILES)]
    return [folder for folder in complete if {"tag_list", "swin", "q2l"} <= read_meta(folder).keys()]


def read_meta(case: Path) -> dict[str, Any]:
    """The case's meta.json."""
    meta: dict[str, Any] = json.loads((case / "meta.json").read_text(encoding="utf-8"))
    return meta


def load_case(case: Path, attention: str) -> tuple[RamForImageTagging, RamProcessor]:
    """The case's weights in our model, and its lists in our processor."""
    meta = read_meta(case)
    released = load_file(case / "state_dict.safetensors")
    config = infer_config(released, meta["swin"]["image_res"], meta["q2l"]["num_attention_heads"])
    state, _ = from_released(released)
    check_placed(state, config)
    model = RamForImageTagging._from_config(config, attn_implementation=attention).eval()
    model.load_state_dict(state)
    return model, RamProcessor(meta["tag_list"], meta["class_threshold"], image_size=config.swin.image_size)


def _module(model: RamForImageTagging, name: str) -> nn.Module | None:
    """The module whose output the reference calls ``name``; None where it is no module's output."""
    if found := re.fullmatch(r"swin\.stage(\d+)(?:\.block(\d+))?", name):
        block = f".blocks.{found[2]}" if found[2] else ""
        return model.swin.get_submodule(f"encoder.layers.{found[1]}{block}")
    if found := re.fullmatch(r"tagging\.layer(\d+)", name):
        return model.tagging_head.layers[int(found[1])]
    known = {
        "swin.patch_embed": model.swin.embeddings,
        "image_embeds": model.image_proj,
        "label_embed_proj_before_relu": model.wordvec_proj,
    }
    return known.get(name)


def observe(model: RamForImageTagging, pixels: Tensor, names: list[str]) -> dict[str, Tensor]:
    """One forward pass; the reference's quantities by their names."""
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            seen[name] = output[0] if isinstance(output, tuple) else output

        return hook

    def keep_input(module: nn.Module, inputs: Any) -> None:
        seen["swin.out_cls_then_patches"] = inputs[0]

    handles = [model.image_proj.register_forward_pre_hook(keep_input)]
    for name in names:
        if (module := _module(model, name)) is not None:
            handles.append(module.register_forward_hook(keep(name)))
    with torch.no_grad():
        seen["logits"] = model(pixels).logits
    for handle in handles:
        handle.remove()
    seen["scores"] = model.confidences(pixels)
    return seen


@dataclass(frozen=True)
class ParityRow:
    """One quantity: the worst absolute difference and the largest absolute value of the reference."""

    case: str
    attention: str
    quantity: str
    difference: float
    magnitude: float


def parity_rows(golden: Path = GOLDEN) -> list[ParityRow]:
    """Every compared quantity of every RAM case, under eager and sdpa; rows of the parity table."""
    rows = []
    for case in find_cases(golden):
        expected = load_file(case / "outputs.safetensors")
        pixels = load_file(case / "inputs.safetensors")["image"]
        for attention in ATTENTION:
            model, _ = load_case(case, attention)
            seen = observe(model, pixels, list(expected))
            for name in sorted(seen.keys() & expected.keys()):
                reference = expected[name]
                difference = (seen[name].float() - reference).abs().max().item()
                label = str(case.relative_to(golden))
                rows.append(ParityRow(label, attention, name, difference, reference.abs().max().item()))
    return rows
