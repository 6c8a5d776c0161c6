"""Cost estimates: hours and dollars for a number of images and workers, from measured rates only.

A rate is the number of images (precompute) or samples (training) per second of one worker: one tagger actor or one
training worker, on a GPU or a CPU. Rates come from the `speed` entry in the manifests of finished steps, or from a YAML
list with entries such as

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
    """The speed of one worker.

    Attributes:
        verb: verb of the step; for LION's stages with the stage's number, such as `train_stage 1`.
        per_second: images or samples per second.
        device: name of the GPU or CPU that the worker computes on.
        samples_per_image: number of samples per image of the data, over all epochs and questions.
        by: source of the measurement: hardware, model, commit.
    """

    verb: str
    per_second: float
    device: str
    samples_per_image: float = 1.0
    by: str = "the user"

    def __post_init__(self) -> None:
        if self.verb not in _STEPS:
            raise UserError(f"A rate has the verb {self.verb!r}; use one of {', '.join(_STEPS)}.")
        if min(self.per_second, self.samples_per_image) <= 0:
            raise UserError(f"The rate of {self.verb} has per_second {self.per_second:g} and samples_per_image "
                            f"{self.samples_per_image:g}; both must be above 0.")  # fmt: skip


def cost_findings(config: CostConfig) -> Iterator[Finding]:
    """Yield the estimated hours and dollars of each step; a step without a measured rate gives a warning, no guess.

    Raises:
        UserError: a rate cannot be read.
    """
    if config.images is None:
        return
    rates = [*map(measured_rate, config.measured), *(read_rates(config.rates) if config.rates else [])]
    for verb in _STEPS:
        rates_of_step = [rate for rate in rates if rate.verb == verb]
        for rate in rates_of_step:
            yield Finding(f"cost: {verb}", "ok", estimate_text(rate, config))
        if not rates_of_step:
            yield Finding(
                f"cost: {verb}", "warning",
                f"no rate of {verb} was measured; run it on a few hundred images on the target hardware and give its "
                "folder as --cost.measured '[FOLDER]'.",
            )  # fmt: skip


def estimate_text(rate: Rate, config: CostConfig) -> str:
    """Return the estimate for one step as a sentence: hours, worker hours and, with a price, dollars."""
    assert config.images is not None
    samples = config.images * rate.samples_per_image
    hours = samples / (rate.per_second * config.workers) / 3600
    unit = "images" if rate.samples_per_image == 1 else f"samples ({rate.samples_per_image:.3g} per image)"
    text = (
        f"{samples:,.0f} {unit} at {rate.per_second:.3g}/s per worker on {rate.device} ({rate.by}): "
        f"{hours:,.3g} h on {config.workers} worker{'s' if config.workers > 1 else ''}, if the speed "
        "grows with the workers"
    )
    if config.dollars_per_hour is None:
        return f"{text}; {hours * config.workers:,.3g} worker hours"
    dollars = hours * config.workers * config.dollars_per_hour
    return f"{text}; ${dollars:,.2f} at ${config.dollars_per_hour:g} a worker hour"


def measured_rate(folder: str) -> Rate:
    """Return the rate of a finished step from its manifest.

    Args:
        folder: the step's folder.

    Raises:
        UserError: the step has no measured speed, or the table that it read does not exist any more.
    """
    manifest = read_manifest(folder)
    speed = manifest.get("speed")
    if not speed:
        raise UserError(
            f"{folder} has no speed in its manifest: its verb is not measured, its version is too old, or it ran too "
            "briefly; give a step with a few hundred images."
        )
    verb = manifest["step"]
    if verb == "train_stage":
        verb = f"{verb} {manifest['config']['stage']}"
    workers = speed["workers"]
    by = f"measured in {os.path.basename(folder.rstrip('/'))} on {workers} worker{'s' if workers > 1 else ''}, " \
         f"commit {str(manifest['git_commit'])[:9]}"  # fmt: skip
    return Rate(verb, speed["per_second"] / workers, speed["device"], _samples_per_image(manifest), by)


def _samples_per_image(manifest: dict[str, Any]) -> float:
    """Return the number of samples per image of the tagged table in a training; 1 for precompute."""
    if manifest["step"] == "precompute":
        return 1.0
    inputs = manifest["inputs"]
    # A tag encoder's `data` is the tagged table; a stage's `data` is the instructions, with `tagged` as another input.
    tagged = inputs.get("tagged", inputs["data"])["path"]
    if not storage.exists(tagged):
        raise UserError(f"{tagged} does not exist any more, so the number of images of a training with "
                        f"{manifest['rows']} samples is unknown; give the rate as --cost.rates.")  # fmt: skip
    return float(manifest["rows"]) / float(read_manifest(tagged)["rows"])


def read_rates(path: str) -> Sequence[Rate]:
    """Return the rates of a YAML file.

    Raises:
        UserError: the file does not exist or is not a list of rates.
    """
    if not storage.exists(path):
        raise UserError(f"{path} does not exist; give a YAML list of rates as --cost.rates.")
    try:
        return [Rate(**entry) for entry in yaml.safe_load(storage.read_bytes(path))]
    except (yaml.YAMLError, TypeError) as error:
        fields = ", ".join(field.name for field in dataclasses.fields(Rate))
        raise UserError(f"{path} is not a list of rates ({error}); the fields of an entry are {fields}.") from error
