"""Precompute: source and images in, tags with confidences and the centroid caption out, each image once.

The shard is the unit of everything: `shard_rows` images in source order, one block of Ray Data, one file of the result,
one thing that is done or not. `source` reads the source once and cuts it, `stages` are what happens to a shard,
`pipeline` lets Ray Data run them over the shards that are missing, `step` publishes.
"""

from typing import TYPE_CHECKING

from pipelines.core.lazy import lazy_names

if TYPE_CHECKING:
    from pipelines.precompute.config import CaptionerConfig, PrecomputeConfig, SourceConfig, TaggerConfig
    from pipelines.precompute.step import precompute

__all__ = ["CaptionerConfig", "PrecomputeConfig", "SourceConfig", "TaggerConfig", "precompute"]
__getattr__ = lazy_names(
    __name__,
    {
        **dict.fromkeys(("CaptionerConfig", "PrecomputeConfig", "SourceConfig", "TaggerConfig"), "config"),
        "precompute": "step",
    },
)
