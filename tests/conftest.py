"""Fixtures of all tests: real data, a Ray session, and a sample world."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parent.parent
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.3")
# No deadline: the time of an example depends on the load of the machine.
settings.register_profile("lion", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("lion")


@pytest.fixture(scope="session")
def root() -> Path:
    """Return the root of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the folder of real data and reference tensors; skip the test if it is missing."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("needs ../shared (real data and reference tensors)")
    return folder


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """Start a local Ray for the session, with more logical CPUs than cores because Data and Train share it."""
    from pipelines.core.runtime import RayConfig, ray_session

    with ray_session(RayConfig(address="local")):
        yield


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Draw a sample world of 60 images. Tests must not change it."""
    from pipelines.sample_world.writing import SampleWorldConfig, sample_world

    out = tmp_path_factory.mktemp("world")
    return Path(sample_world(SampleWorldConfig(out=str(out), images=60, seed=7, preset="tiny")).path)
