"""Checkpoints by parameter name: trained weights and optimizer state in safetensors, the rest in JSON.

A checkpoint is a folder `step-00000123` with

* `weights.safetensors`: the trained weights in fp32, by the model's parameter names, without frozen weights (P6);
* `optimizer.safetensors`: AdamW's moments as `NAME.exp_avg` and `NAME.exp_avg_sq`;
* `state.json`: the next step, AdamW's step, the seed of order and dropout, the digests of the frozen base weights, and
  the history of metrics. It is written last: a folder without it is no checkpoint.

A checkpoint does not depend on the number of workers or the ZeRO stage. Sample order, learning rate and random numbers
are functions of seed and step, so that the step alone replaces the states of loader, scheduler and random generators.
"""

import concurrent.futures
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from safetensors.torch import load, load_file, save
from torch import Tensor, nn

from pipelines.core import storage
from pipelines.core.errors import UserError

log = logging.getLogger("lion.training")
FORMAT = 1
_FOLDER = re.compile(r"/step-(\d{8})/state\.json$")


@dataclass(frozen=True)
class State:
    """The state of a training without its tensors.

    Attributes:
        step: number of finished steps, which is also the next step.
        samples: number of samples seen.
        seed: seed of sample order and dropout.
        identity: hash of the training step.
        base: digest of each input that frozen weights come from, by name.
        best_loss: lowest validation loss so far.
        best_step: number of finished steps at the lowest validation loss.
        updates: number of AdamW's updates, fewer than `step` where fp16 skipped some; None: equal to `step`.
        loss_scale: fp16's loss scale with the counters that change it.
        history: the records of metrics so far.
        device: the device's product name, or `cpu`.
        format: version of this layout.
    """

    step: int
    samples: int
    seed: int
    identity: str
    base: Mapping[str, str]
    best_loss: float | None = None
    best_step: int | None = None
    updates: int | None = None
    loss_scale: Mapping[str, float] | None = None
    history: Sequence[Mapping[str, Any]] = field(default_factory=list)
    device: str = "cpu"
    format: int = FORMAT


class Checkpoints:
    """The checkpoints of one training, under `folder`.

    Args:
        folder: a path or URI.
        keep: number of the latest checkpoints that stay, besides the best one.
    """

    def __init__(self, folder: str, keep: int) -> None:
        self.folder = folder
        self.keep = keep
        self._writer = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: concurrent.futures.Future[None] | None = None

    def path(self, step: int) -> str:
        """Return the folder of a step's checkpoint."""
        return storage.join(self.folder, f"step-{step:08d}")

    def steps(self) -> list[int]:
        """Return the steps that have a whole checkpoint, in rising order."""
        matches = (_FOLDER.search(name) for name in storage.list_files(self.folder, "state.json"))
        return sorted(int(match[1]) for match in matches if match)

    def write(self, state: State, weights: Mapping[str, Tensor], moments: Mapping[str, Tensor]) -> None:
        """Write a checkpoint in the background.

        Raises:
            UserError: the previous checkpoint could not be written.
        """
        self.wait()
        self._pending = self._writer.submit(self._write, state, weights, moments)

    def wait(self) -> None:
        """Wait until the pending checkpoint is written.

        Raises:
            UserError: the disk is full, or the store refused the files.
        """
        if self._pending is None:
            return
        pending, self._pending = self._pending, None
        try:
            pending.result()
        except OSError as error:
            raise UserError(
                f"A checkpoint could not be written to {self.folder} ({error}); make room or correct the path and run "
                "the same command again: it resumes from the previous checkpoint."
            ) from error

    def _write(self, state: State, weights: Mapping[str, Tensor], moments: Mapping[str, Tensor]) -> None:
        path = self.path(state.step)
        storage.write_atomic(storage.join(path, "weights.safetensors"), save(dict(weights)))
        storage.write_atomic(storage.join(path, "optimizer.safetensors"), save(dict(moments)))
        storage.write_json(storage.join(path, "state.json"), asdict(state))
        for step in [step for step in self.steps()[: -self.keep] if step != state.best_step]:
            self.delete(step)

    def delete(self, step: int) -> None:
        """Delete a checkpoint, `state.json` first, so that a half deleted one does not count."""
        storage.delete_file(storage.join(self.path(step), "state.json"))
        storage.delete_folder(self.path(step))

    def latest(self) -> State | None:
        """Return the state of the last whole checkpoint, or None before the first."""
        steps = self.steps()
        return self.state(steps[-1]) if steps else None

    def last(self) -> State:
        """Return the state of the last checkpoint of a finished training, which always has one."""
        state = self.latest()
        assert state is not None
        return state

    def state(self, step: int) -> State:
        """Return the state of a step's checkpoint.

        Raises:
            UserError: another version of this code wrote it.
        """
        values = storage.read_json(storage.join(self.path(step), "state.json"))
        if values.get("format") != FORMAT:
            raise UserError(
                f"{self.path(step)} has format {values.get('format')}, but this code reads format {FORMAT}; use "
                "another --out."
            )
        return State(**values)

    def weights(self, step: int) -> dict[str, Tensor]:
        """Return the trained weights of a step's checkpoint, in fp32."""
        return _load(storage.join(self.path(step), "weights.safetensors"))

    def moments(self, step: int) -> dict[str, Tensor]:
        """Return AdamW's moments of a step's checkpoint, in fp32, by `NAME.exp_avg` and `NAME.exp_avg_sq`."""
        return _load(storage.join(self.path(step), "optimizer.safetensors"))


def apply_weights(model: nn.Module, weights: Mapping[str, Tensor], source: str, round_off: bool = False) -> None:
    """Load a checkpoint's weights into the trained parameters of a model; frozen parameters stay as they are.

    Args:
        model: the model as built at the start of the training.
        weights: fp32 tensors by parameter name.
        source: the checkpoint's folder, for messages.
        round_off: whether to convert the weights to the model's precision instead of storing them in fp32.

    Raises:
        UserError: a trained weight is missing, there is an unknown one, or a shape differs.
    """
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    missing, extra = sorted(trained.keys() - weights.keys()), sorted(weights.keys() - trained.keys())
    if missing or extra:
        raise UserError(
            f"{source} does not fit the model: it lacks the weights {missing[:5]} and has the unknown weights "
            f"{extra[:5]}; use another --out."
        )
    for name, parameter in trained.items():
        if parameter.shape != weights[name].shape:
            raise UserError(
                f"{source} does not fit the model: {name} has the shape {tuple(weights[name].shape)} "
                f"instead of {tuple(parameter.shape)}; use another --out."
            )
        parameter.data = weights[name].to(parameter.dtype) if round_off else weights[name]


def _load(uri: str) -> dict[str, Tensor]:
    return load(storage.read_bytes(uri)) if storage.is_remote(uri) else load_file(storage.absolute(uri))
