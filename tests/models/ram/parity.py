"""Compare RAM with the reference tensors, for the parity tests and the parity table."""

import json
import os
import re
from collections.abc import Callable
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
TOLERANCE = 2e-5
# Model, case, attention, quantity, worst difference, tolerance, the tensor that differs most.
Row = tuple[str, str, str, str, float, float, str]


def find_cases(golden: Path = GOLDEN) -> list[Path]:
    """Return every folder below ``golden`` with a RAM case: it has the four files, and RAM's fields in meta.json."""
    folders = sorted(path.parent for path in golden.rglob("meta.json"))
    complete = [folder for folder in folders if all((folder / name).exists() for name in FILES)]
    return [folder for folder in complete if {"tag_list", "swin", "q2l"} <= read_meta(folder).keys()]


def read_meta(case: Path) -> dict[str, Any]:
    """Return the content of the case's meta.json."""
    meta: dict[str, Any] = json.loads((case / "meta.json").read_text(encoding="utf-8"))
    return meta


def load_case(case: Path, attention: str) -> tuple[RamForImageTagging, RamProcessor]:
    """Return a model with the weights of the case, and a processor with its lists."""
    meta = read_meta(case)
    released = load_file(case / "state_dict.safetensors")
    config = infer_config(released, meta["swin"]["image_res"], meta["q2l"]["num_attention_heads"])
    state, _ = from_released(released)
    check_placed(state, config)
    model = RamForImageTagging._from_config(config, attn_implementation=attention).eval()
    model.load_state_dict(state)
    return model, RamProcessor(meta["tag_list"], meta["class_threshold"], image_size=config.swin.image_size)


def _module(model: RamForImageTagging, name: str) -> nn.Module | None:
    """Return the module whose output has the name ``name`` in the reference; None if it is not an output."""
    if match := re.fullmatch(r"swin\.stage(\d+)(?:\.block(\d+))?", name):
        block = f".blocks.{match[2]}" if match[2] else ""
        return model.swin.get_submodule(f"encoder.layers.{match[1]}{block}")
    if match := re.fullmatch(r"tagging\.layer(\d+)", name):
        return model.tagging_head.layers[int(match[1])]
    modules = {
        "swin.patch_embed": model.swin.embeddings,
        "image_embeds": model.image_proj,
        "label_embed_proj_before_relu": model.wordvec_proj,
    }
    return modules.get(name)


def observe(model: RamForImageTagging, pixels: Tensor, names: list[str]) -> dict[str, Tensor]:
    """Return the quantities of one forward pass, by their names in the reference."""
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


def wrong_tags(case: Path, processor: RamProcessor, confidences: Tensor) -> dict[str, int]:
    """Return the number of images with other tags than the reference, with all tags and with some deleted.

    Tags are compared in the order of the list, which is the order of the reference.
    """
    meta = read_meta(case)
    differing = {}
    for key in (key for key in meta if re.fullmatch(r"tags(_deleted(_\d+)+)?", key)):
        deleted = [meta["tag_list"][int(index)] for index in re.findall(r"\d+", key)]
        by_image = processor.tags(confidences, threshold="per_tag", exclude=deleted)
        in_list_order = [sorted((tag for tag, _ in row), key=processor.tag_list.index) for row in by_image]
        differing[key] = sum(" | ".join(ours) != theirs for ours, theirs in zip(in_list_order, meta[key], strict=True))
    return differing


def ram_rows(golden: Path = GOLDEN) -> list[Row]:
    """Return a row per compared quantity of every RAM case, under eager and sdpa."""
    rows: list[Row] = []
    for case in find_cases(golden) if golden.is_dir() else []:
        expected = load_file(case / "outputs.safetensors")
        pixels = load_file(case / "inputs.safetensors")["image"]
        for attention in ATTENTION:
            model, processor = load_case(case, attention)
            seen = observe(model, pixels, list(expected))
            worst = {name: (seen[name] - expected[name]).abs().max().item() for name in seen.keys() & expected.keys()}
            activations = sorted(worst.keys() - {"logits", "scores"})
            compared = [("activations", max(activations, key=worst.__getitem__))]
            compared += [(name, name) for name in ("logits", "scores")]
            label = str(case.relative_to(golden))
            rows += [("RAM", label, attention, quantity, worst[at], TOLERANCE, at) for quantity, at in compared]
            for key, count in wrong_tags(case, processor, seen["scores"]).items():
                rows.append(("RAM", label, attention, "tags", float(count), 0.0, key))
    return rows
