"""Resource planning: defaults of a launch, and how many workers fit on the nodes."""

import os

import pytest

from pipelines.core.errors import UserError
from pipelines.core.resources import LaunchConfig, cores_per_process, resolve_launch, worker_resources, workers_that_fit


def test_an_elastic_training_needs_room_for_the_fewest() -> None:
    assert LaunchConfig(workers=4).fewest == 4
    assert LaunchConfig(workers=4, min_workers=2).fewest == 2
    for wrong in ({"min_workers": 5}, {"min_workers": 0}, {"min_workers": 2, "launcher": "local"}, {"resize_every": 0}):
        with pytest.raises(UserError, match="launch"):
            LaunchConfig(**{"workers": 4, **wrong})  # type: ignore[arg-type]


def test_a_launch_without_workers_is_refused() -> None:
    with pytest.raises(UserError, match=r"launch\.workers is 0; set it to at least 1"):
        LaunchConfig(workers=0)


def test_cores_are_divided_by_the_processes_and_capped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 12)
    assert [cores_per_process(processes) for processes in (1, 3, 5, 100)] == [8, 4, 2, 1]


def test_empty_fields_are_filled_from_the_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    launch = resolve_launch(LaunchConfig(workers=2), [{"CPU": 8.0}, {"CPU": 8.0, "GPU": 1.0}])
    assert (launch.cpus_per_worker, launch.gpus_per_worker) == (2, 1.0)
    assert worker_resources(LaunchConfig(workers=2), has_gpus=False) == (2, 0.0)
    explicit = LaunchConfig(cpus_per_worker=3, gpus_per_worker=0.5)
    assert resolve_launch(explicit, [{"CPU": 8.0}]) == explicit


@pytest.mark.parametrize(
    ("gpus", "nodes", "reserved", "workers"),
    [
        (0.0, [{"CPU": 5.0}, {"CPU": 5.0}], 0.0, 4),  # 1 CPU is left on each node: the rests do not add up
        (0.0, [{"CPU": 5.0}, {"CPU": 5.0}], 2.0, 2),
        (0.0, [{"CPU": 1.0}], 4.0, 0),  # never below 0
        (0.5, [{"CPU": 16.0, "GPU": 1.0}, {"CPU": 16.0}], 0.0, 2),  # GPUs are short, not CPUs
    ],
)
def test_a_worker_needs_its_cpus_and_gpus_on_one_node(
    gpus: float, nodes: list[dict[str, float]], reserved: float, workers: int
) -> None:
    launch = LaunchConfig(cpus_per_worker=2, gpus_per_worker=gpus)
    assert workers_that_fit(launch, nodes, reserved) == workers
