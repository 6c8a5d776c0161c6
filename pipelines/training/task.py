"""The interface of a task: the model, data, loss and metrics that the loop trains with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor, nn

from pipelines.training.data import Batch, TrainingData


@dataclass(frozen=True)
class Output:
    """The result of a forward pass over a batch.

    Attributes:
        loss: sum of the losses, a scalar; the mean is this sum divided by the batch's weight.
        sums: tensors that the loop sums over batches and workers, and from which `Task.metrics` computes metrics.
    """

    loss: Tensor
    sums: Mapping[str, Tensor] = field(default_factory=dict)


class Task(Protocol):
    """The model, data, loss and metrics of a training.

    A task is pickled to the workers: it has settings and paths, and loads models and tables in each worker.
    """

    @property
    def base(self) -> Mapping[str, str]:
        """Digest of each input that frozen weights come from, by name."""

    def build(self) -> nn.Module:
        """Return the model on CPU with its start weights. Exactly the trained parameters require gradients."""

    def group_of(self, name: str) -> str:
        """Return the parameter group of a parameter."""

    @property
    def groups(self) -> Sequence[str]:
        """The parameter groups that settings may name."""

    def data(self) -> TrainingData:
        """Return the training and validation samples."""

    def forward(self, model: Any, batch: Batch) -> Output:
        """Return the loss of a batch. `model` is the built model, or DeepSpeed's engine, which is called like it."""

    def metrics(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """Return the metrics of a validation from the sums over all its batches."""

    def save(self, model: nn.Module, folder: str) -> None:
        """Write the trained model's `from_pretrained` folder to a local path."""
