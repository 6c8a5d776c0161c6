"""What a job will take: images and workers to hours and dollars, by rates that were measured and by nothing else.

A rate says how many images (precompute) or samples (training) one worker got through in a second: one tagger's actor,
one worker of a training, on a GPU or a CPU. It comes from the `speed` that finished steps leave in their manifests, or
from a YAML list of entries such as

    - {verb: precompute, per_second: 52.0, device: NVIDIA H100, samples_per_image: 1, by: "RAM 384 px, commit 0123abc"}
"""

import dataclasses
import os
from collections.abc import Iterator, Sequence
from typing import Any

import yaml

from pipelines.core import storage
from pipelines.core.errors import UserError
from pipelines.core.steps import read_manifest
from pipelines.operations.doctor.config import CostConfig
from pipelines.operations.doctor.findings import Finding

_STEPS = ("precompute", "train_tag_encoder", "train_stage 1", "train_stage 2", "train_stage 3")


@dataclasses.dataclass(frozen=True)
class Rate:
    """How fast one worker is.

    Attributes:
        verb: of the step; of LION's stages with the stage's number, such as `train_stage 1`.
        per_second: images or samples.
        device: what the worker computes on.
        samples_per_image: how often each image of the data is gone through, all epochs and questions counted.
        by: what measured it: hardware, model, commit.
    """

    verb: str
    per_second: float
    device: str
    samples_per_image: float = 1.0
    by: str = "the user"

    def __post_init__(self) -> None:
        if self.verb not in _STEPS:
            raise UserError(f"A rate is of {self.verb!r}; give one of {', '.join(_STEPS)}.")
        if min(self.per_second, self.samples_per_image) <= 0:
            raise UserError(f"The rate of {self.verb} is {self.per_second:g} a second with {self.samples_per_image:g} "
                            "samples per image; both must be above 0.")  # fmt: skip


def cost_findings(config: CostConfig) -> Iterator[Finding]:
    """Hours and dollars of every step that a rate is known of; what is not known is said, not guessed.

    Raises:
        UserError: a rate cannot be read.
    """
    if config.images is None:
        return
    rates = [*map(measured, config.measured), *(read_rates(config.rates) if config.rates else [])]
    for verb in _STEPS:
        known = [rate for rate in rates if rate.verb == verb]
        for rate in known:
            yield Finding(f"cost: {verb}", "ok", reckoned(rate, config))
        if not known:
            yield Finding(
                f"cost: {verb}", "warning",
                f"no rate of {verb} was measured; run it on a few hundred images on the hardware that it is meant for, "
                "and give its folder by --cost.measured '[FOLDER]'.",
            )  # fmt: skip


def reckoned(rate: Rate, config: CostConfig) -> str:
    """Return a sentence with hours, worker hours and dollars."""
    assert config.images is not None
    samples = config.images * rate.samples_per_image
    together = rate.per_second * config.workers
    hours = samples / together / 3600
    unit = "images" if rate.samples_per_image == 1 else f"samples ({rate.samples_per_image:.3g} per image)"
    said = (
        f"{samples:,.0f} {unit} at {rate.per_second:.3g}/s per worker on {rate.device} ({rate.by}): "
        f"{hours:,.3g} h on {config.workers} worker{'s' if config.workers > 1 else ''}, if the speed grows with them"
    )
    if config.dollars_per_hour is None:
        return f"{said}; {hours * config.workers:,.3g} worker hours"
    dollars = hours * config.workers * config.dollars_per_hour
    return f"{said}; ${dollars:,.2f} at ${config.dollars_per_hour:g} a worker hour"


def measured(folder: str) -> Rate:
    """Return the rate of a finished step.

    Raises:
        UserError: it is no such step, or it was over too soon to be measured.
    """
    manifest = read_manifest(folder)
    speed = manifest.get("speed")
    if not speed:
        raise UserError(
            f"{folder} has no speed in its manifest: it is of another verb, of an older version, or it was over too "
            "soon; give a step of some hundred images."
        )
    verb = manifest["step"]
    if verb == "train_stage":
        verb = f"{verb} {manifest['config']['stage']}"
    workers = speed["workers"]
    by = f"measured in {os.path.basename(folder.rstrip('/'))} on {workers} worker{'s' if workers > 1 else ''}, " \
         f"commit {str(manifest['git_commit'])[:9]}"  # fmt: skip
    return Rate(verb, speed["per_second"] / workers, speed["device"], _samples_per_image(manifest), by)


def _samples_per_image(manifest: dict[str, Any]) -> float:
    """Sample that a training saw for each image of its tagged table; 1 for precompute."""
    if manifest["step"] == "precompute":
        return 1.0
    inputs = manifest["inputs"]
    tagged = inputs.get("tagged", inputs["data"])["path"]
    if not storage.exists(tagged):
        raise UserError(f"{tagged}, of which the training saw {manifest['rows']} samples, is gone: it is not known how "
                        "many images that were; give the rate by --cost.rates.")  # fmt: skip
    return float(manifest["rows"]) / float(read_manifest(tagged)["rows"])


def read_rates(path: str) -> Sequence[Rate]:
    """Return the rates of a YAML file.

    Raises:
        UserError: it is not there, or no list of rates.
    """
    if not storage.exists(path):
        raise UserError(f"{path} does not exist; give a YAML list of rates as --cost.rates.")
    try:
        return [Rate(**entry) for entry in yaml.safe_load(storage.read_bytes(path))]
    except (yaml.YAMLError, TypeError) as error:
        fields = ", ".join(field.name for field in dataclasses.fields(Rate))
        raise UserError(f"{path} is no list of rates ({error}); each entry has {fields}.") from error
