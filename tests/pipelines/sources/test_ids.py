"""Ids in little memory."""

import tracemalloc

import pytest

from pipelines.sources import ids
from pipelines.sources.ids import SeenIds, hash64


@pytest.fixture(autouse=True)
def _small_merges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ids, "_RECENT", 1000)


def test_it_knows_what_it_has_met_and_nothing_else() -> None:
    met, wanted = SeenIds(), [f"train/{number}.jpg" for number in range(5_500)]
    assert wanted[0] not in met
    for number, image_id in enumerate(wanted):
        assert image_id not in met
        assert met.add(image_id)
        assert not met.add(wanted[number // 2])  # once more: of those that are sorted already as of the recent ones
    assert len(met) == len(wanted)
    assert all(image_id in met for image_id in wanted)
    assert not any(f"val/{number}.jpg" in met for number in range(5_500))


def test_ids_that_are_no_utf8_are_ids_too() -> None:
    met = SeenIds()
    met.add("\udcff.jpg")
    assert "\udcff.jpg" in met
    assert "\udcfe.jpg" not in met


def test_a_hash_is_the_same_in_every_process() -> None:
    assert hash64("397133") == 16374284632724476306


def test_an_id_takes_a_few_bytes() -> None:
    met = SeenIds()
    tracemalloc.start()
    try:
        for number in range(50_000):
            met.add(str(number))
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 12 * 50_000  # a set of these texts takes 100 bytes each
