"""Tag noise: no change at strength 0, the right share of each error, no dependence on other images."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.tags import tags_to_rows
from pipelines.core.errors import UserError
from pipelines.core.tables import TAG
from pipelines.evaluation.tag_noise import TagNoise, add_noise, noisy_column

VOCABULARY = [f"word {number}" for number in range(60)]
TAGS = [(word, 0.95 - 0.03 * rank) for rank, word in enumerate(VOCABULARY[:20])]
tag_lists = st.lists(
    st.tuples(st.sampled_from(VOCABULARY), st.floats(0, 1)), max_size=12, unique_by=lambda item: item[0]
).map(lambda tags: sorted(tags, key=lambda item: -item[1]))
share = st.floats(0, 1)
noises = st.builds(
    TagNoise, drop=share, invent=share, miscalibrate=st.floats(0, 4), seed=st.integers(0, 2**32), strength=share
)


def column(rows: list[list[tuple[str, float]] | None]) -> pa.ChunkedArray:
    entries = [None if row is None else tags_to_rows(row) for row in rows]
    return pa.chunked_array([pa.array(entries, pa.list_(TAG))])


@given(tag_lists, noises)
def test_strength_0_is_bit_equal(tags: list[tuple[str, float]], noise: TagNoise) -> None:
    assert add_noise(tags, "7", VOCABULARY, replace(noise, strength=0.0)) == tags
    unchanged = column([tags, None])
    assert noisy_column(pa.chunked_array([["7", "8"]]), unchanged, replace(noise, strength=0.0)) is unchanged


@given(tag_lists, noises)
def test_noisy_tags_are_tags(tags: list[tuple[str, float]], noise: TagNoise) -> None:
    noisy = add_noise(tags, "7", VOCABULARY, noise)
    scores = [score for _, score in noisy]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)
    assert len({tag for tag, _ in noisy}) == len(noisy) <= 2 * len(tags)
    assert {tag for tag, _ in noisy} <= set(VOCABULARY)


@given(tag_lists, noises, st.floats(0, 1))
def test_what_is_lost_or_invented_stays_so_at_greater_strength(
    tags: list[tuple[str, float]], noise: TagNoise, other: float
) -> None:
    weak, strong = sorted((noise.strength, other))
    less = {tag for tag, _ in add_noise(tags, "7", VOCABULARY, replace(noise, strength=weak))}
    more = {tag for tag, _ in add_noise(tags, "7", VOCABULARY, replace(noise, strength=strong))}
    own = {tag for tag, _ in tags}
    assert more & own <= less & own
    assert less - own <= more - own


@pytest.mark.parametrize("strength", [0.25, 1.0])
def test_each_error_has_its_share(strength: float) -> None:
    noise = TagNoise(strength=strength, drop=0.4, invent=0.2, miscalibrate=0.0)
    own = {tag for tag, _ in TAGS}
    noisy = [add_noise(TAGS, str(image), VOCABULARY, noise) for image in range(400)]
    kept = np.mean([len({tag for tag, _ in tags} & own) for tags in noisy]) / len(TAGS)
    invented = np.mean([len({tag for tag, _ in tags} - own) for tags in noisy]) / len(TAGS)
    assert kept == pytest.approx(1 - 0.4 * strength, abs=0.02)
    assert invented == pytest.approx(0.2 * strength, abs=0.02)
    assert {score for tags in noisy for _, score in tags} <= {score for _, score in TAGS}


def test_miscalibration_moves_logits_by_its_deviation_and_nothing_else() -> None:
    noise = TagNoise(strength=0.5, drop=0.0, invent=0.0, miscalibrate=2.0)
    moved = []
    for image in range(200):
        noisy = dict(add_noise(TAGS, str(image), VOCABULARY, noise))
        assert set(noisy) == {tag for tag, _ in TAGS}
        moved += [np.log(noisy[tag] / (1 - noisy[tag])) - np.log(score / (1 - score)) for tag, score in TAGS]
    assert np.mean(moved) == pytest.approx(0, abs=0.05)
    assert np.std(moved) == pytest.approx(1.0, abs=0.05)


def test_errors_depend_on_the_image_and_the_seed_alone() -> None:
    noise = TagNoise(strength=1.0)
    ids, rows = ["1", "2", "3"], [TAGS, TAGS, None]
    forwards = noisy_column(pa.chunked_array([ids]), column(rows), noise).to_pylist()
    backwards = noisy_column(pa.chunked_array([ids[::-1]]), column(rows[::-1]), noise).to_pylist()
    assert forwards == backwards[::-1]
    assert forwards[2] is None
    assert forwards[0] != forwards[1]
    reseeded = noisy_column(pa.chunked_array([ids]), column(rows), replace(noise, seed=1)).to_pylist()
    assert reseeded[0] != forwards[0]


@pytest.mark.parametrize(
    "wrong", [{"strength": 1.5}, {"drop": -0.1}, {"invent": 2.0}, {"miscalibrate": float("nan")}, {"seed": -1}]
)
def test_impossible_noise_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UserError, match="Tag noise has"):
        TagNoise(**wrong)  # type: ignore[arg-type]
