"""A registry with a LION and a tag encoder under the alias champion, for tests that serve them."""

import os
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from PIL import Image

from pipelines.registry import Registry, RegistryConfig
from pipelines.sample_world.backbones.kept import kept_backbones


class Served(NamedTuple):
    """Where the registry is and what is in it.

    Attributes:
        uri: MLflow's address.
        model: the LION's `from_pretrained` folder, before it was registered.
        picture: a picture's path.
        code: the folder that MLflow keeps of the LION.
        tag_encoder: the folder that MLflow keeps of the tag encoder.
    """

    uri: str
    model: str
    picture: str
    code: Path
    tag_encoder: Path

    def environment(self) -> dict[str, str]:
        """The variables of a process that has MLflow's address and nothing of this checkout on its path."""
        mine = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        return mine | {"MLFLOW_TRACKING_URI": self.uri}


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    """Both models, registered."""
    from models.tag_encoder import TagEncoder, TagEncoderConfig, TagEncoderProcessor
    from pipelines.sample_world.backbones.lion import make_lion

    root = tmp_path_factory.mktemp("served")
    kept = kept_backbones()
    model = make_lion(kept.vision, kept.language, kept.tag_encoder, str(root / "lion"), prompt={"kind": "dynamic"})
    encoder = str(root / "tag_encoder")
    torch.manual_seed(0)
    TagEncoder(TagEncoderConfig.preset("tiny")).save_pretrained(encoder)
    TagEncoderProcessor.from_pretrained(kept.tag_encoder).save_pretrained(encoder)
    registry = Registry(RegistryConfig(), str(root / "results"))
    registry.register("lion", model, registry.open_run("lion", "0" * 64), "lion", alias="champion")
    run = registry.open_run("tag-encoder", "1" * 64)
    registry.register("lion-tag-encoder", encoder, run, "tag_encoder", alias="champion")
    Image.new("RGB", (60, 40), "red").save(root / "red.png")
    kept_by_mlflow = [
        Path(registry.lookup(f"models:/{name}@champion").folder).parent.parent for name in ("lion", "lion-tag-encoder")
    ]
    return Served(registry.uri, model, str(root / "red.png"), *kept_by_mlflow)
