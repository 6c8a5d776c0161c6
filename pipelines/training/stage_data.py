"""The samples of LION's stages: questions about images with their tags, mixed by level."""

import dataclasses
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import pyarrow.compute as pc
from PIL import Image

from models.lion import (
    LionProcessor,
    PromptConfig,
)
from models.tags import ImageTags, tags_from_rows
from pipelines.core.errors import UserError
from pipelines.core.local_tables import open_table, row_numbers
from pipelines.core.tables import INSTRUCTIONS, TAGGED
from pipelines.sources.embedded import open_embedded
from pipelines.sources.images import BadImage, load_image
from pipelines.training.augmentation import augment
from pipelines.training.config import TrainStageConfig
from pipelines.training.data import Batch, PerThread, generator
from pipelines.training.mixing import make_mixture
from pipelines.training.order import Draw
from pipelines.training.reading import letters_of_tags, stage_rule

SAMPLE_COLUMNS = ("sample_id", "image_id", "task", "level", "instruction", "answers")
IMAGE_COLUMNS = ("image_id", "uri", "tags")


@dataclasses.dataclass(frozen=True)
class Sample:
    """A question about an image, with the answer that the model learns."""

    sample_id: str
    task: str
    level: str
    instruction: str
    answer: str
    tags: ImageTags
    image: Image.Image


class StageData:
    """The samples of the instructions table with their images and tags, in one pool for each part of the mix.

    Args:
        samples: folder of the `instructions` table.
        images: folder of the `tagged` table.
        processor: computes the model's inputs.
        settings: the mix, the held-out part, and the seeds.

    Raises:
        UserError: a part of the mix has no samples, or a sample's image is not in the `tagged` table.
    """

    def __init__(self, samples: str, images: str, processor: LionProcessor, settings: TrainStageConfig) -> None:
        self._samples = open_table(samples, INSTRUCTIONS, SAMPLE_COLUMNS)
        self._images = open_table(images, TAGGED, IMAGE_COLUMNS)
        self._embedded = open_embedded(images)
        self._embedded_rows = None if self._embedded is None else self._embedded.rows(self._images["image_id"])
        self._processor, self._settings = PerThread(processor), settings
        self._rule = stage_rule(images, settings)
        keys = self._samples.column("image_id")
        self._image_rows = row_numbers(keys, self._images, "image_id", f"samples of {samples} are of images that "
                                       f"{images} does not have")  # fmt: skip
        if (unanswered := pc.sum(pc.less(pc.fill_null(pc.list_value_length(self._samples["answers"]), 0), 1))
                .as_py()):  # fmt: skip
            raise UserError(
                f"{unanswered} samples of {samples} have no answer to train on; leave their data sets out of the table."
            )
        mixture = make_mixture(self._samples, samples, settings)
        self._parts = [*(pool.rows for pool in mixture.pools), mixture.validation]
        self.pools = tuple(len(pool.rows) for pool in mixture.pools)
        self.ratios = tuple(pool.ratio for pool in mixture.pools)
        self.validation = [Draw(len(self.pools), index, 0) for index in range(len(mixture.validation))]

    def length(self, draw: Draw) -> int:
        """Return the number of letters of the question and of the image's tags, of which the prompt consists."""
        row = int(self._parts[draw.pool][draw.index])
        return len(self._samples["instruction"][row].as_py()) + int(self._tag_letters[self._image_rows[row]])

    @cached_property
    def _tag_letters(self) -> np.ndarray:
        prompt = prompt_config(self._settings)
        if not prompt.design.lists_tags(prompt):
            return np.zeros(len(self._images), dtype=np.int64)
        return np.concatenate([letters_of_tags(chunk, self._rule) for chunk in self._images["tags"].chunks])

    def load(self, draw: Draw) -> Sample:
        """Return a sample with its picture. If it has several answers, each epoch draws one of them."""
        row = int(self._parts[draw.pool][draw.index])
        sample = self._samples.slice(row, 1).to_pylist()[0]
        image_row = int(self._image_rows[row])
        image = self._images.slice(image_row, 1).to_pylist()[0]
        answers = sample["answers"]
        held_out = draw.pool == len(self.pools)
        # Held-out samples have the same answers in trainings of all seeds, so that their losses can be compared.
        seed = self._settings.held_out_seed if held_out else self._settings.loop.seed
        rng = generator(seed, draw.pool, draw.epoch, draw.index)
        answer = answers[int(rng.integers(len(answers)))] if len(answers) > 1 else answers[0]
        try:
            picture = load_image(image["uri"], self._content(image_row))
        except BadImage as error:
            raise UserError(
                f"The image of sample {sample['sample_id']} cannot be read any more ({error}); put it back and run the "
                "same command again, or run precompute again, which moves the image to quarantine."
            ) from error
        tags = tags_from_rows(image["tags"])
        task, level, instruction = sample["task"], sample["level"], sample["instruction"]
        if self._settings.augment and level == "region" and not held_out:
            picture, instruction, answer = augment(picture, instruction, answer, task, rng)
        return Sample(sample["sample_id"], task, level, instruction, answer, tags, picture)

    def _content(self, image_row: int) -> bytes | None:
        """Return the encoded bytes of an image, or None if the table has no embedded images."""
        if self._embedded is None or self._embedded_rows is None:
            return None
        return self._embedded.content(int(self._embedded_rows[image_row]))

    def collate(self, samples: Sequence[Sample]) -> Batch:
        """Return the model's inputs. The weight is the number of answer tokens: the loss is the mean over tokens."""
        try:
            tensors = self._processor.get()(
                images=[sample.image for sample in samples],
                text=[sample.instruction for sample in samples],
                tags=[sample.tags for sample in samples],
                levels=[sample.level for sample in samples],
                answers=[sample.answer for sample in samples],
            )
        except ValueError as error:
            raise UserError(
                f"One of the samples {[sample.sample_id for sample in samples][:8]} cannot be used: {error}"
            ) from error
        answer_tokens = int((tensors["labels"] != -100).sum())
        return Batch(
            dict(tensors),
            float(answer_tokens),
            tuple(sample.sample_id for sample in samples),
            int(tensors["attention_mask"].sum()) + answer_tokens,
            tuple(sample.task for sample in samples),
        )


def prompt_config(settings: TrainStageConfig) -> PromptConfig:
    """Return the prompt of this training as the model and its processor read it."""
    return PromptConfig(**dataclasses.asdict(settings.prompt))
