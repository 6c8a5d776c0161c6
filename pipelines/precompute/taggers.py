"""The interface of a tagger, and the registry of taggers.

To add a tagger, write a subclass of `Tagger` in a file, here or in a package of yours, and register it in one line:

    register_tagger("clip", ClipTagger)

Then `tagger.kind: clip` works in precompute. `predict` and the page take the same tagger by its folder, if its
`accepts` recognizes that folder.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from importlib import import_module

import numpy as np

from models.tags import ImageTags
from pipelines.core import steps
from pipelines.core.errors import UserError
from pipelines.precompute.config import Precision, TaggerConfig


class Tagger(ABC):
    """A tagger: images in, tags with confidences out.

    The driver constructs it and calls `prepare`. Then it is pickled to every actor, which calls `setup` once, and `tag`
    for the images of each shard. What `prepare` stores on `self` travels along: keep it small.

    Attributes:
        image_size: side of the square in pixels to which images are resized; None for a tagger that needs no pixels
            (images are decoded all the same, because training needs them). Known after `prepare`.
        needs_model: whether it computes: it then gets a core or a GPU per actor.
        reads_thresholds: whether `tagger.thresholds` means something to it.
        thresholds: the threshold of each tag, in the order of the tagger's list; None where it has none. Known after
            `prepare`.
    """

    image_size: int | None = None
    needs_model: bool = False
    reads_thresholds: bool = False
    thresholds: Mapping[str, float] | None = None

    def __init__(self, config: TaggerConfig) -> None:
        self.config = config

    @classmethod
    def accepts(cls, folder: str) -> bool:
        """Return whether a folder holds this tagger's model. `predict` and the page find their tagger with it.

        Args:
            folder: a path or URI, which may not exist.
        """
        return False

    @abstractmethod
    def prepare(self) -> None:
        """Check the input and set `image_size` and `thresholds`, in the driver, without loading weights.

        Raises:
            UserError: the input is missing or wrong.
        """

    def setup(self, device: str, threads: int, precision: Precision) -> None:  # noqa: B027  # optional, not abstract
        """Load the model in an actor.

        Args:
            device: `cpu` or `cuda`.
            threads: CPU threads of the model.
            precision: the arithmetic, never `auto`.
        """

    @abstractmethod
    def tag(self, image_ids: Sequence[str], pixels: np.ndarray | None) -> list[ImageTags]:
        """Return the tags of each image whose confidence is above `config.floor`, by falling confidence.

        An image without such tags gets an empty list.

        Args:
            image_ids: ids of B images.
            pixels: (B, image_size, image_size, 3) uint8 RGB; None where `image_size` is None.
        """

    def digest(self) -> str:
        """Return the digest of everything that decides the tags, for the manifest: by default of the input's files.

        Override it where more than those files decides, such as the version of a library. An overridden digest is part
        of the step's hash.
        """
        return steps.fingerprint(self.config.path)


TAGGERS: dict[str, type[Tagger] | str] = {
    "ram": "pipelines.precompute.ram:RamTagger",
    "table": "pipelines.precompute.tag_table:TableTagger",
}
"""The registered taggers by their kind: a class, or `module:class`, which is imported when it is first used."""


def register_tagger(kind: str, tagger: type[Tagger] | str) -> None:
    """Add a tagger under a name, for `tagger.kind`.

    Call it before the step's function, in the process that calls it. Ray's workers need to be able to import the class.

    Args:
        kind: the name.
        tagger: the class, or `module:class`, which is imported when it is first used.

    Raises:
        ValueError: another tagger has this name.
    """
    if TAGGERS.get(kind, tagger) != tagger:
        raise ValueError(f"The tagger kind {kind!r} is taken by {TAGGERS[kind]}; register yours under another name.")
    TAGGERS[kind] = tagger


def tagger_class(kind: str) -> type[Tagger]:
    """Return the class of a registered tagger.

    Raises:
        UserError: no tagger has this name.
    """
    if kind not in TAGGERS:
        raise UserError(f"There is no tagger {kind!r}; set tagger.kind to one of {', '.join(TAGGERS)}.")
    entry = TAGGERS[kind]
    if isinstance(entry, str):
        module, _, name = entry.partition(":")
        entry = getattr(import_module(module), name)
    return entry


def make_tagger(config: TaggerConfig) -> Tagger:
    """Return the tagger of a configuration, not prepared.

    Raises:
        UserError: no tagger has this kind, or thresholds are set for one that brings its own.
    """
    tagger = tagger_class(config.kind)
    if config.thresholds and not tagger.reads_thresholds:
        raise UserError(
            f"tagger.thresholds is {config.thresholds}, but tagger.kind {config.kind} brings its own thresholds; leave "
            "tagger.thresholds empty."
        )
    return tagger(config)


def tagger_of(folder: str, batch_size: int | None = None) -> Tagger:
    """Return the tagger whose model is in a folder, prepared.

    Args:
        folder: a path or URI.
        batch_size: images per forward pass; None: the tagger's default.

    Raises:
        UserError: the folder is of no registered tagger, or is damaged.
    """
    # RAM is the last resort: its `prepare` explains what a tagger's folder has to look like.
    kind = next((kind for kind in TAGGERS if tagger_class(kind).accepts(folder)), "ram")
    tagger = make_tagger(TaggerConfig(kind=kind, path=folder, batch_size=batch_size))
    tagger.prepare()
    return tagger
