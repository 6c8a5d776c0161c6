"""A loaded LION and, where there is one, its tagger, in this process."""

import dataclasses
import logging
import math
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from models.tags import ImageTags, TagOrder, Threshold, tags_to_rows
from pipelines.core import storage
from pipelines.core.errors import UserError
from pipelines.core.tag_rules import model_rules
from pipelines.inference.answerer import Answerer, AnswererSettings, Unanswered
from pipelines.inference.decoding import DecodingConfig, resolve_decoding
from pipelines.inference.questions import Question, longest_answer
from pipelines.instructions.templates import TASKS
from pipelines.precompute.taggers import Tagger, tagger_of
from pipelines.registry import ModelReference, Registry, RegistryConfig, resolve
from pipelines.sources.images import BadImage

if TYPE_CHECKING:
    from PIL.Image import Image

log = logging.getLogger("lion.predict")


@dataclasses.dataclass(frozen=True)
class LocalInference:
    """How the models are run in this process."""

    beams: int | None = None
    """Width of the beam search; empty: the model's own (the released LION's is 5)."""
    decoding: DecodingConfig = dataclasses.field(default_factory=DecodingConfig)
    """The other settings of decoding; each one left empty is the model's own."""
    batch_size: int = 8
    """Images per forward pass."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Arithmetic of the models: `auto` is bf16 on a GPU and fp32 on a CPU."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where they run: `auto` is the GPU where there is one."""

    def check(self) -> None:
        """Refuse what no run can work with.

        Raises:
            UserError: batch_size is below 1, or a setting of decoding is wrong.
        """
        self.decoding.check(self.beams)
        if self.batch_size < 1:
            raise UserError(f"inference.batch_size is {self.batch_size}; give at least 1.")


@dataclasses.dataclass(frozen=True)
class TagReading:
    """Threshold and order of the tags; None: as the model was trained."""

    threshold: Threshold | None = None
    tag_order: TagOrder | None = None


def find_model(reference: str, registry: RegistryConfig, out: str) -> ModelReference:
    """Return the LION behind `models:/NAME@ALIAS`, a `from_pretrained` folder or a training's result folder.

    Raises:
        UserError: nothing is there, or it is no LION.
    """
    named = reference.startswith("models:")
    found = Registry(registry, out).lookup(reference) if named else ModelReference(resolve(reference))
    kind = storage.read_json(storage.join(found.folder, "config.json")).get("model_type")
    if kind != "lion":
        raise UserError(f"{reference} is no LION, its model_type is {kind!r}; give a model of train_stage or convert.")
    return found


def prompt_reads_tags(folder: str) -> bool:
    """Whether a LION's prompt is made with the tags of the image."""
    from models.lion import LionConfig

    return bool(LionConfig.from_pretrained(folder).prompt.reads_tags)


def parse_tags(text: str) -> ImageTags:
    """`dog: 0.98, ball` as tags with confidences, one without a number being certain, by falling confidence.

    Raises:
        UserError: a tag is blank, or a confidence is not a number from 0 to 1.
    """
    tags: ImageTags = []
    for piece in text.split(","):
        name, colon, number = piece.rpartition(":")
        tag = (name if colon else piece).strip()
        try:
            score = float(number) if colon else 1.0
        except ValueError:
            score = math.nan
        if not tag or not 0.0 <= score <= 1.0:
            raise UserError(f"{piece.strip()!r} is no tag; write tags as 'dog: 0.98, ball: 0.96', confidences 0 to 1.")
        tags.append((tag, score))
    return sorted(tags, key=lambda item: -item[1])


