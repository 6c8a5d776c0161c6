"""Convert the released `ram_swin_large_14m.pth` to a `from_pretrained` folder, and back."""

import math
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.checkpoint_files import read_state_dict
from models.ram.configuration import RamConfig
from models.ram.modeling import RamForImageTagging
from models.ram.processing import RamProcessor, read_tag_list, read_thresholds

# Fragments of parameter names: released, and of this project. The replacement is unambiguous in both directions.
_NAMES = (
    ("visual_encoder.patch_embed.proj.", "swin.embeddings.patch_embeddings.projection."),
    ("visual_encoder.patch_embed.norm.", "swin.embeddings.norm."),
    ("visual_encoder.norm.", "swin.layernorm."),
    ("visual_encoder.layers.", "swin.encoder.layers."),
    (".norm1.", ".layernorm_before."),
    (".norm2.", ".layernorm_after."),
    (".attn.proj.", ".attention.o_proj."),
    (".attn.relative_position_bias_table", ".attention.relative_position_bias.relative_position_bias_table"),
    ("tagging_head.encoder.layer.", "tagging_head.layers."),
    (".crossattention.self.", ".crossattention.attention."),
)
_QKV = re.compile(r"^(?P<block>.*)\.attn\.qkv\.(?P<kind>weight|bias)$")
_PROJECTIONS = ("q_proj", "k_proj", "v_proj")

# Patterns of released keys that tagging does not need, each with the reason.
_IGNORED = (
    (r"^text_decoder\.", "the caption decoder; tagging does not caption"),
    (r"^tag_encoder\.", "the caption branch's encoder; its cross-attention is the tagging head's, stored twice"),
    (r"\.relative_position_index$", "a buffer that follows from the window size"),
    (r"\.attn_mask$", "a buffer that follows from image and window size"),
    (r"^tagging_head\.embeddings\.", "the released constructor deletes it: the queries are the label embeddings"),
    (
        r"^tagging_head\.encoder\.layer\.\d+\.attention\.",
        "the released constructor deletes it: tags do not see each other",
    ),
)


def ignored_reason(key: str) -> str | None:
    """Return why tagging does not need a released key, or None if it does."""
    return next((reason for pattern, reason in _IGNORED if re.search(pattern, key)), None)


