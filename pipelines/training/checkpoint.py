"""Checkpoints by parameter name: trainable weights and optimizer state in safetensors, the rest in JSON.

A checkpoint is a folder `step-00000123` with

* `weights.safetensors`: the trained weights in fp32, by the model's own names, nothing frozen (P6);
* `optimizer.safetensors`: AdamW's moments as `NAME.exp_avg` and `NAME.exp_avg_sq`;
* `state.json`, written last, so that a folder without it does not count: the next step, AdamW's step, the seed that
  order and dropout follow from, the digests of the frozen base weights, and the history of metrics.

It knows neither the number of workers nor the ZeRO stage. Order, learning rate and random numbers are functions of seed
and step, so that the step is all there is to a cursor, a scheduler and a random state.
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
    """Everything of a training beside its tensors.

    Attributes:
        step: the next step; as many are done.
        samples: samples seen.
        seed: what order and dropout follow from.
        identity: the training step's hash.
        base: digest of each input that frozen weights come from, by name.
        best_loss: the lowest validation loss so far.
        best_step: when it was reached.
        updates: AdamW's steps, fewer than `step` where fp16 left some out; None: as many.
        loss_scale: fp16's loss scale and what it follows from.
        history: the records of metrics so far.
        device: what it computed on, by its maker's name.
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
        keep: how many of the latest stay, besides the best.
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
        """Return the steps that have a whole checkpoint, rising."""
        found = (_FOLDER.search(name) for name in storage.list_files(self.folder, "state.json"))
        return sorted(int(match[1]) for match in found if match)

    def write(self, state: State, weights: Mapping[str, Tensor], moments: Mapping[str, Tensor]) -> None:
        """Write in the background, after the checkpoint before it; an error of that one is raised here."""
        self.wait()
        self._pending = self._writer.submit(self._write, state, weights, moments)

    def wait(self) -> None:
        """Wait until what was written is there.

        Raises:
            UserError: the disk is full, or the store refused it.
        """
        if self._pending is None:
            return
        pending, self._pending = self._pending, None
        try:
            pending.result()
        except OSError as error:
            raise UserError(
                f"A checkpoint could not be written to {self.folder} ({error}); make room or correct the path and run "
                "the same command again: it goes on from the checkpoint before."
            ) from error

    def _write(self, state: State, weights: Mapping[str, Tensor], moments: Mapping[str, Tensor]) -> None:
        path = self.path(state.step)
        storage.write_atomic(storage.join(path, "weights.safetensors"), save(dict(weights)))
        storage.write_atomic(storage.join(path, "optimizer.safetensors"), save(dict(moments)))
        storage.write_json(storage.join(path, "state.json"), asdict(state))
        for step in [step for step in self.steps()[: -self.keep] if step != state.best_step]:
            self.delete(step)

    def delete(self, step: int) -> None:
        """Delete a checkpoint; `state.json` goes first, so that half of one never counts."""
        storage.delete_file(storage.join(self.path(step), "state.json"))
        storage.delete_folder(self.path(step))

    def latest(self) -> State | None:
        """Return the state of the last whole checkpoint, or None before the first."""
        steps = self.steps()
        return self.state(steps[-1]) if steps else None

    def state(self, step: int) -> State:
        """Return the state of a step's checkpoint.

        Raises:
            UserError: it was written by another version of this code.
        """
        found = storage.read_json(storage.join(self.path(step), "state.json"))
        if found.get("format") != FORMAT:
            raise UserError(
                f"{self.path(step)} has format {found.get('format')}, this code reads {FORMAT}; use another --out."
            )
        return State(**found)

    def weights(self, step: int) -> dict[str, Tensor]:
        """Return the trained weights of a step's checkpoint, in fp32."""
        return _load(storage.join(self.path(step), "weights.safetensors"))

    def moments(self, step: int) -> dict[str, Tensor]:
        """AdamW's moments of a step's checkpoint."""
        return _load(storage.join(self.path(step), "optimizer.safetensors"))


def apply_weights(model: nn.Module, weights: Mapping[str, Tensor], source: str, round_off: bool = False) -> None:
    """Put a checkpoint's fp32 weights into a model that trains exactly these; the frozen ones keep their precision.

    Args:
        model: built as at the start of the training.
        weights: in fp32, by name.
        source: where they come from, for messages.
        round_off: in the precision that the model has, instead of in fp32.

    Raises:
        UserError: a trained weight is missing, one too many is there, or a shape differs.
    """
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    missing, extra = sorted(trained.keys() - weights.keys()), sorted(weights.keys() - trained.keys())
    if missing or extra:
        raise UserError(f"{source} does not fit the model: it lacks {missing[:5]} and has {extra[:5]} besides.")
    for name, parameter in trained.items():
        if parameter.shape != weights[name].shape:
            raise UserError(
                f"{source} does not fit the model: {name} is {tuple(weights[name].shape)} there, "
                f"{tuple(parameter.shape)} here."
            )
        parameter.data = weights[name].to(parameter.dtype) if round_off else weights[name]


def _load(uri: str) -> dict[str, Tensor]:
    return load(storage.read_bytes(uri)) if storage.is_remote(uri) else load_file(storage.absolute(uri))