class Predictor:
    """A LION that answers questions about pictures.

    Args:
        model: which; see `find_model`.
        tagger: a RAM's folder, or None where tags are given or not read.
        settings: how it is run.
        reading: threshold and order of the tags; empty: as the model was trained.
        thresholds: the tagger's, where it is loaded elsewhere.

    Raises:
        UserError: the tagger's folder is not a RAM's, there is no GPU where one is needed, or `reading` needs
            thresholds that neither the model nor the tagger has.
    """

    def __init__(
        self,
        model: ModelReference,
        tagger: str | None,
        settings: LocalInference,
        reading: TagReading = TagReading(),
        thresholds: Mapping[str, float] | None = None,
    ) -> None:
        import torch

        settings.check()
        if settings.device == "cuda" and not torch.cuda.is_available():
            raise UserError("inference.device is cuda, but torch sees no GPU here; leave it out to use the CPU.")
        on_gpu = settings.device != "cpu" and torch.cuda.is_available()
        precision: Literal["fp32", "bf16"] = (
            ("bf16" if on_gpu else "fp32") if settings.precision == "auto" else settings.precision
        )
        self.version = str(model)
        self.tagger = None if tagger is None else load_tagger(tagger, on_gpu, precision, settings.batch_size)
        thresholds = thresholds if self.tagger is None else self.tagger.thresholds
        own = model_rules(model.folder, thresholds)
        self.rules = own.changed(reading.threshold, reading.tag_order, thresholds)
        if self.rules != own:
            log.warning("%s was made to read %s; now %s.", model, own.in_words(), self.rules.in_words())
        decoding = resolve_decoding(model.folder, settings.decoding, settings.beams)
        self.answerer = Answerer(
            AnswererSettings(
                model=model.folder,
                version=self.version,
                limits=decoding.limits({task: longest_answer(task) for task in TASKS}),
                decoding=decoding,
                batch_size=settings.batch_size,
                precision=precision,
                on_gpu=on_gpu,
                threads=torch.get_num_threads(),
                rules=self.rules,
            )
        )

    def reads(self, tags: ImageTags) -> list[bool]:
        """Whether each tag is above its threshold, for the prompt's text or for its vectors."""
        every = [rule.reads(tags) for rule in (self.rules.text, self.rules.vector) if rule is not None]
        return [any(of_tag) for of_tag in zip(*every, strict=True)]

    @property
    def reads_tags(self) -> bool:
        """Whether the prompt is made with tags."""
        return bool(self.answerer.model.config.prompt.reads_tags)

    def replies(
        self, images: "Sequence[Image | BadImage]", questions: Sequence[Question], tags: Sequence[ImageTags]
    ) -> list[str | Unanswered]:
        """Return the answer to each question about the image in its place, or why there is none.

        Each task is asked by itself, within its own longest answer, so that an answer does not depend on its
        neighbors and is the one that an evaluation of the task gives.
        """
        rows = [
            {
                "image": image,
                "task": question.task,
                "level": question.level,
                "instruction": question.instruction,
                "tags": tags_to_rows(listed),
            }
            for image, question, listed in zip(images, questions, tags, strict=True)
        ]
        found: dict[int, str | Unanswered] = {}
        for task in dict.fromkeys(question.task for question in questions):
            places = [place for place, row in enumerate(rows) if row["task"] == task]
            limits = {task: self.answerer.settings.limits[task]}
            found |= zip(places, self.answerer.replies([rows[place] for place in places], limits), strict=True)
        return [found[place] for place in range(len(rows))]


def tagger_thresholds(folder: str) -> dict[str, float] | None:
    """Return the thresholds of a tagger's folder without loading its weights; None for a tagger without thresholds.

    Raises:
        UserError: the folder is of no registered tagger, or is damaged.
    """
    thresholds = tagger_of(folder).thresholds
    return None if thresholds is None else dict(thresholds)


def load_tagger(folder: str, on_gpu: bool, precision: Literal["fp32", "bf16"], batch_size: int) -> Tagger:
    """Return the tagger that a folder holds, as precompute runs it, loaded in this process.

    Raises:
        UserError: the folder is of no registered tagger, or is damaged.
    """
    import torch

    tagger = tagger_of(folder, batch_size)
    tagger.setup("cuda" if on_gpu else "cpu", min(torch.get_num_threads(), os.cpu_count() or 1), precision)
    return tagger


def tags_of(tagger: Tagger, images: "Sequence[Image | BadImage]") -> list[ImageTags]:
    """Return each picture's tags by falling confidence; none for one that could not be read."""
    from PIL import Image

    side = tagger.image_size or 0
    good = [place for place, image in enumerate(images) if isinstance(image, Image.Image)]
    pixels = [
        np.asarray(image.resize((side, side), Image.Resampling.BILINEAR))
        for image in images
        if isinstance(image, Image.Image)
    ]
    found = dict(zip(good, tagger.tag([str(place) for place in good], np.stack(pixels)) if good else [], strict=True))
    return [found.get(place, []) for place in range(len(images))]
