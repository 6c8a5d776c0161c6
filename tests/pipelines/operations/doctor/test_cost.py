"""Hours and dollars, by rates that were measured and by nothing else."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.core.errors import UserError
from pipelines.operations.doctor.config import CostConfig
from pipelines.operations.doctor.cost import Rate, cost_findings, measured, read_rates, reckoned


def finished(folder: Path, **manifest: Any) -> str:
    """A finished step's folder."""
    folder.mkdir()
    (folder / "manifest.json").write_text(json.dumps({"git_commit": "0123456789abcdef", "config": {}, **manifest}))
    return str(folder)


@pytest.fixture
def steps(tmp_path: Path) -> list[str]:
    """Precompute of 200 images at 30 a second by three actors, and a training that saw each five times."""
    speed = {"unit": "images", "per_second": 30.0, "workers": 3, "device": "NVIDIA H100"}
    tagged = finished(tmp_path / "precompute-1", step="precompute", rows=200, speed=speed)
    speed = {"unit": "samples", "per_second": 80.0, "workers": 2, "device": "NVIDIA H100"}
    stage = finished(
        tmp_path / "train_stage-1", step="train_stage", rows=1000, speed=speed, config={"stage": 2},
        inputs={"tagged": {"path": tagged}, "data": {"path": "elsewhere"}},
    )  # fmt: skip
    return [tagged, stage]


def test_a_rate_is_of_one_worker_and_one_image(steps: list[str]) -> None:
    precompute, stage = map(measured, steps)
    assert (precompute.verb, precompute.per_second, precompute.samples_per_image) == ("precompute", 10.0, 1.0)
    assert (stage.verb, stage.per_second, stage.samples_per_image) == ("train_stage 2", 40.0, 5.0)
    assert "on 3 workers, commit 012345678" in precompute.by


def test_hours_and_dollars_follow_from_the_rate() -> None:
    rate = Rate("train_stage 2", 40.0, "NVIDIA H100", samples_per_image=5.0)
    said = reckoned(rate, CostConfig(images=1_152_000, workers=8, dollars_per_hour=2.5))
    assert "5,760,000 samples (5 per image)" in said
    assert "5 h on 8 workers" in said
    assert "$100.00 at $2.5" in said
    assert "40 worker hours" in reckoned(rate, CostConfig(images=1_152_000, workers=8))


def test_what_was_not_measured_is_said_and_not_guessed(steps: list[str]) -> None:
    assert list(cost_findings(CostConfig(measured=steps))) == []
    found = {one.about: one for one in cost_findings(CostConfig(images=1_000_000, measured=steps))}
    assert {about for about, one in found.items() if one.state == "ok"} == {"cost: precompute", "cost: train_stage 2"}
    assert "no rate of train_stage 3 was measured" in found["cost: train_stage 3"].said


def test_rates_of_the_user_are_read(tmp_path: Path) -> None:
    path = tmp_path / "rates.yaml"
    path.write_text("- {verb: precompute, per_second: 52.0, device: L4, by: a note}\n")
    assert read_rates(str(path)) == [Rate("precompute", 52.0, "L4", by="a note")]
    for text, said in (
        ("- {verb: bake, per_second: 1, device: x}", "A rate is of 'bake'"),
        ("- {verb: precompute, per_second: 0, device: x}", "must be above 0"),
        ("- {verb: precompute, speed: 3}", "no list of rates"),
        ("3", "no list of rates"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=said):
            read_rates(str(path))
    with pytest.raises(UserError, match="does not exist"):
        read_rates(str(tmp_path / "no.yaml"))


def test_a_step_without_a_rate_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no speed in its manifest"):
        measured(finished(tmp_path / "evaluate-1", step="evaluate", rows=3))
    with pytest.raises(UserError, match=r"cost\.images is -1"):
        CostConfig(images=-1)
