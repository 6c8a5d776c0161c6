"""Cost estimates from measured rates."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.core.errors import UserError
from pipelines.operations.doctor.config import CostConfig
from pipelines.operations.doctor.cost import Rate, cost_findings, estimate_text, measured_rate, read_rates


def finished(folder: Path, **manifest: Any) -> str:
    """Write the manifest of a finished step and return its folder."""
    folder.mkdir()
    (folder / "manifest.json").write_text(json.dumps({"git_commit": "0123456789abcdef", "config": {}, **manifest}))
    return str(folder)


@pytest.fixture
def steps(tmp_path: Path) -> list[str]:
    """Write a precompute (200 images, 30 per second, 3 actors) and a training with 5 samples per image."""
    speed = {"unit": "images", "per_second": 30.0, "workers": 3, "device": "NVIDIA H100"}
    tagged = finished(tmp_path / "precompute-1", step="precompute", rows=200, speed=speed)
    speed = {"unit": "samples", "per_second": 80.0, "workers": 2, "device": "NVIDIA H100"}
    stage = finished(
        tmp_path / "train_stage-1", step="train_stage", rows=1000, speed=speed, config={"stage": 2},
        inputs={"tagged": {"path": tagged}, "data": {"path": "elsewhere"}},
    )  # fmt: skip
    return [tagged, stage]


def test_a_rate_is_of_one_worker_and_one_image(steps: list[str]) -> None:
    precompute, stage = map(measured_rate, steps)
    assert (precompute.verb, precompute.per_second, precompute.samples_per_image) == ("precompute", 10.0, 1.0)
    assert (stage.verb, stage.per_second, stage.samples_per_image) == ("train_stage 2", 40.0, 5.0)
    assert "on 3 workers, commit 012345678" in precompute.by


def test_hours_and_dollars_follow_from_the_rate() -> None:
    rate = Rate("train_stage 2", 40.0, "NVIDIA H100", samples_per_image=5.0)
    text = estimate_text(rate, CostConfig(images=1_152_000, workers=8, dollars_per_hour=2.5))
    assert "5,760,000 samples (5 per image)" in text
    assert "5 h on 8 workers" in text
    assert "$100.00 at $2.5" in text
    assert "40 worker hours" in estimate_text(rate, CostConfig(images=1_152_000, workers=8))


def test_a_step_without_a_rate_gives_a_warning(steps: list[str]) -> None:
    assert list(cost_findings(CostConfig(measured=steps))) == []
    findings = {finding.about: finding for finding in cost_findings(CostConfig(images=1_000_000, measured=steps))}
    assert {about for about, finding in findings.items() if finding.state == "ok"} == {
        "cost: precompute",
        "cost: train_stage 2",
    }
    assert "no rate of train_stage 3 was measured" in findings["cost: train_stage 3"].message


def test_rates_of_the_user_are_read(tmp_path: Path) -> None:
    path = tmp_path / "rates.yaml"
    path.write_text("- {verb: precompute, per_second: 52.0, device: L4, by: a note}\n")
    assert read_rates(str(path)) == [Rate("precompute", 52.0, "L4", by="a note")]
    for text, message in (
        ("- {verb: bake, per_second: 1, device: x}", "A rate has the verb 'bake'"),
        ("- {verb: precompute, per_second: 0, device: x}", "must be above 0"),
        ("- {verb: precompute, speed: 3}", "not a list of rates"),
        ("3", "not a list of rates"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=message):
            read_rates(str(path))
    with pytest.raises(UserError, match="does not exist"):
        read_rates(str(tmp_path / "no.yaml"))


def test_a_step_without_a_measured_speed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no speed in its manifest"):
        measured_rate(finished(tmp_path / "evaluate-1", step="evaluate", rows=3))
    with pytest.raises(UserError, match=r"cost\.images is -1"):
        CostConfig(images=-1)
