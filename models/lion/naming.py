"""Translation of parameter names between the released LION and this one."""

import re
from collections.abc import Sequence

from models.lion.prompts import released_prompt_names

# Released prefix and ours; prompts have their own in `models.lion.prompts`.
_PREFIXES: tuple[tuple[str, str], ...] = (
    ("visual_encoder.", "vision_model."),
    ("t5_model.", "language_model."),
    ("Qformer.bert.", "qformer."),
    ("t5_proj.", "t5_projection."),
    ("ln_vision.", "ln_vision."),
    ("ln_adapter.", "ln_aggregator."),
    ("adapter_proj.", "aggregator_projection."),
    ("fusion_adapter.", "vision_aggregator."),
    ("query_tokens", "query_tokens"),
)
# Fragments below a prefix: released and ours, unambiguous in both directions.
_FRAGMENTS: dict[str, tuple[tuple[str, str], ...]] = {
    "visual_encoder.": (
        ("cls_token", "embeddings.class_embedding"),
        ("pos_embed", "embeddings.position_embedding"),
        ("patch_embed.proj.", "embeddings.patch_embedding."),
        ("blocks.", "encoder.layers."),
        (".norm1.", ".layer_norm1."),
        (".norm2.", ".layer_norm2."),
        (".attn.qkv.", ".self_attn.qkv."),
        (".attn.proj.", ".self_attn.projection."),
    ),
    "Qformer.bert.": (
        ("embeddings.LayerNorm.", "embeddings.layernorm."),
        ("attention.self.", "attention.attention."),
    ),
}
_ADAPTER = re.compile(r"(.*\.adapter)\.adapters\.(\d+)\.(?:(scale)|(down|up)_proj\.(weight|bias))")
_ROUTER = re.compile(r"(.*\.adapter)\.router_ratio(\d+)")
_OUR_ADAPTER = re.compile(r"(.*\.adapter)\.(region|image)_(?:(router|scale)|(down|up)_(weight|bias))")
_QV_BIAS = re.compile(r"(.*\.attn)\.(q|v)_bias")

# Keys of released files that LION does not read, with the reason.
_IGNORED: tuple[tuple[str, str], ...] = (
    (r"t5_model\.(encoder|decoder)\.embed_tokens\.weight", "an alias of t5_model.shared.weight"),
    (r".*\.position_ids", "a buffer that counts from 0"),
    (
        r"t5_model\.decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight",
        "older T5 files hold it; cross-attention has no positions",
    ),
    (r"visual_encoder\.(norm|fc_norm|head)\..*", "the ViT's own norm and classifier; LION reads its blocks"),
    (r"visual_encoder\.mask_token", "of the ViT's pre-training"),
)


def ignored_reason(key: str, vision_blocks: int) -> str | None:
    """Return the reason why the released ``key`` is not read, None where it is read.

    Args:
        vision_blocks: ViT blocks that LION runs; the released ViT has one more.
    """
    for pattern, reason in _IGNORED:
        if re.fullmatch(pattern, key):
            return reason
    block = re.match(r"visual_encoder\.blocks\.(\d+)\.", key)
    if block and int(block[1]) >= vision_blocks:
        return f"the ViT's block {block[1]}; LION stops before it"
    return None


def to_ours(key: str, adapters: Sequence[str]) -> str | None:
    """Return our name of a released key, None if the released LION has no such key.

    ``q_bias`` and ``v_bias`` of a ViT block both map to its single ``qkv.bias``, (q, 0, v).

    Args:
        adapters: The configuration's levels with an adapter; released adapters are counted in their order.
    """
    for released, ours in (*_PREFIXES, *released_prompt_names()):
        if not key.startswith(released):
            continue
        rest = key.removeprefix(released)
        if match := _QV_BIAS.fullmatch(rest):
            rest = f"{match[1]}.qkv.bias"
        for old, new in _FRAGMENTS.get(released, ()):
            rest = rest.replace(old, new)
        return _adapter_to_ours(ours + rest, adapters)
    return None


def _adapter_to_ours(name: str, adapters: Sequence[str]) -> str | None:
    if match := _ADAPTER.fullmatch(name):
        index, part = int(match[2]), match[3] or f"{match[4]}_{match[5]}"
    elif match := _ROUTER.fullmatch(name):
        index, part = int(match[2]) - 1, "router"
    else:
        return name
    return f"{match[1]}.{adapters[index]}_{part}" if index < len(adapters) else None


def to_released(name: str, adapters: Sequence[str]) -> str:
    """Return the released key of our ``name`` (any but ``qkv.bias``, which the released ViT keeps as q and v).

    Raises:
        ValueError: If the released LION has no such part.
    """
    if match := _OUR_ADAPTER.fullmatch(name):
        index = list(adapters).index(match[2])
        if match[3] == "router":
            part = f"router_ratio{index + 1}"
        else:
            part = f"adapters.{index}." + (match[3] or f"{match[4]}_proj.{match[5]}")
        name = f"{match[1]}.{part}"
    for released, ours in (*_PREFIXES, *released_prompt_names()):
        if name == ours or (ours.endswith(".") and name.startswith(ours)):
            rest = name.removeprefix(ours)
            for old, new in reversed(_FRAGMENTS.get(released, ())):
                rest = rest.replace(new, old)
            return released + rest
    raise ValueError(f"The released LION has no part {name}: it has neither dynamic prompts nor tag encoders.")
