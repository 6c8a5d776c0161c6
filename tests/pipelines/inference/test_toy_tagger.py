"""A tagger from outside the package (`tests.toy_tagger`), in precompute, predict and the page."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.core.errors import UserError
from pipelines.core.steps import fingerprint, read_manifest
from pipelines.core.tag_rules import thresholds_of
from pipelines.inference.demo import DemoModels
from pipelines.inference.page import DemoPageConfig, _prepare
from pipelines.inference.predictor import load_tagger, tagger_thresholds
from pipelines.inference.run import PredictConfig, predict
from pipelines.precompute import TaggerConfig, precompute
from pipelines.precompute.ram import RamTagger
from pipelines.precompute.taggers import TAGGERS, make_tagger, register_tagger, tagger_class
from tests.pipelines.inference.conftest import Lions
from tests.pipelines.precompute.worlds import folder_config, rows_of
from tests.toy_tagger import COLORS, ColorTagger, VersionedColorTagger, write_colors


def expected_tags(picture: Path) -> dict[str, float]:
    """Return the mean of each channel of a picture as the tagger gets it."""
    pixels = np.asarray(Image.open(picture).convert("RGB").resize((8, 8), Image.Resampling.BILINEAR))
    return dict(zip(COLORS, (pixels / 255).mean(axis=(0, 1)), strict=True))


@pytest.mark.usefixtures("ray_cluster")
def test_a_registered_tagger_precomputes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = folder_config(tmp_path, count=3, shard_rows=2)
    colors = write_colors(tmp_path / "colors")
    tagger = TaggerConfig(kind="colors", path=colors, cpus=1, actors=1)
    result = precompute(dataclasses.replace(config, tagger=tagger))
    rows = rows_of(result.path)
    assert len(rows) == 3
    for row in rows:
        tags = {tag["tag"]: tag["score"] for tag in row["tags"]}
        assert tags == pytest.approx(expected_tags(Path(row["uri"])), abs=0.02)  # a JPEG decoded at a lower resolution
    manifest = read_manifest(result.path)
    assert (manifest["made_by"]["tagger"], manifest["made_by"]["tagger_digest"]) == ("colors", fingerprint(colors))
    assert thresholds_of(result.path) == {"red": 0.9, "green": 0.1, "blue": 0.5}

    monkeypatch.setitem(TAGGERS, "colors", VersionedColorTagger)  # its digest says that it gives other tags
    other = precompute(dataclasses.replace(config, tagger=tagger))
    assert other.path != result.path
    assert read_manifest(other.path)["made_by"]["tagger_digest"] == f"{fingerprint(colors)}+v2"


def test_predict_takes_a_registered_tagger_by_its_folder(lions: Lions, pictures: Path, tmp_path: Path) -> None:
    colors = write_colors(tmp_path / "colors")
    config = PredictConfig(lions.dynamic, str(pictures / "a/one.png"), tagger=colors, out=str(tmp_path), format="json")
    (line,) = predict(config).lines
    assert [(tag["tag"], tag["score"]) for tag in json.loads(line)["tags"]] == [("red", pytest.approx(1.0))]


def test_the_page_takes_a_registered_tagger_by_its_folder(lions: Lions, pictures: Path, tmp_path: Path) -> None:
    colors = write_colors(tmp_path / "colors")
    models, _ = _prepare(DemoPageConfig(models={"dynamic": lions.dynamic}, tagger=colors, out=str(tmp_path)))
    assert isinstance(models, DemoModels)
    assert models.tags(str(pictures / "a/one.png")) == [("red", pytest.approx(1.0))]
    assert tagger_thresholds(colors) == {"red": 0.9, "green": 0.1, "blue": 0.5}


def test_each_folder_has_its_own_tagger(lions: Lions, tmp_path: Path) -> None:
    assert type(load_tagger(lions.tagger, False, "fp32", 1)) is RamTagger
    assert type(load_tagger(write_colors(tmp_path / "colors"), False, "fp32", 1)) is ColorTagger
    with pytest.raises(UserError, match=r"no RAM: it has no config\.json"):
        load_tagger(str(tmp_path), False, "fp32", 1)


def test_a_tagger_can_be_registered_by_the_name_of_its_class(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(TAGGERS, "colors")
    register_tagger("colors", "tests.toy_tagger:ColorTagger")
    assert tagger_class("colors") is ColorTagger


def test_a_kind_is_registered_once_and_brings_its_own_thresholds() -> None:
    register_tagger("colors", ColorTagger)  # the same class again is no mistake
    with pytest.raises(ValueError, match="'ram' is taken"):
        register_tagger("ram", ColorTagger)
    with pytest.raises(UserError, match=r"tagger\.kind colors brings its own thresholds"):
        make_tagger(TaggerConfig(kind="colors", path="x", thresholds="own.json"))