def from_released(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return a state dict with the names of this project.

    Args:
        state: the released state dict, on any device (meta included).

    Returns:
        The renamed state dict, and the released keys that were left out, each with its reason.
    """
    renamed: dict[str, Tensor] = {}
    ignored: dict[str, str] = {}
    for released, tensor in state.items():
        key = re.sub(r"^vision_multi\.", "tagging_head.", released)  # the head's name in the released file
        if reason := ignored_reason(key):
            ignored[released] = reason
            continue
        parts = {key: tensor}
        if match := _QKV.match(key):
            chunks = tensor.chunk(3, dim=0)
            names = [f"{match['block']}.attention.{name}.{match['kind']}" for name in _PROJECTIONS]
            parts = dict(zip(names, chunks, strict=True))
        for name, part in parts.items():
            for old, new in _NAMES:
                name = name.replace(old, new)
            renamed[name] = part
    return renamed, ignored


def to_released(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict with the released names; q, k and v of Swin become one tensor again."""
    released: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if ".attention.k_proj." in name or ".attention.v_proj." in name:
            continue  # joined with its q_proj
        if ".attention.q_proj." in name:
            tensor = torch.cat([state[name.replace("q_proj", projection)] for projection in _PROJECTIONS], dim=0)
            name = name.replace(".attention.q_proj.", ".attn.qkv.")
        for old, new in _NAMES:
            name = name.replace(new, old)
        released[name] = tensor
    return released


def infer_config(
    state: dict[str, Tensor], image_size: int | None = None, num_attention_heads: int = 4, **kwargs: Any
) -> RamConfig:
    """Return the configuration of a released state dict, inferred from the shapes of its tensors.

    Args:
        state: tensors by released name.
        image_size: in pixels. None: the size at which Swin's last stage is one window, as in the release.
        num_attention_heads: of the tagging head; it cannot be inferred from shapes. RAM has 4.
        kwargs: further fields of `RamConfig`.

    Raises:
        ValueError: a key that is needed to infer a size is missing.
    """
    state = {re.sub(r"^vision_multi\.", "tagging_head.", key): tensor for key, tensor in state.items()}
    try:
        patch = state["visual_encoder.patch_embed.proj.weight"].shape
        tables = [key for key in state if key.endswith("relative_position_bias_table")]
        depths = Counter(int(key.split(".")[2]) for key in tables)
        heads = [
            state[f"visual_encoder.layers.{i}.blocks.0.attn.relative_position_bias_table"].shape[1]
            for i in range(len(depths))
        ]
        window = (math.isqrt(state[tables[0]].shape[0]) + 1) // 2
        n_tags, projection_dim = state["label_embed"].shape
        intermediate, hidden = state["tagging_head.encoder.layer.0.intermediate.dense.weight"].shape
    except (KeyError, IndexError) as error:
        raise ValueError(f"This is not a RAM checkpoint: it lacks {error}.") from error
    layers = {int(match[1]) for key in state if (match := re.match(r"tagging_head\.encoder\.layer\.(\d+)\.", key))}
    return RamConfig(
        swin={
            "image_size": image_size or window * patch[2] * 2 ** (len(depths) - 1),
            "patch_size": patch[2],
            "embed_dim": patch[0],
            "depths": [depths[i] for i in range(len(depths))],
            "num_heads": heads,
            "window_size": window,
        },
        head={
            "hidden_size": hidden,
            "intermediate_size": intermediate,
            "num_hidden_layers": len(layers),
            "num_attention_heads": num_attention_heads,
        },
        n_tags=n_tags,
        projection_dim=projection_dim,
        **kwargs,
    )


def check_placed(state: dict[str, Tensor], config: RamConfig) -> None:
    """Check that a state dict has exactly the keys and shapes of a RAM.

    Args:
        state: tensors by the names of this project.
        config: of the RAM.

    Raises:
        ValueError: keys are missing, unexpected or of another shape; the message names ten of them.
    """
    with torch.device("meta"):
        expected = RamForImageTagging(config).state_dict()
    problems = [f"missing {key}" for key in expected if key not in state]
    problems += [f"unexpected {key}" for key in state if key not in expected]
    problems += [
        f"{key} is {tuple(state[key].shape)} instead of {tuple(tensor.shape)}"
        for key, tensor in expected.items()
        if key in state and state[key].shape != tensor.shape
    ]
    if problems:
        shown = "; ".join(problems[:10])
        raise ValueError(f"The checkpoint does not fit RAM: {len(problems)} keys differ (converted names): {shown}.")


def convert_ram(
    checkpoint: str | os.PathLike[str],
    tags: str | os.PathLike[str],
    thresholds: str | os.PathLike[str] | None,
    out: str | os.PathLike[str],
    image_size: int | None = None,
    dtype: torch.dtype | None = None,
) -> dict[str, Any]:
    """Write a folder that `RamForImageTagging.from_pretrained` and `RamProcessor.from_pretrained` read.

    Args:
        checkpoint: ``ram_swin_large_14m.pth``, or a safetensors file with the same keys.
        tags: text file with one tag per line.
        thresholds: text file with one threshold per line; None: 0.65 for every tag.
        out: the folder to write.
        image_size: as in `infer_config`.
        dtype: type of the saved weights; None: the type in the file.

    Returns:
        Counts: ``placed`` (converted keys), ``ignored`` (reason → keys), ``parameters`` and ``tags``.

    Raises:
        ValueError: a key is missing, unexpected or of another shape, the tag list does not fit the head, or the file
            is not a plain checkpoint.
    """
    released = read_state_dict(checkpoint)
    config = infer_config(released, image_size)
    state, ignored = from_released(released)
    check_placed(state, config)
    tag_list = read_tag_list(tags)
    if len(tag_list) != config.n_tags:
        raise ValueError(f"{tags} has {len(tag_list)} tags, but the checkpoint's head has {config.n_tags}.")
    values = None if thresholds is None else read_thresholds(thresholds, len(tag_list))
    processor = RamProcessor(tag_list, values, image_size=config.swin.image_size)
    model = RamForImageTagging(config)
    model.load_state_dict(state, assign=True)
    if dtype is not None:
        model.to(dtype)  # type: ignore[arg-type]  # transformers wraps torch's signature away
    model.save_pretrained(out)
    processor.save_pretrained(out)
    return {
        "placed": len(released) - len(ignored),
        "ignored": dict(Counter(ignored.values())),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "tags": config.n_tags,
    }


def export_ram(folder: str | os.PathLike[str], out: str | os.PathLike[str]) -> dict[str, Any]:
    """Write ``{"model": state dict}`` with the released names, and the two text lists to the same folder.

    The file has no text towers, because `convert_ram` does not convert them. The released loader accepts that
    (``strict=False``), and tagging does not use them.

    Args:
        folder: a folder of `RamForImageTagging` and `RamProcessor`.
        out: the ``.pth`` file to write.

    Returns:
        Counts: ``placed`` (written keys), ``parameters`` and ``tags``.
    """
    model = RamForImageTagging.from_pretrained(folder)
    processor = RamProcessor.from_pretrained(folder)
    released = to_released(model.state_dict())
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model": released}, out)
    processor.write_lists(out.parent)
    parameters = sum(tensor.numel() for tensor in released.values())
    return {"placed": len(released), "parameters": parameters, "tags": len(processor.tag_list)}
