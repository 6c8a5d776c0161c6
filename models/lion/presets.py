"""Sizes of the LION presets: plain fields of `LionConfig`, easy to compare with the paper's table."""

from typing import Any


def _flan_t5(d_model: int, d_ff: int, num_heads: int, num_layers: int) -> dict[str, Any]:
    return {
        "vocab_size": 32128,
        "d_model": d_model,
        "d_kv": 64,
        "d_ff": d_ff,
        "num_heads": num_heads,
        "num_layers": num_layers,
        "num_decoder_layers": num_layers,
        "feed_forward_proj": "gated-gelu",
    }


PRESETS: dict[str, dict[str, Any]] = {
    # About 3 million parameters. T5 and ViT are wide enough that a frozen random one still carries the signal.
    "tiny": {
        "vision_config": {
            "hidden_size": 64,
            "intermediate_size": 256,
            "num_hidden_layers": 6,
            "num_attention_heads": 4,
            "image_size": 48,
            "patch_size": 8,
            "initializer_range": 0.02,
        },
        "qformer_config": {
            "vocab_size": 2048,
            "hidden_size": 64,
            "intermediate_size": 256,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 128,
        },
        "aggregator_config": {"num_attention_heads": 4, "intermediate_size": 128},
        "aggregator_levels": (5, 3, 1),
        "num_query_tokens": 8,
        "text_config": {
            "vocab_size": 2048,
            "d_model": 128,
            "d_kv": 32,
            "d_ff": 256,
            "num_heads": 4,
            "num_layers": 2,
            "num_decoder_layers": 2,
            "feed_forward_proj": "gated-gelu",
        },
        "tag_encoder_config": {
            "bert": {
                "vocab_size": 2048,
                "hidden_size": 64,
                "intermediate_size": 256,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
            }
        },
        "adapter_bottleneck": 16,
        "soft_prompt_token_id": 3,
    },
    "small": {"text_config": _flan_t5(d_model=512, d_ff=1024, num_heads=6, num_layers=8)},
    "base": {"text_config": _flan_t5(d_model=768, d_ff=2048, num_heads=12, num_layers=12)},
    "xl": {"text_config": _flan_t5(d_model=2048, d_ff=5120, num_heads=32, num_layers=24)},
    "xxl": {"text_config": _flan_t5(d_model=4096, d_ff=10240, num_heads=64, num_layers=24)},
}
