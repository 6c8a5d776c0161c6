"""Small inputs for precompute (pictures, tag tables, a RAM with random weights), and readers of its results."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from models.tags import tags_to_rows
from pipelines.core.tables import TAG
from pipelines.precompute import PrecomputeConfig, SourceConfig, TaggerConfig


def write_pictures(folder: Path, count: int, size: tuple[int, int] = (40, 30)) -> list[Path]:
    """Write `picture-0000.jpg` … of noise from different seeds, so that no two are equal, and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"picture-{number:04d}.jpg" for number in range(count)]
    for number, path in enumerate(paths):
        noise = np.random.default_rng(number).integers(0, 255, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC).save(path, quality=90)
    return paths


def write_tags(path: Path, tags: Mapping[str, Sequence[tuple[str, float]]]) -> Path:
    """Write a tag table with a list of (tag, score) for each image id and return its path."""
    column = [tags_to_rows(image_tags) for image_tags in tags.values()]
    pq.write_table(pa.table({"image_id": list(tags), "tags": pa.array(column, pa.list_(TAG))}), path)
    return path


def save_tiny_ram(folder: Path) -> Path:
    """Save a RAM with random weights, small enough for a CPU, and return its folder."""
    import torch

    from models.ram import RamConfig, RamForImageTagging, RamProcessor

    torch.manual_seed(0)
    model = RamForImageTagging(RamConfig.preset("tiny", n_tags=12))
    model.save_pretrained(folder)
    RamProcessor([f"tag {n}" for n in range(12)], image_size=model.config.swin.image_size).save_pretrained(folder)
    return folder


def folder_config(root: Path, count: int = 10, shard_rows: int = 4, **changes: Any) -> PrecomputeConfig:
    """Return a run over `count` pictures without captions, with tags from a table, so that no model is loaded."""
    pictures = write_pictures(root / "images", count)
    tags = {picture.name: [("low", 0.2), ("high", 0.9), ("noise", 0.01)] for picture in pictures}
    table = write_tags(root / "tags.parquet", tags)
    values: dict[str, Any] = {
        "source": SourceConfig(kind="folder", images=str(root / "images"), split="train"),
        "tagger": TaggerConfig(kind="table", path=str(table)),
        "out": str(root / "runs"),
        "shard_rows": shard_rows,
    }
    return PrecomputeConfig(**{**values, **changes})


def rows_of(folder: str, table: str = "tagged") -> list[dict[str, Any]]:
    """Return the rows of a result table, in the order of the file names."""
    files = sorted(Path(folder, table).glob("*.parquet"))
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def digests_of(folder: str) -> dict[str, str]:
    """Return the SHA-256 of every Parquet file of a result, by its path inside the folder."""
    files = [file for table in ("tagged", "quarantine") for file in sorted(Path(folder, table).glob("*.parquet"))]
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
