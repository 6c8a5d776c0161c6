"""A loaded LION with its tagger, if it needs one, in this process."""

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
    """Width of the beam search. Empty: the model's own (the released LION's is 5)."""
    decoding: DecodingConfig = dataclasses.field(default_factory=DecodingConfig)
    """The other settings of decoding. Each empty setting is the model's own."""
    batch_size: int = 8
    """Images per forward pass. Lower it if the memory is too small."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Arithmetic of the models. `auto`: bf16 on a GPU and fp32 on a CPU."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device of the models. `auto`: the GPU if there is one, else the CPU."""

    def check(self) -> None:
        """Refuse values that no run can work with.

        Raises:
            UserError: batch_size is below 1, or a setting of decoding is wrong.
        """
        self.decoding.check(self.beams)
        if self.batch_size < 1:
            raise UserError(f"inference.batch_size is {self.batch_size}; give at least 1.")


@dataclasses.dataclass(frozen=True)
class TagReading:
    """Threshold and order of the tags. None: as the model was trained."""

    threshold: Threshold | None = None
    tag_order: TagOrder | None = None


def find_model(reference: str, registry: RegistryConfig, out: str) -> ModelReference:
    """Return the LION behind `models:/NAME@ALIAS`, a `from_pretrained` folder or a training's result folder.

    Raises:
        UserError: there is no model, or it is not a LION.
    """
    registered = reference.startswith("models:")
    model = Registry(registry, out).lookup(reference) if registered else ModelReference(resolve(reference))
    kind = storage.read_json(storage.join(model.folder, "config.json")).get("model_type")
    if kind != "lion":
        raise UserError(f"{reference} is no LION, its model_type is {kind!r}; give a model of train_stage or convert.")
    return model


def prompt_reads_tags(folder: str) -> bool:
    """Return whether a LION's prompt contains the tags of the image."""
    from models.lion import LionConfig

    return bool(LionConfig.from_pretrained(folder).prompt.reads_tags)


def parse_tags(text: str) -> ImageTags:
    """Parse `dog: 0.98, ball` as tags with confidences, by falling confidence; a tag without a number has 1.

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
        model: the model, as `find_model` returns it.
        tagger: a tagger's folder; None where the caller supplies the tags or the model reads none.
        settings: how it is run.
        reading: threshold and order of the tags.
        thresholds: the tagger's thresholds, where the caller has loaded the tagger.

    Raises:
        UserError: the folder holds no tagger, `device` is cuda without a GPU, or `reading` needs thresholds that
            neither the model nor the tagger has.
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
            raise UserError("inference.device is cuda, but torch sees no GPU; leave it out to use the CPU.")
        on_gpu = settings.device != "cpu" and torch.cuda.is_available()
        precision: Literal["fp32", "bf16"] = (
            ("bf16" if on_gpu else "fp32") if settings.precision == "auto" else settings.precision
        )
        self.version = str(model)
        self.tagger = None if tagger is None else load_tagger(tagger, on_gpu, precision, settings.batch_size)
        thresholds = thresholds if self.tagger is None else self.tagger.thresholds
        trained = model_rules(model.folder, thresholds)
        self.rules = trained.changed(reading.threshold, reading.tag_order, thresholds)
        if self.rules != trained:
            log.warning("%s was trained with %s; it now reads %s", model, trained.in_words(), self.rules.in_words())
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
        """Return for each tag whether it is above its threshold, for the prompt's text or for its vectors."""
        by_rule = [rule.reads(tags) for rule in (self.rules.text, self.rules.vector) if rule is not None]
        return [any(reads) for reads in zip(*by_rule, strict=True)]

    @property
    def reads_tags(self) -> bool:
        """Whether the prompt contains tags."""
        return bool(self.answerer.model.config.prompt.reads_tags)

    def replies(
        self, images: "Sequence[Image | BadImage]", questions: Sequence[Question], tags: Sequence[ImageTags]
    ) -> list[str | Unanswered]:
        """Return the answer to each question about the image of the same index, or the reason why there is none.

        The questions of each task are answered separately, with the limit of the task: an answer then does not depend
        on the other questions and equals that of an evaluation of the task.
        """
        rows = [
            {
                "image": image,
                "task": question.task,
                "level": question.level,
                "instruction": question.instruction,
                "tags": tags_to_rows(image_tags),
            }
            for image, question, image_tags in zip(images, questions, tags, strict=True)
        ]
        replies: dict[int, str | Unanswered] = {}
        for task in dict.fromkeys(question.task for question in questions):
            numbers = [number for number, row in enumerate(rows) if row["task"] == task]
            limits = {task: self.answerer.settings.limits[task]}
            replies |= zip(numbers, self.answerer.replies([rows[number] for number in numbers], limits), strict=True)
        return [replies[number] for number in range(len(rows))]


def tagger_thresholds(folder: str) -> dict[str, float] | None:
    """Return the thresholds of a tagger's folder without loading its weights; None for a tagger without thresholds.

    Raises:
        UserError: the folder belongs to no registered tagger, or is damaged.
    """
    thresholds = tagger_of(folder).thresholds
    return None if thresholds is None else dict(thresholds)


def load_tagger(folder: str, on_gpu: bool, precision: Literal["fp32", "bf16"], batch_size: int) -> Tagger:
    """Load the tagger of a folder in this process, with the arithmetic of precompute.

    Raises:
        UserError: the folder belongs to no registered tagger, or is damaged.
    """
    import torch

    tagger = tagger_of(folder, batch_size)
    tagger.setup("cuda" if on_gpu else "cpu", min(torch.get_num_threads(), os.cpu_count() or 1), precision)
    return tagger


def tags_of(tagger: Tagger, images: "Sequence[Image | BadImage]") -> list[ImageTags]:
    """Return each picture's tags by falling confidence; no tags for a picture that could not be read."""
    from PIL import Image

    side = tagger.image_size or 0
    good = [number for number, image in enumerate(images) if isinstance(image, Image.Image)]
    pixels = [
        np.asarray(image.resize((side, side), Image.Resampling.BILINEAR))
        for image in images
        if isinstance(image, Image.Image)
    ]
    tags = tagger.tag([str(number) for number in good], np.stack(pixels)) if good else []
    by_image = dict(zip(good, tags, strict=True))
    return [by_image.get(number, []) for number in range(len(images))]
