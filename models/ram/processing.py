"""Convert images to RAM's input, and RAM's confidences to tags."""

import itertools
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import BatchFeature
from transformers.image_processing_base import ImageProcessingMixin
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from transformers.utils import cached_file

from models.images import to_rgb
from models.tags import ImageTags, TagOrder, Threshold, check_threshold

# File names of the lists in the released RAM.
TAG_LIST_NAME = "ram_tag_list.txt"
THRESHOLDS_NAME = "ram_tag_list_threshold.txt"


def read_tag_list(path: str | os.PathLike[str]) -> list[str]:
    """Return the tags of a text file with one tag per line.

    Raises:
        ValueError: a line is blank (every line is one output of the head), or a tag is repeated.
    """
    tags = [line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines()]
    return _checked_tags(tags, str(path))


def read_thresholds(path: str | os.PathLike[str], n_tags: int) -> list[float]:
    """Return the thresholds of a text file with one number per line, in the order of the tag list.

    Raises:
        ValueError: a line is not a number in [0, 1], or there are not ``n_tags`` lines.
    """
    lines = Path(path).read_text(encoding="utf-8").split()
    try:
        values = [float(line) for line in lines]
    except ValueError as error:
        raise ValueError(f"{path} must have one number per line: {error}.") from error
    return _checked_thresholds(values, n_tags, str(path))


def _checked_tags(tags: Sequence[str], where: str) -> list[str]:
    if not tags:
        raise ValueError(f"{where} has no tag; RAM needs at least one.")
    seen: set[str] = set()
    for number, tag in enumerate(tags, start=1):
        if not tag.strip() or "\n" in tag:
            raise ValueError(f"{where}, tag {number}: {tag!r} is blank or has a line break.")
        if tag in seen:
            raise ValueError(f"{where}, tag {number}: {tag!r} is repeated; each tag must occur once.")
        seen.add(tag)
    return list(tags)


def _checked_thresholds(thresholds: Sequence[float], n_tags: int, where: str) -> list[float]:
    if len(thresholds) != n_tags:
        raise ValueError(f"{where} has {len(thresholds)} thresholds for {n_tags} tags; each tag needs one.")
    for number, value in enumerate(thresholds, start=1):
        if math.isnan(value) or not 0.0 <= value <= 1.0:
            raise ValueError(f"{where}, threshold {number}: {value} is not between 0 and 1.")
    return list(thresholds)


