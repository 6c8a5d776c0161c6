"""The card of the tiny backbones: how they were made, their data, sizes, training time and measurements."""

import json
import os
from collections.abc import Callable, Mapping
from typing import Any

from pipelines.core import storage
from pipelines.core.steps import canonical, git_commit, versions
from pipelines.sample_world.backbones import quality
from pipelines.sample_world.backbones.config import PretrainTinyConfig
from pipelines.sample_world.backbones.world import HELD_OUT_SEED

CARD = "card.json"
COMMAND = "python -m jobs.pretrain_tiny --out runs"
_TITLES = {
    "vision": "ViT (`InstructBlipVisionModel`): accuracy of linear probes on patches that show an object",
    "language": "T5 (`T5ForConditionalGeneration`): accuracy with scenes described as a list or a grid of phrases",
    "tagger": "RAM (`RamForImageTagging`): all tags, at a confidence threshold of 0.5",
    "tag_encoder": "BERT (`BertModel`), from which a tag encoder starts",
}


def write_card(backbones: str, config: PretrainTinyConfig, seconds: Mapping[str, float]) -> dict[str, Any]:
    """Measure the backbones of a folder on held-out scenes, and write `card.json`, `CARD.md` and `reliability.png`.

    Args:
        backbones: folder with a subfolder for each part.
        config: configuration of the pre-training.
        seconds: training time of each part.

    Returns:
        The content of `card.json`.
    """
    measured = {part: _MEASURES[part](os.path.join(backbones, part), config) for part in config.parts}
    card = {
        "command": COMMAND,
        "git_commit": git_commit(),
        "versions": versions(),
        "cores": os.cpu_count(),
        "seed": config.seed,
        "parameters": {part: count_parameters(os.path.join(backbones, part)) for part in config.parts},
        "bytes": sum(os.path.getsize(name) for name in storage.list_files(backbones)),
        "seconds": {part: round(value, 1) for part, value in seconds.items()},
        "quality": measured,
        "settings": {part: canonical(getattr(config, part)) for part in config.parts},
    }
    with open(os.path.join(backbones, CARD), "w", encoding="utf-8") as stream:
        json.dump(card, stream, indent=1, ensure_ascii=False)
        stream.write("\n")
    with open(os.path.join(backbones, "CARD.md"), "w", encoding="utf-8") as stream:
        stream.write(card_text(card, config))
    return card


def count_parameters(folder: str) -> int:
    """Count the parameters in the weights file of a folder."""
    from safetensors import safe_open

    with safe_open(os.path.join(folder, "model.safetensors"), framework="pt") as stream:
        sizes = [stream.get_slice(name).get_shape() for name in stream.keys()]  # noqa: SIM118 (a handle, not a dict)
    total = 0
    for size in sizes:
        count = 1
        for extent in size:
            count *= extent
        total += count
    return total


def card_text(card: Mapping[str, Any], config: PretrainTinyConfig) -> str:
    """Return the card as a Markdown page.

    Args:
        card: content of `card.json`. Its `note`, in Markdown, replaces the line that names command and commit: weights
            that several runs made need it.
        config: configuration of the pre-training.
    """
    origin = (
        f"Made by `{card['command']}` at commit {card['git_commit']}, seed {card['seed']}, on {card['cores']} cores."
    )
    lines = [
        "# Tiny backbones pre-trained on the sample world",
        "",
        *card.get("note", origin).split("\n"),
        "",
        "The backbones are for laptops, CI and tests, which have no released weights. The weights are stored as",
        "float16 and run in float32. The numbers below were measured after loading them, on held-out scenes of the",
        "preset `tiny`.",
        "",
        "| part | parameters | seconds | data |",
        "|---|---|---|---|",
    ]
    for part in config.parts:
        data = " ".join((type(getattr(config, part)).__doc__ or "").split())
        lines.append(f"| {part} | {card['parameters'][part]:,} | {card['seconds'][part]:,.0f} | {data} |")
    for part in config.parts:
        lines += ["", f"## {_TITLES[part]}", "", "| measure | value |", "|---|---|"]
        lines += [f"| {name.replace('_', ' ')} | {value:.3f} |" for name, value in card["quality"][part].items()]
        if part == "tagger":
            lines += ["", "![reliability](reliability.png)"]
    return "\n".join(lines) + "\n"


def _tagger(folder: str, config: PretrainTinyConfig) -> dict[str, float]:
    """Measure the tagger, and write its thresholds, which are chosen on other held-out scenes, to its folder."""
    from models.ram import RamProcessor

    tuning = quality.tag_held_out(folder, scenes=1024, seed=HELD_OUT_SEED + 1)
    processor = RamProcessor.from_pretrained(folder)
    processor.thresholds = quality.best_thresholds(tuning)
    processor.save_pretrained(folder)
    output = quality.tag_held_out(folder, scenes=1024, seed=HELD_OUT_SEED)
    quality.draw_reliability(output, os.path.join(os.path.dirname(folder), "reliability.png"))
    return quality.measure_tagger(output)


_MEASURES: Mapping[str, Callable[[str, PretrainTinyConfig], dict[str, float]]] = {
    "vision": lambda folder, config: quality.measure_vision(folder),
    "language": lambda folder, config: quality.measure_language(folder),
    "tagger": _tagger,
    "tag_encoder": lambda folder, config: quality.measure_tag_text(folder),
}
