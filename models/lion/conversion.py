"""Conversion of released LION weights into a `from_pretrained` folder, and back to the released naming."""

import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoTokenizer, T5Config
from transformers.utils import GENERATION_CONFIG_NAME

from models.checkpoint_files import folder_tensors, read_generation_settings, read_state_dict
from models.lion.configuration import LEVELS, LionConfig
from models.lion.generation import PUBLISHED, decoding_settings, generation_defaults
from models.lion.groups import FOUNDATIONS, parameter_group
from models.lion.modeling import LionForConditionalGeneration
from models.lion.naming import ignored_reason, to_ours, to_released
from models.lion.processing import LionProcessor
from models.lion.prompts.base import SOFT_TOKEN

_SHARD_BYTES = 2 * 2**30
# Widths of attention heads, which no weight's shape shows: BERT's and EVA-ViT-g's.
_HEAD_WIDTH = {"vision": 88, "qformer": 64}


def convert_lion(
    checkpoint: str | os.PathLike[str],
    vit: str | os.PathLike[str],
    llm: str | os.PathLike[str],
    tokenizer: str | os.PathLike[str],
    out: str | os.PathLike[str],
    qformer_tokenizer: str | os.PathLike[str] | None = None,
    dtype: torch.dtype | None = None,
    overrides: Mapping[str, Any] | None = None,
    thresholds: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """Turn released files into a folder that model and processor load by ``from_pretrained``.

    Weights stream from file to file; memory holds one shard of the language model and one of the output.

    Args:
        checkpoint: ``LION-FlanT5-XL.pth`` or ``-XXL``: what LION trained. Generation settings are LION's published
            ones, or those that `export_lion` wrote into the file.
        vit: ``eva_vit_g.pth``. Its last block, norm and head are left out.
        llm: A Flan-T5 folder (safetensors or bin, sharded or not) with its ``config.json``.
        tokenizer: A folder with Flan-T5's tokenizer.
        out: The folder to write; made if absent.
        qformer_tokenizer: A folder with the Q-Former's tokenizer, bert-base-uncased (hub name or folder). None is
            allowed only for a LION without Q-Former, where the T5's tokenizer takes its place and is never read.
        dtype: Of the written weights; float32 by default, which loses nothing of any source.
        overrides: Fields of `LionConfig` that the shapes do not show, where they differ from the released ones.
        thresholds: RAM's tags with their thresholds. The model then reads tags above those, in the list's order, as
            the released LION was trained to. With None, the caller of the model chooses both.

    Returns:
        ``placed``, ``ignored`` (key counts), ``reasons`` (ignored key to reason), ``parameters`` and ``folder``.

    Raises:
        ValueError: If a file has another form, a key is unknown, a shape differs, or a weight is missing.
    """
    trained, vision = read_state_dict(checkpoint), _vision_state(vit)
    settings = read_generation_settings(checkpoint)
    shapes = {name: tuple(tensor.shape) for name, tensor in (vision | trained).items()}
    words = AutoTokenizer.from_pretrained(tokenizer)
    fields = {"soft_prompt_token_id": words.convert_tokens_to_ids(SOFT_TOKEN)} | dict(overrides or {})
    config = released_config(shapes, T5Config.from_pretrained(llm), fields, whole_vit=True)
    config.dtype = dtype or torch.float32
    config.architectures = [LionForConditionalGeneration.__name__]
    if qformer_tokenizer is None and config.uses_qformer:
        raise ValueError("The Q-Former reads BERT's vocabulary: name a folder with bert-base-uncased's tokenizer.")
    questions = AutoTokenizer.from_pretrained(qformer_tokenizer or tokenizer)
    reading: dict[str, Any] = {}
    if thresholds is not None:
        reading = {"threshold": "per_tag", "tag_order": "list", "thresholds": thresholds}
    processor = LionProcessor.for_config(config, words, questions, **reading)

    ignored: dict[str, str] = {}
    language = ((f"t5_model.{name}", tensor) for name, tensor in folder_tensors(llm))
    sources = (pair for source in (trained.items(), vision.items(), language) for pair in source)
    placed = place(sources, config, ignored)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    counts = _write_sharded(((name, tensor.to(config.dtype)) for name, tensor in placed), out)
    config.save_pretrained(out)
    generation = generation_defaults(config)
    generation.update(**settings)
    generation.save_pretrained(out)
    processor.save_pretrained(out)
    return {**counts, "ignored": len(ignored), "reasons": ignored, "folder": str(out)}


def export_lion(folder: str | os.PathLike[str], out: str | os.PathLike[str]) -> dict[str, Any]:
    """Write the trained weights into one file in the released naming, as in ``LION-FlanT5-*.pth``.

    Args:
        folder: A folder that `LionForConditionalGeneration.from_pretrained` reads.
        out: The ``.pth`` to write; its tensors are under ``model``, in the folder's precision, and the settings of
            decoding under ``generation_config``, which the released code does not read.

    Returns:
        ``placed`` (keys written), ``ignored`` (frozen weights left out), ``parameters`` and ``file``.

    Raises:
        ValueError: If the folder is no LION, or holds a part that the released LION does not have.
    """
    config = LionConfig.from_pretrained(folder)
    if not config.prompt.design.is_released:
        raise ValueError(
            f"{folder} has a prompt of kind {config.prompt.kind!r}, which the released LION does not have."
        )
    released: dict[str, Tensor] = {}
    frozen = 0
    for name, tensor in folder_tensors(folder):
        if parameter_group(name) in FOUNDATIONS:
            frozen += 1
        else:
            released[to_released(name, config.adapters)] = tensor
    missing = _trainable_names(config) - {to_ours(key, config.adapters) for key in released}
    if missing:
        raise ValueError(f"{folder} lacks {len(missing)} trained weights, among them {sorted(missing)[0]}.")
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model": released, "generation_config": _folder_settings(folder)}, out)
    parameters = sum(tensor.numel() for tensor in released.values())
    return {"placed": len(released), "ignored": frozen, "parameters": parameters, "file": str(out)}


def _folder_settings(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the settings of decoding of a folder; LION's published ones where it states none."""
    file = Path(folder) / GENERATION_CONFIG_NAME
    return decoding_settings(json.loads(file.read_text(encoding="utf-8")) if file.is_file() else PUBLISHED)


def place(
    sources: Iterable[tuple[str, Tensor]], config: LionConfig, ignored: dict[str, str]
) -> Iterator[tuple[str, Tensor]]:
    """Yield our name and tensor of each released weight, checked, each once; the first source of a weight counts.

    Args:
        sources: Released names with tensors, on any device.
        config: The configuration to fit.
        ignored: Filled with the released keys that are not read and why.

    Raises:
        ValueError: If a key is unknown, a shape differs, or, at the end, a weight is missing.
    """
    expected = expected_shapes(config)
    placed: set[str] = set()
    halves: dict[str, dict[str, Tensor]] = {}
    for key, tensor in sources:
        if reason := ignored_reason(key, config.vision_config.num_hidden_layers):
            ignored[key] = reason
            continue
        name = to_ours(key, config.adapters)
        if name is None or name not in expected:
            raise ValueError(f"{key} is no weight of this LION (visual_input={config.visual_input!r}).")
        if name in placed:
            ignored[key] = "an earlier file holds it"
            continue
        if key.endswith(("q_bias", "v_bias")):
            pair = halves.setdefault(name, {})
            pair[key[-6]] = tensor
            if len(pair) < 2:
                continue
            tensor = torch.cat([pair["q"], torch.zeros_like(pair["q"]), pair["v"]])
            del halves[name]
        if tuple(tensor.shape) != expected[name]:
            raise ValueError(f"{key} is {tuple(tensor.shape)} and this LION expects {expected[name]}.")
        placed.add(name)
        yield name, tensor
    missing = sorted(expected.keys() - placed)
    if missing:
        named = ", ".join(_released_or_ours(name, config) for name in missing[:5])
        raise ValueError(f"{len(missing)} weights are missing, among them {named}.")


def expected_shapes(config: LionConfig) -> dict[str, tuple[int, ...]]:
    """Return every parameter of a LION with its shape, T5's tied embeddings once."""
    with torch.device("meta"):
        model = LionForConditionalGeneration(config)
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


def released_config(
    shapes: Mapping[str, tuple[int, ...]],
    text_config: T5Config,
    overrides: Mapping[str, Any] | None = None,
    whole_vit: bool = False,
) -> LionConfig:
    """Return the configuration of released weights, from their names and shapes.

    Args:
        shapes: Shape by released name, of the LION file and the ViT (under ``visual_encoder.``).
        text_config: Of the T5.
        overrides: Fields of `LionConfig`; a dict for a sub-configuration replaces the fields it names.
        whole_vit: The ViT still has the last block, which LION does not run.

    Raises:
        ValueError: If neither Q-Former nor aggregator is there, or the ViT is not.
    """
    if "visual_encoder.pos_embed" not in shapes or "visual_encoder.patch_embed.proj.weight" not in shapes:
        raise ValueError("The ViT has no pos_embed or patch_embed.proj; expected EVA-ViT-g as BLIP-2 publishes it.")
    fields: dict[str, Any] = {"vision_config": _vision_fields(shapes, whole_vit), "text_config": text_config}
    qformer, aggregator = "query_tokens" in shapes, "ln_adapter.weight" in shapes
    if not (qformer or aggregator):
        raise ValueError("The checkpoint has neither query_tokens nor ln_adapter: it is no LION.")
    fields["visual_input"] = "all" if qformer and aggregator else "qformer" if qformer else "aggregator"
    if qformer:
        fields["num_query_tokens"] = shapes["query_tokens"][1]
        fields["qformer_config"] = _qformer_fields(shapes)
    if aggregator:
        blocks = _count(shapes, r"fusion_adapter\.blocks\.(\d+)\.")
        fields["aggregator_levels"] = (38, 28, 18)[: blocks + 1]
        fields["aggregator_config"] = {
            "intermediate_size": shapes["fusion_adapter.blocks.0.intermediate.dense.weight"][0],
            "num_attention_heads": 16,
            "layer_norm_eps": 1e-12,
        }
    adapters = _count(shapes, r"t5_model\.encoder\.block\.0\.layer\.1\.adapter\.adapters\.(\d+)\.")
    if adapters == len(LEVELS):
        fields["adapters"] = list(LEVELS)
    elif fields["visual_input"] == "all":
        # A single adapter with both visual paths: the released code applies it to every sample.
        fields["adapters"] = ["image"]
    down = shapes.get("t5_model.encoder.block.0.layer.1.adapter.adapters.0.down_proj.weight")
    if down is None:
        raise ValueError("The checkpoint has no adapter in t5_model.encoder.block.0: it is no LION.")
    fields["adapter_bottleneck"] = down[0]
    fields["prompt"] = {"kind": "static" if "soft_prompt_hint" in shapes else "none"}
    for key, value in (overrides or {}).items():
        if isinstance(value, Mapping) and isinstance(fields.get(key), dict):
            fields[key] |= value
        else:
            fields[key] = value
    return LionConfig(**fields)


def _vision_fields(shapes: Mapping[str, tuple[int, ...]], whole_vit: bool) -> dict[str, Any]:
    width, _, patch, _ = shapes["visual_encoder.patch_embed.proj.weight"]
    patches = shapes["visual_encoder.pos_embed"][1] - 1
    return {
        "hidden_size": width,
        "intermediate_size": shapes["visual_encoder.blocks.0.mlp.fc1.weight"][0],
        "num_hidden_layers": _count(shapes, r"visual_encoder\.blocks\.(\d+)\.") - int(whole_vit),
        "num_attention_heads": max(width // _HEAD_WIDTH["vision"], 1),
        "image_size": math.isqrt(patches) * patch,
        "patch_size": patch,
    }


def _qformer_fields(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    vocabulary, width = shapes["Qformer.bert.embeddings.word_embeddings.weight"]
    layers = _count(shapes, r"Qformer\.bert\.encoder\.layer\.(\d+)\.")
    cross = sorted({int(i) for i in _indices(shapes, r"Qformer\.bert\.encoder\.layer\.(\d+)\.crossattention\.")})
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": shapes["Qformer.bert.encoder.layer.0.intermediate.dense.weight"][0],
        "num_hidden_layers": layers,
        "num_attention_heads": max(width // _HEAD_WIDTH["qformer"], 1),
        "max_position_embeddings": shapes["Qformer.bert.embeddings.position_embeddings.weight"][0],
        "cross_attention_frequency": cross[1] - cross[0] if len(cross) > 1 else layers,
    }


def _indices(names: Iterable[str], pattern: str) -> list[str]:
    return [match[1] for name in names if (match := re.match(pattern, name))]


def _count(names: Iterable[str], pattern: str) -> int:
    return len(set(_indices(names, pattern)))


def _vision_state(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    return {f"visual_encoder.{name.removeprefix('visual_encoder.')}": v for name, v in read_state_dict(path).items()}


def _trainable_names(config: LionConfig) -> set[str]:
    return {name for name in expected_shapes(config) if parameter_group(name) not in FOUNDATIONS}


def _released_or_ours(name: str, config: LionConfig) -> str:
    return name if name.endswith("qkv.bias") else to_released(name, config.adapters)


def _write_sharded(weights: Iterable[tuple[str, Tensor]], out: Path) -> dict[str, Any]:
    """Write safetensors shards of at most `_SHARD_BYTES` and their index, named as transformers names them.

    A larger tensor gets a shard alone. The names hold the number of shards, which is clear only at
    the end: the files are renamed then.
    """
    shard: dict[str, Tensor] = {}
    files: list[list[str]] = []
    held = total = parameters = 0

    def flush() -> None:
        save_file(shard, out / f"model-{len(files) + 1:05}.part", metadata={"format": "pt"})
        files.append(list(shard))
        shard.clear()

    for name, tensor in weights:
        size = tensor.numel() * tensor.element_size()
        if shard and held + size > _SHARD_BYTES:
            flush()
            held = 0
        shard[name] = tensor.contiguous()
        held += size
        total += size
        parameters += tensor.numel()
    flush()
    weight_map: dict[str, str] = {}
    for number, names in enumerate(files, start=1):
        final = f"model-{number:05}-of-{len(files):05}.safetensors"
        (out / f"model-{number:05}.part").replace(out / final)
        weight_map |= dict.fromkeys(names, final)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (out / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return {"placed": len(weight_map), "parameters": parameters}
