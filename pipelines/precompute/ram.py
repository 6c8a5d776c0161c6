"""The tagger Recognize Anything (RAM)."""

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np

from models.tags import ImageTags
from pipelines.core import storage
from pipelines.core.copies import local_copy
from pipelines.core.errors import UserError
from pipelines.core.runtime import worker_threads
from pipelines.precompute.config import Precision
from pipelines.precompute.taggers import Tagger

if TYPE_CHECKING:
    import torch

_BATCH_SIZES = {"cuda": 32, "cpu": 4}


class RamTagger(Tagger):
    """Recognize Anything (`models.ram`) from a `from_pretrained` folder."""

    needs_model = True

    @classmethod
    def accepts(cls, folder: str) -> bool:
        from models.ram import RamConfig

        config = storage.join(folder, "config.json")
        return storage.exists(config) and storage.read_json(config).get("model_type") == RamConfig.model_type

    def prepare(self) -> None:
        folder = local_copy(self.config.path)
        if not os.path.isfile(os.path.join(folder, "config.json")):
            raise UserError(f"{folder} is no RAM: it has no config.json; `jobs.convert --kind ram` writes one.")
        from models.ram import RamConfig, RamProcessor

        try:
            config = RamConfig.from_pretrained(folder)
            processor = RamProcessor.from_pretrained(folder)
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f"{folder} is not a whole RAM folder: {error}") from error
        if len(processor.tag_list) != config.n_tags:
            raise UserError(
                f"{folder} has {len(processor.tag_list)} tags in its list but {config.n_tags} in its head; the two "
                "files are of different models. Convert the checkpoint again (`jobs.convert --kind ram`)."
            )
        self.image_size = processor.image_size
        self.thresholds = processor.thresholds_by_tag

    def setup(self, device: str, threads: int, precision: Precision) -> None:
        import torch
        from transformers.utils.logging import disable_progress_bar

        from models.alignment import align_weights
        from models.ram import RamForImageTagging, RamProcessor

        disable_progress_bar()  # Ray prints an actor's progress bar into the driver's log
        torch.set_num_threads(worker_threads(threads))
        folder = local_copy(self.config.path)
        self.processor = RamProcessor.from_pretrained(folder)
        self.model = RamForImageTagging.from_pretrained(folder)
        self.model.to(device)  # type: ignore[arg-type]  # transformers' wrapper hides the types of torch's `to`
        align_weights(self.model)
        self.device, self.precision = device, precision
        mean, std = (torch.tensor(values) for values in (self.processor.image_mean, self.processor.image_std))
        # Repeated to the length of a row of pixels (side * 3): broadcasting over 3 channels is slow, because the inner
        # loop then has only three steps.
        self.scale, self.shift = (
            values.repeat(self.processor.image_size).to(device) for values in (1 / (255 * std), -mean / std)
        )

    def tag(self, image_ids: Sequence[str], pixels: np.ndarray | None) -> list[ImageTags]:
        import torch

        assert pixels is not None  # because image_size is set
        tags: list[ImageTags] = []
        size = self.config.batch_size or _BATCH_SIZES[self.device]
        for start in range(0, len(pixels), size):
            with self._autocast():
                confidences = self.model.confidences(self.normalized(pixels[start : start + size]))
            # A comparison with NaN is false, so that NaN would pass for an image without tags.
            if not bool(torch.isfinite(confidences).all()):
                raise RuntimeError(
                    f"The tagger {self.config.path} returns NaN in {self.precision}: its weights are damaged, or it "
                    "needs --tagger.precision fp32."
                )
            tags += self.processor.tags(confidences, floor=self.config.floor)
        return tags

    def normalized(self, pixels: np.ndarray) -> "torch.Tensor":
        """Return the model's input, (B, 3, side, side) float32, from (B, side, side, 3) uint8 RGB."""
        import torch

        batch = torch.from_numpy(pixels).to(self.device)
        rows = batch.flatten(2).float().mul_(self.scale).add_(self.shift)
        return rows.view(batch.shape).permute(0, 3, 1, 2)

    def _autocast(self) -> AbstractContextManager[Any]:
        import torch

        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device, dtype=torch.bfloat16 if self.precision == "bf16" else torch.float16)
