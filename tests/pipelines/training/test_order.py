"""The order of samples: nothing lost, nothing twice, no dependence on workers (P4)."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.training.order import Draw, SampleOrder, held_out, split


@given(size=st.integers(1, 60), batch=st.integers(1, 25), seed=st.integers(0, 5), epochs=st.integers(1, 3))
def test_every_epoch_has_every_sample_once(size: int, batch: int, seed: int, epochs: int) -> None:
    order = SampleOrder([size], None, batch, seed)
    limit = size * epochs
    drawn = [draw for step in range(order.total_steps(epochs)) for draw in order.batch(step, limit)]
    assert len(drawn) == limit
    for epoch in range(epochs):
        part = drawn[epoch * size : (epoch + 1) * size]
        assert {draw.epoch for draw in part} == {epoch}
        assert sorted(draw.index for draw in part) == list(range(size))


@given(batch=st.integers(0, 40), workers=st.integers(1, 6), micro=st.integers(1, 5))
def test_a_split_keeps_every_sample_in_order_and_is_even(batch: int, workers: int, micro: int) -> None:
    draws = [Draw(0, index, 0) for index in range(batch)]
    shares = split(draws, workers, micro)
    together = [draw for piece in range(micro) for worker in range(workers) for draw in shares[worker][piece]]
    assert together == draws
    sizes = [len(piece) for share in shares for piece in share]
    assert max(sizes) - min(sizes) <= 1


def test_the_global_order_does_not_depend_on_workers() -> None:
    seen = []
    for workers in (1, 2, 4):
        order = SampleOrder([37, 11], [1, 1], 8, 3)  # a new object, as in every process
        shares = [split(order.batch(step), workers, 8 // workers) for step in range(20)]
        pieces = range(8 // workers)
        seen.append([[share[w][m] for m in pieces for w in range(workers)] for share in shares])
    flat = [[[draw for piece in step for draw in piece] for step in run] for run in seen]
    assert flat[0] == flat[1] == flat[2]


@given(st.integers(0, 400), st.integers(1, 16))
def test_any_step_can_be_asked_for_alone(step: int, batch: int) -> None:
    walked = SampleOrder([23, 7], [2, 1], batch, 1)
    for before in range(max(step - 3, 0), step):
        walked.batch(before)
    assert walked.batch(step) == SampleOrder([23, 7], [2, 1], batch, 1).batch(step)


@settings(max_examples=60)
@given(
    sizes=st.lists(st.integers(1, 30), min_size=2, max_size=4),
    ratios=st.lists(st.floats(0.1, 5), min_size=4, max_size=4),
    batch=st.integers(1, 20),
)
def test_pools_are_mixed_by_their_ratios_all_the_way(sizes: list[int], ratios: list[float], batch: int) -> None:
    ratios = ratios[: len(sizes)]
    order = SampleOrder(sizes, ratios, batch, 0)
    counts = np.zeros(len(sizes))
    for step in range(30):
        drawn = order.batch(step)
        assert len(drawn) == batch
        counts += np.bincount([draw.pool for draw in drawn], minlength=len(sizes))
        expected = (step + 1) * batch * np.array(ratios) / sum(ratios)
        assert np.abs(counts - expected).max() <= len(sizes)


def test_image_and_region_are_half_and_half_in_every_batch_and_spread_over_it() -> None:
    batch = SampleOrder([1000, 10], [1, 1], 8, 0).batch(5)
    assert [draw.pool for draw in batch] == [0, 1] * 4


def test_seeds_and_epochs_shuffle_differently() -> None:
    def indices(seed: int, step: int) -> list[int]:
        return [draw.index for draw in SampleOrder([50], None, 50, seed).batch(step)]

    assert indices(0, 0) != indices(1, 0)
    assert indices(0, 0) != indices(0, 1)


def test_a_pool_with_a_share_needs_samples() -> None:
    with pytest.raises(ValueError, match="Pool 1"):
        SampleOrder([5, 0], [1, 1], 4, 0)
    with pytest.raises(ValueError, match="as many ratios"):
        SampleOrder([5], [1, 1], 4, 0)


@given(st.integers(2, 300), st.floats(0.01, 0.99))
def test_what_is_held_out_is_about_the_fraction_and_never_all_or_none(count: int, fraction: float) -> None:
    keys = pa.array([f"image-{number}" for number in range(count)])
    out = held_out(keys, fraction, 0)
    assert 0 < out.sum() < count
    assert abs(out.mean() - fraction) < 5 * np.sqrt(fraction * (1 - fraction) / count) + 1 / count


def test_samples_of_one_image_stay_together_and_the_choice_stays_when_images_come() -> None:
    few = [f"image-{number // 3}" for number in range(300)]
    out = held_out(pa.array(few), 0.2, 0)
    assert (out.reshape(-1, 3).sum(axis=1) % 3 == 0).all()
    assert (held_out(pa.chunked_array([few[:7], [*few[7:], "new-1", "new-2"]]), 0.2, 0)[:300] == out).all()
    assert not held_out(pa.array(few), 0.0, 0).any()
