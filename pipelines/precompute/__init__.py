"""Precompute: tags with confidences and the centroid caption of every image, each image once.

A shard is the unit of work, retries and progress: `shard_rows` images in source order. It is one block of Ray Data and
one file of the result, and a proof file marks it as done.

config      the settings of a run
shards      the source cut into shards
plan        how many models run where
taggers     the interface of a tagger and the registry; `ram` and `tag_table` are the two taggers of this package
captioner   the caption nearest the centroid
stages      the work on one shard, as functions of Arrow tables
pipeline    the stages as a Ray Data pipeline over the missing shards
tally       progress, and the stop of a run with too much bad input
step        the whole run: cut, compute, publish
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
