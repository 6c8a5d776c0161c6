"""A tagged table of the sample world, as a precompute step writes it."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipelines.core.tables import TAGGED, to_table
from pipelines.sources import read_images
from pipelines.sources.records import ImageRecord


@pytest.fixture(scope="session")
def tagged(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a table with all images of the splits train and val; those of test are not tagged."""
    folder = tmp_path_factory.mktemp("precompute")
    for split in ("train", "val"):
        records = read_images("coco_captions", str(world / f"captions_{split}.json"), str(world / "images"), split)
        rows = [vars(record) for record in records if isinstance(record, ImageRecord)]
        (folder / "tagged").mkdir(exist_ok=True)
        pq.write_table(to_table(rows, TAGGED), folder / "tagged" / f"{split}.parquet")
    return folder
