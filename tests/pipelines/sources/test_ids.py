"""Sets of ids in little memory."""

import tracemalloc

import pytest

from pipelines.sources import ids
from pipelines.sources.ids import SeenIds, hash64


@pytest.fixture(autouse=True)
def _small_merges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ids, "_RECENT", 1000)


def test_it_contains_exactly_the_added_ids() -> None:
    seen, image_ids = SeenIds(), [f"train/{number}.jpg" for number in range(5_500)]
    assert image_ids[0] not in seen
    for number, image_id in enumerate(image_ids):
        assert image_id not in seen
        assert seen.add(image_id)
        assert not seen.add(image_ids[number // 2])  # again: an id of the sorted or of the recent ones
    assert len(seen) == len(image_ids)
    assert all(image_id in seen for image_id in image_ids)
    assert not any(f"val/{number}.jpg" in seen for number in range(5_500))


def test_ids_that_are_no_utf8_are_ids_too() -> None:
    seen = SeenIds()
    seen.add("\udcff.jpg")
    assert "\udcff.jpg" in seen
    assert "\udcfe.jpg" not in seen


def test_a_hash_is_the_same_in_every_process() -> None:
    assert hash64("397133") == 16374284632724476306


def test_an_id_takes_a_few_bytes() -> None:
    seen = SeenIds()
    tracemalloc.start()
    try:
        for number in range(50_000):
            seen.add(str(number))
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 12 * 50_000  # a set of these texts takes 100 bytes each
