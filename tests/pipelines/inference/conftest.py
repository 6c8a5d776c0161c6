"""A tiny LION with a dynamic prompt and a static one without tags in its text, and pictures to ask about."""

from pathlib import Path
from typing import NamedTuple

import pytest
from PIL import Image

from pipelines.sample_world.backbones.kept import kept_backbones


class Lions(NamedTuple):
    """Model folders. The layers between ViT and T5 are untrained: answers are nonsense, but always the same."""

    dynamic: str
    tagless: str
    tagger: str


@pytest.fixture(scope="package")
def lions(tmp_path_factory: pytest.TempPathFactory) -> Lions:
    """Write two models on the kept backbones, and copy the kept tagger."""
    from pipelines.sample_world.backbones.lion import make_lion

    kept = kept_backbones()
    root = tmp_path_factory.mktemp("lions")
    parts = (kept.vision, kept.language, kept.tag_encoder)
    dynamic = make_lion(*parts, str(root / "stage" / "model"), prompt={"kind": "dynamic", "tags_in_text": True})
    tagless = make_lion(*parts, str(root / "tagless"), prompt={"kind": "static", "tags_in_text": False})
    return Lions(str(Path(dynamic).parent), tagless, kept.tagger)


@pytest.fixture(scope="package")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write three pictures, one truncated, into two folders with the same file names."""
    root = tmp_path_factory.mktemp("pictures")
    for name, color in (("a/one.png", "red"), ("b/one.png", "green"), ("b/torn.png", "blue")):
        (root / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (60, 40), color).save(root / name)
    (root / "b/torn.png").write_bytes((root / "b/torn.png").read_bytes()[:50])
    return root
