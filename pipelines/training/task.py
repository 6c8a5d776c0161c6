"""What the loop asks of a training: its model, its data, its loss, its metrics."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor, nn

from pipelines.training.data import Batch, TrainingData


@dataclass(frozen=True)
class Output:
    """What a batch gave.

    Attributes:
        loss: sum of the losses, a scalar; divided by the batch's weight it is the mean.
        sums: whatever the metrics are made of; summed over batches and workers.
    """

    loss: Tensor
    sums: Mapping[str, Tensor] = field(default_factory=dict)


class Task(Protocol):
    """A training. It is pickled to the workers, so that it holds settings, not models."""

    @property
    def base(self) -> Mapping[str, str]:
        """Digest of each input that frozen weights come from, by name."""

    def build(self) -> nn.Module:
        """The model on CPU in fp32 with its start weights; what is trained requires gradients, nothing else does."""

    def group_of(self, name: str) -> str:
        """Return the parameter group of a parameter."""

    @property
    def groups(self) -> Sequence[str]:
        """The groups that a setting may name."""

    def data(self) -> TrainingData:
        """Return the samples."""

    def forward(self, model: Any, batch: Batch) -> Output:
        """Return the loss of a batch. `model` is called as the model is; it may be DeepSpeed's engine around it."""

    def metrics(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """Metrics from the sums of the whole validation."""

    def save(self, model: nn.Module, folder: str) -> None:
        """Write the trained model's `from_pretrained` folder to a local path."""
