"""A scene with all that is said about it, made by number, without any file."""

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
    """One image's scene and texts.

    Attributes:
        split: one of `SPLITS`.
        image_id: unique over the splits of a world.
        scene: what is in it.
        captions: five of them.
        vqa: up to four open questions.
        choice: one multiple-choice question.
        expressions: an object's number in the scene, and the expressions that mean it and nothing else.
        tags: the simulated tagger's tags and confidences, by falling confidence.
        paint_seed: of the image's colors.
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
        """Name of the image file; like COCO's, it ends in the image's id."""
        return f"sample_{self.split}_{self.image_id:012d}.{'jpg' if form == 'jpeg' else 'png'}"

    def draw(self) -> Image.Image:
        """Return the image, RGB."""
        return drawing.draw_scene(self.scene, self.paint_seed)


def make_entry(seed: int, split: str, index: int, preset: Preset) -> Entry:
    """Return the image number `index` of a split; the same for the same arguments, whatever else is made.

    Raises:
        ValueError: an unknown split.
    """
    scene = make_scene(seed, split, index, preset)
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
