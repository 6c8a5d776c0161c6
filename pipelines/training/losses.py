"""The losses of the tag encoder, by name.

To add a loss, write a function with the signature of `TagEncoderLoss` in a module that the workers can import, and
either register it with `register_loss("cosine", cosine_loss)` before the step's function is called, or name it in the
configuration by its path: `loss: my_package.losses:cosine_loss`.
"""

from collections.abc import Callable

from torch import Tensor

from models.tag_encoder import triplet_margin_loss
from pipelines.training import extensions
from pipelines.training.config import TrainTagEncoderConfig

TagEncoderLoss = Callable[[Tensor, Tensor, Tensor, TrainTagEncoderConfig], Tensor]
"""Returns the loss of each sample, (samples,), from the vectors of its tags (the anchor), of its image's caption (the
positive) and of another image's caption (the negative), each (samples, width) in fp32, and the training's settings."""


def triplet_loss(anchor: Tensor, positive: Tensor, negative: Tensor, settings: TrainTagEncoderConfig) -> Tensor:
    """Return max(‖a − p‖ − ‖a − n‖ + margin, 0) for each sample, (samples,)."""
    return triplet_margin_loss(anchor, positive, negative, settings.margin, settings.p)


LOSSES: dict[str, TagEncoderLoss] = {"triplet": triplet_loss}
"""The registered losses by name, for `loss` of the tag encoder's training."""


def register_loss(name: str, loss: TagEncoderLoss) -> None:
    """Add a loss of the tag encoder under a name.

    Call it before the step's function, in the same process: the function is pickled to the workers.

    Raises:
        ValueError: another loss has the name.
    """
    extensions.register(LOSSES, "loss", name, loss)


def find_loss(name: str) -> TagEncoderLoss:
    """Return a registered loss, or import one that is named as `module:function`.

    Raises:
        UserError: no loss is registered by that name, or the import fails.
    """
    cure = "register it with register_loss, or give its path as package.module:function"
    return extensions.find(LOSSES, name, "loss", f"loss is {name!r}", cure)
