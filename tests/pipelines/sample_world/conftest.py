"""Entries of the sample world for tests."""

import pytest

from pipelines.sample_world.entries import Entry, make_entry
from pipelines.sample_world.scenes import PRESETS


@pytest.fixture(scope="session")
def entries() -> list[Entry]:
    """Two hundred entries of each preset."""
    return [make_entry(3, "train", index, preset) for preset in PRESETS.values() for index in range(200)]
