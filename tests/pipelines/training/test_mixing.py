"""Mixing by level and by data set: the configured shares, and epochs that agree with the order."""

from collections import Counter
from typing import Any

import pyarrow as pa
import pytest
from PIL import Image, ImageChops

from pipelines.core.errors import UserError
from pipelines.sources.boxes import iou, parse_box
from pipelines.training.config import LoopConfig, TrainStageConfig
from pipelines.training.mixing import effective_epochs, make_mixture
from pipelines.training.order import SampleOrder
from tests.pipelines.training.conftest import World

SIZES = {("coco", "caption", "image"): 400, ("vqa", "vqa", "image"): 100, ("refcoco", "rec", "region"): 50}


def table() -> pa.Table:
    rows = [
        {"sample_id": f"{name}:{task}:{number}", "image_id": f"{name}{number}", "task": task, "level": level}
        for (name, task, level), size in SIZES.items()
        for number in range(size)
    ]
    return pa.Table.from_pylist(rows)


def config(**changes: Any) -> TrainStageConfig:
    loop = LoopConfig(steps=100, batch_size=10)
    values = {"stage": 3, "validation_fraction": 0.0, "loop": loop, **changes}
    return TrainStageConfig(data="d", tagged="t", parents="p", **values)


def drawn(settings: TrainStageConfig) -> Counter[str]:
    """Return how often each data set occurs in the order of the training."""
    samples = table()
    mixture = make_mixture(samples, "d", settings)
    order = SampleOrder([len(pool.rows) for pool in mixture.pools], [pool.ratio for pool in mixture.pools], 10, 0)
    names = samples["sample_id"].to_pylist()
    draws = [draw for step in range(100) for draw in order.batch(step)]
    return Counter(names[mixture.pools[draw.pool].rows[draw.index]].split(":")[0] for draw in draws)


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ({}, {"coco": 400, "vqa": 100, "refcoco": 500}),
        ({"vqa": 4.0}, {"coco": 250, "vqa": 250, "refcoco": 500}),
        ({"coco": 0.0}, {"vqa": 500, "refcoco": 500}),
    ],
)
def test_levels_are_equal_and_sets_follow_their_weights(weights: dict[str, float], expected: dict[str, int]) -> None:
    settings = config(weights=weights)
    counts = drawn(settings)
    assert set(counts) == set(expected)
    assert all(abs(counts[name] - expected[name]) <= 25 for name in expected)
    shares = {share.name: share for share in effective_epochs(make_mixture(table(), "d", settings), table(), settings)}
    assert {name: round(share.draws) for name, share in shares.items()} == expected
    assert shares["refcoco"].epochs == pytest.approx(10)
    assert "refcoco: 50 samples, 500 draws = 10.00 epochs" in str(shares["refcoco"])


def test_epochs_without_steps_count_what_all_pools_hold() -> None:
    settings = config(stage=1, loop=LoopConfig(epochs=2, batch_size=10))
    shares = effective_epochs(make_mixture(table(), "d", settings), table(), settings)
    assert {share.name: share.epochs for share in shares} == {"coco": 2.0, "vqa": 2.0}


def test_a_set_without_weight_is_not_validated_on_either() -> None:
    settings = config(weights={"coco": 0.0}, validation_fraction=0.2)
    names = table()["sample_id"].to_pylist()
    validated = {names[row].split(":")[0] for row in make_mixture(table(), "d", settings).validation}
    assert validated == {"vqa", "refcoco"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": {"cooc": 2.0}}, r"names \['cooc'\].*'coco'"),
        ({"mix": {"pope": 1.0}}, "no 'pope' samples"),
        ({"weights": {"refcoco": 0.0}}, "no 'region' samples"),
    ],
)
def test_mistakes(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_mixture(table(), "d", config(**changes))
    with pytest.raises(UserError, match="0 or more"):
        config(weights={"coco": -1.0})


def test_augmented_samples_keep_their_boxes_and_validation_is_left_alone(world: World, lion: str) -> None:
    from models.lion import LionProcessor
    from pipelines.training.order import Draw
    from pipelines.training.stage_data import StageData

    settings = config(stage=2, augment=True, validation_fraction=0.2)
    data = StageData(world.instructions, world.tagged, LionProcessor.from_pretrained(lion), settings)
    seen = set()
    for index in range(data.pools[0]):
        for epoch in range(3):
            sample = data.load(Draw(0, index, epoch))
            parsed = parse_box(sample.answer)
            assert parsed is not None
            seen.add((sample.sample_id, sample.image.size, parsed.box))
            drawn_at = ImageChops.difference(sample.image, Image.new("RGB", sample.image.size, "white")).getbbox()
            assert drawn_at is not None
            scaled = [value / side for value, side in zip(drawn_at, sample.image.size * 2, strict=True)]
            assert iou(parsed.box, scaled) > 0.85
    assert len(seen) > 2 * data.pools[0], "every epoch draws anew"
    assert all(data.load(draw).image.size == (48, 48) for draw in data.validation)