class RamProcessor(ImageProcessingMixin):
    """RAM's image processor and tag list. A saved folder has the tags and thresholds as two text files.

    Args:
        tag_list: the tag of each output of the head.
        thresholds: the confidence above which each tag is present (``threshold="per_tag"``). None: 0.65, the most
            frequent threshold of RAM, for every tag.
        image_size: side in pixels of the square that images are resized to (bilinear, aspect ratio not kept).
        image_mean, image_std: per channel, of pixels in [0, 1].
    """

    model_input_names = ["pixel_values"]

    def __init__(
        self,
        tag_list: Sequence[str],
        thresholds: Sequence[float] | None = None,
        image_size: int = 384,
        image_mean: Sequence[float] = IMAGENET_DEFAULT_MEAN,
        image_std: Sequence[float] = IMAGENET_DEFAULT_STD,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.tag_list = _checked_tags(tag_list, "The tag list")
        if thresholds is None:
            thresholds = [0.65] * len(self.tag_list)
        self.thresholds = _checked_thresholds(thresholds, len(self.tag_list), "The threshold list")
        self.image_size = image_size
        self.image_mean = list(image_mean)
        self.image_std = list(image_std)

    def __call__(self, images: Image.Image | Sequence[Image.Image]) -> BatchFeature:
        """Return ``pixel_values`` (B, 3, image_size, image_size), float32.

        Args:
            images: one PIL image or several, of any mode.

        Raises:
            ValueError: there is no image, or an item is not a PIL image.
        """
        batch = [images] if isinstance(images, Image.Image) else list(images)
        if not batch:
            raise ValueError("There is no image to process: the batch is empty.")
        return BatchFeature({"pixel_values": torch.stack([self._pixels(image) for image in batch])})

    def _pixels(self, image: Image.Image) -> Tensor:
        if not isinstance(image, Image.Image):
            raise ValueError(
                f"RamProcessor reads PIL images, not {type(image).__name__}; open the file with PIL.Image first."
            )
        resized = to_rgb(image).resize((self.image_size, self.image_size), Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.array(resized)).permute(2, 0, 1).float().div_(255)
        mean = torch.tensor(self.image_mean).view(3, 1, 1)
        std = torch.tensor(self.image_std).view(3, 1, 1)
        return pixels.sub_(mean).div_(std)

    def tags(
        self,
        confidences: Tensor | np.ndarray,
        floor: float = 0.05,
        threshold: Threshold | None = None,
        top_k: int | None = None,
        exclude: Sequence[str] = (),
        order: TagOrder = "confidence",
    ) -> list[ImageTags]:
        """Return each image's tags with their confidences, selected and ordered as by `models.tags.TagRule`.

        Args:
            confidences: (B, n_tags), as `RamForImageTagging.confidences` returns them.
            floor: the confidence that a tag must be above if ``threshold`` is None.
            threshold: ``"per_tag"`` for the threshold of each tag, or one number for all tags. A tag at its threshold
                is not selected.
            top_k: the largest number of tags per image, the most confident ones. None: no limit.
            exclude: tags that are never returned.
            order: ``"confidence"``: by falling confidence, equal ones in the order of the list. ``"list"``: in the
                order of the list, as RAM's `generate_tag` writes them.

        Raises:
            ValueError: the shape of ``confidences`` does not fit the tag list, or a setting is out of range.
        """
        scores = torch.as_tensor(confidences).detach().float().cpu()
        if scores.ndim != 2 or scores.shape[1] != len(self.tag_list):
            raise ValueError(
                f"Confidences are {tuple(scores.shape)}, but the list has {len(self.tag_list)} tags: "
                "the model and the processor are not of the same folder."
            )
        if threshold is not None:
            check_threshold(threshold)
        if top_k is not None and top_k < 1:
            raise ValueError(f"top_k is {top_k}; set at least 1, or None for no limit.")
        if threshold == "per_tag":
            keep = scores > torch.tensor(self.thresholds)
        else:
            keep = scores > (floor if threshold is None else float(threshold))
        keep[:, self._indices(exclude)] = False
        images, columns = keep.nonzero(as_tuple=True)
        kept = scores[images, columns]
        falling = kept.argsort(descending=True, stable=True)
        falling = falling[images[falling].argsort(stable=True)]  # by image, and by falling confidence within an image
        pairs = list(zip(columns[falling].tolist(), kept[falling].tolist(), strict=True))
        ends = keep.sum(dim=1).cumsum(dim=0).tolist()
        by_image = [pairs[start:end][:top_k] for start, end in itertools.pairwise([0, *ends])]
        if order == "list":
            by_image = [sorted(selected) for selected in by_image]
        return [[(self.tag_list[column], score) for column, score in selected] for selected in by_image]

    @property
    def thresholds_by_tag(self) -> dict[str, float]:
        """The threshold of each tag, in the order of the tag list."""
        return dict(zip(self.tag_list, self.thresholds, strict=True))

    def _indices(self, tags: Sequence[str]) -> list[int]:
        position = {tag: index for index, tag in enumerate(self.tag_list)}
        unknown = [tag for tag in tags if tag not in position]
        if unknown:
            raise ValueError(f"The tag list has no {', '.join(map(repr, unknown[:5]))}.")
        return [position[tag] for tag in tags]

    def select_tags(self, tags: Sequence[str]) -> list[int]:
        """Keep only ``tags``, in that order. Return their old indices for `RamForImageTagging.select_tags`."""
        indices = self._indices(_checked_tags(tags, "The selection"))
        self.tag_list = [self.tag_list[i] for i in indices]
        self.thresholds = [self.thresholds[i] for i in indices]
        return indices

    def to_dict(self) -> dict[str, Any]:
        """Return the settings of ``preprocessor_config.json``, without the two lists, which have their own files."""
        settings = super().to_dict()
        return {name: value for name, value in settings.items() if name not in ("tag_list", "thresholds")}

    def save_pretrained(
        self, save_directory: str | os.PathLike[str], push_to_hub: bool = False, **kwargs: Any
    ) -> list[str]:
        """Write ``preprocessor_config.json``, ``ram_tag_list.txt`` and ``ram_tag_list_threshold.txt``."""
        if push_to_hub:
            raise ValueError("push_to_hub would upload no tag list; save to a folder and upload the folder.")
        files = super().save_pretrained(save_directory, **kwargs)
        return [*files, *self.write_lists(save_directory)]

    def write_lists(self, folder: str | os.PathLike[str]) -> list[str]:
        """Write the two text lists and return their paths."""
        tags, thresholds = Path(folder) / TAG_LIST_NAME, Path(folder) / THRESHOLDS_NAME
        tags.write_text("".join(f"{tag}\n" for tag in self.tag_list), encoding="utf-8")
        thresholds.write_text("".join(f"{value}\n" for value in self.thresholds), encoding="utf-8")
        return [str(tags), str(thresholds)]

    @classmethod
    def get_image_processor_dict(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the settings and both lists; see `from_pretrained`."""
        settings, kwargs = super().get_image_processor_dict(pretrained_model_name_or_path, **kwargs)
        tags_file = cached_file(pretrained_model_name_or_path, TAG_LIST_NAME)
        thresholds_file = cached_file(pretrained_model_name_or_path, THRESHOLDS_NAME)
        assert tags_file is not None
        assert thresholds_file is not None  # cached_file raises where a file is absent
        settings["tag_list"] = read_tag_list(tags_file)
        settings["thresholds"] = read_thresholds(thresholds_file, len(settings["tag_list"]))
        return settings, kwargs
