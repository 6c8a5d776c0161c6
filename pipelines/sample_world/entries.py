"""An image of the sample world with all its annotations, computed from its number without any file."""

import random
from dataclasses import dataclass

from PIL import Image

from models.tags import ImageTags
from pipelines.sample_world import drawing, language, tagging
from pipelines.sample_world.expressions import expressions_for
from pipelines.sample_world.questions import ChoiceQuestion, VqaQuestion, choice_question, vqa_questions
from pipelines.sample_world.scenes import SPLITS, Preset, Scene, make_scene

_ID_STEP = 100_000_000  # image ids of a split start at a multiple of this
_REFERRED_OBJECTS = 3  # objects of an image that get referring expressions


@dataclass(frozen=True)
class Entry:
    """One image: its scene, its texts and its tags.

    Attributes:
        split: one of `SPLITS`.
        image_id: id of the image, unique over the splits of a world.
        scene: the content of the image.
        captions: five captions.
        vqa: up to four open questions.
        choice: one multiple-choice question.
        expressions: pairs of an object's index in the scene and the referring expressions that identify it.
        tags: tags and confidences of the simulated tagger, by descending confidence.
        paint_seed: seed of the variation of the image's colors.
    """

    split: str
    image_id: int
    scene: Scene
    captions: list[str]
    vqa: list[VqaQuestion]
    choice: ChoiceQuestion
    expressions: list[tuple[int, list[str]]]
    tags: ImageTags
    paint_seed: str

    def file_name(self, form: drawing.ImageFormat) -> str:
        """Return the name of the image file. As in COCO, it ends with the image's id."""
        return f"sample_{self.split}_{self.image_id:012d}.{'jpg' if form == 'jpeg' else 'png'}"

    def draw(self) -> Image.Image:
        """Draw the image, RGB."""
        return drawing.draw_scene(self.scene, self.paint_seed)


def make_entry(seed: int, split: str, index: int, preset: Preset) -> Entry:
    """Return image number `index` of a split. It depends on the arguments only, not on other images.

    Raises:
        ValueError: the split is unknown.
    """
    scene = make_scene(seed, split, index, preset)
    # One generator for all texts of an image: the order of the calls below decides the texts, so keep it.
    rng = random.Random(f"words/{seed}/{split}/{index}")
    expressions = []
    for number in sorted(rng.sample(range(len(scene.objects)), min(_REFERRED_OBJECTS, len(scene.objects)))):
        texts = [text for _, text in expressions_for(scene, scene.objects[number], rng)]
        if texts:
            expressions.append((number, texts))
    return Entry(
        split=split,
        image_id=(SPLITS.index(split) + 1) * _ID_STEP + index,
        scene=scene,
        captions=language.captions(scene, rng),
        vqa=vqa_questions(scene, index, rng),
        choice=choice_question(scene, rng),
        expressions=expressions,
        tags=tagging.tag_scores(scene, rng),
        paint_seed=f"paint/{seed}/{split}/{index}",
    )
