"""Fixtures for the whole suite: the given material, one Ray for the session, a clean MLflow for each test."""

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
# How long an example takes says how busy the machine is, not whether the code is right.
settings.register_profile("house", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("house")


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's root."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """The given real data and reference tensors; tests that need them skip where they are absent."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("needs ../shared (real data and reference tensors)")
    return folder


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """One local Ray for the session, with more logical CPUs than the machine has (Data and Train share it)."""
    from pipelines.core.runtime import RayConfig, ray_session

    with ray_session(RayConfig(address="local")):
        yield


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sample world of 60 images, for tests that read it; nobody writes to it."""
    from pipelines.sample_world.writing import SampleWorldConfig, sample_world

    out = tmp_path_factory.mktemp("world")
    return Path(sample_world(SampleWorldConfig(out=str(out), images=60, seed=7, preset="tiny")).path)
