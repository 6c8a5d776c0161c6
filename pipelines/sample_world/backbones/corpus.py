"""Questions about scenes and their answers, as text: what the small T5 reads and writes."""

import random
import re
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Literal

from models.tags import THRESHOLD
from pipelines.instructions.templates import REC_ANSWER, TASKS
from pipelines.sample_world.backbones.world import normalized_box
from pipelines.sample_world.entries import Entry
from pipelines.sample_world.language import plural, with_article
from pipelines.sample_world.questions import absent_names
from pipelines.sample_world.scenes import BACKGROUNDS, COLORS, SHAPES, Scene, SceneObject
from pipelines.sources.boxes import format_box

Kind = Literal["short", "long", "region", "scene", "locate", "presence"]
# Questions of one kind have answers of like length, so that a batch of them is little padding.
KINDS: dict[Kind, tuple[str, ...]] = {
    "short": ("vqa", "vqa_choice", "pope"),
    "long": ("caption", "rec"),
    "region": ("reg",),
    "scene": ("scene",),
    "locate": ("locate",),
    "presence": ("presence",),
}
# LION's own tasks give one look-up in an answer, and a small T5 takes very long to discover from them that questions
# are about the scene. The drills give several: they come first, and never quite end.
DRILLS: dict[Kind, float] = {"locate": 0.85, "presence": 0.15}
_OWN: dict[Kind, float] = {"short": 0.45, "long": 0.35, "region": 0.12, "scene": 0.08}
_DRILLED = (0.5, 0.1)  # share of the drills at the start, and from the middle on
_NAMES_PER_DRILL = 5
# LION's own tasks ask for one thing; to name everything with its place takes many look-ups in one answer.
_SCENE_PROMPTS = ("List every object with its box.", "Name all objects from left to right, each with its box.")
_VQA_PER_SCENE, _REC_PER_SCENE, _CHOICE_SHARE = 2, 3, 0.4
_BETWEEN = "; "
_BARE_SHARE = 0.15  # of questions that come without any wording around them
_SIZES = ("small", "large")


@dataclass(frozen=True)
class Look:
    """The part of an answer, from one character to another, that is found by looking at some objects of the scene."""

    start: int
    end: int
    objects: frozenset[int]


@dataclass(frozen=True)
class Question:
    """A question about a scene, put into words, with its answer, and where in the scene that is found, if known."""

    entry: Entry
    task: str
    prompt: str
    answer: str
    looks: tuple[Look, ...] = ()


def shares(progress: float) -> dict[Kind, float]:
    """How often each kind is asked after a part (0 to 1) of the training."""
    first, later = _DRILLED
    drilled = max(later, first - 2 * (first - later) * progress)
    return {kind: share * drilled for kind, share in DRILLS.items()} | {
        kind: share * (1 - drilled) for kind, share in _OWN.items()
    }


def questions(entry: Entry, rng: random.Random) -> list[Question]:
    """Some questions of every task about one scene, in the phrasings of training."""
    return [*_short(entry, rng), *_long(entry, rng), *_scene(entry, rng), *_drills(entry, rng)]


def questions_of(kind: Kind, entries: Iterator[Entry], count: int, rng: random.Random) -> list[Question]:
    """`count` questions of one kind, from as many scenes as it takes."""
    ask = {"short": _short, "long": _long, "region": _long, "scene": _scene}.get(kind, _drills)
    found: list[Question] = []
    while len(found) < count:
        found += [question for question in ask(next(entries), rng) if question.task in KINDS[kind]]
    return found[:count]


def _short(entry: Entry, rng: random.Random) -> list[Question]:
    asked = [*_vqa(entry, rng), *_pope(entry, rng)]
    return [
        Question(
            entry, task, _worded(task, values, rng), answer, _whole(answer, spoken_of(entry.scene, values["text"]))
        )
        for task, values, answer in asked
    ]


def _long(entry: Entry, rng: random.Random) -> list[Question]:
    caption = Question(entry, "caption", _worded("caption", {}, rng), rng.choice(entry.captions))
    return [
        caption,
        *(
            Question(entry, task, _worded(task, values, rng), answer, _whole(answer, {number}))
            for number, (task, values, answer) in _regions(entry, rng)
        ),
    ]


def _scene(entry: Entry, rng: random.Random) -> list[Question]:
    scene = entry.scene
    order = sorted(range(len(scene.objects)), key=lambda number: scene.objects[number].center)
    answer, looks = _joined((_described(scene.objects[number], scene), {number}) for number in order)
    return [Question(entry, "scene", rng.choice(_SCENE_PROMPTS), answer, looks)]


def _whole(answer: str, objects: AbstractSet[int]) -> tuple[Look, ...]:
    return (Look(0, len(answer), frozenset(objects)),) if objects else ()


def _joined(parts: Iterable[tuple[str, AbstractSet[int]]]) -> tuple[str, tuple[Look, ...]]:
    """Return the parts as one answer, and where each of them is found."""
    answer, looks = "", []
    for text, objects in parts:
        start = len(answer) + (len(_BETWEEN) if answer else 0)
        answer += (_BETWEEN if answer else "") + text
        if objects:
            looks.append(Look(start, len(answer), frozenset(objects)))
    return answer, tuple(looks)


def spoken_of(scene: Scene, text: str) -> set[int]:
    """Return the objects that a text names in full or, where it names none so, those of a color or shape in it."""
    named = {number for number, item in enumerate(scene.objects) if item.name in text}
    words = set(re.findall("[a-z]+", text))
    return named or {
        number for number, item in enumerate(scene.objects) if words & {item.color, item.shape, plural(item.shape)}
    }


def _worded(task: str, values: dict[str, str], rng: random.Random) -> str:
    if "text" in values and task != "vqa_choice" and rng.random() < _BARE_SHARE:
        return values["text"]
    prompt = rng.choice(TASKS[task].train)
    for name, value in values.items():
        prompt = prompt.replace("{" + name + "}", value)
    return prompt


_Asked = tuple[str, dict[str, str], str]


def _vqa(entry: Entry, rng: random.Random) -> list[_Asked]:
    picked = rng.sample(entry.vqa, min(_VQA_PER_SCENE, len(entry.vqa)))
    asked: list[_Asked] = [("vqa", {"text": question.text}, question.truth) for question in picked]
    if rng.random() < _CHOICE_SHARE:
        choice = entry.choice
        values = {"text": choice.text, "choices": ", ".join(choice.choices)}
        asked.append(("vqa_choice", values, choice.choices[choice.correct_choice]))
    return asked


def _pope(entry: Entry, rng: random.Random) -> list[_Asked]:
    """One thing that is there, and one that is not: half of the time one whose color and shape both are."""
    scene = entry.scene
    no = _absent(scene, rng)
    place = rng.choice(("image", "picture"))
    return [
        ("pope", {"text": f"Is there {with_article(name)} in the {place}?"}, answer)
        for name, answer in ((rng.choice(scene.names), "yes"), (no, "no"))
    ]


def _absent(scene: Scene, rng: random.Random) -> str:
    """Return the name of something that is not there; half of the time its color and its shape both are."""
    absent = absent_names(scene)
    colors, shapes = scene.counts("color"), scene.counts("shape")
    near = [name for name in absent if name.split()[0] in colors and name.split()[1] in shapes]
    return rng.choice(near) if near and rng.random() < 0.5 else rng.choice(absent)


def _drills(entry: Entry, rng: random.Random) -> list[Question]:
    """Several names at once, some of them of nothing: where is each, and is it there."""
    scene = entry.scene
    boxes = {item.name: format_box(normalized_box(item, scene)) for item in scene.objects}
    single = [name for name in scene.names if sum(item.name == name for item in scene.objects) == 1]
    names = dict.fromkeys(rng.sample(single, min(len(single), _NAMES_PER_DRILL // 2 + 1)))
    while len(names) < _NAMES_PER_DRILL:
        names[_absent(scene, rng)] = None
    asked = rng.sample(list(names), len(names))
    listed = ", ".join(asked)
    numbers = {name: {number for number, item in enumerate(scene.objects) if item.name == name} for name in asked}
    where, looks = _joined((f"{name} {boxes.get(name, 'no')}", numbers[name]) for name in asked)
    there = " ".join("yes" if name in boxes else "no" for name in asked)
    return [
        Question(entry, "locate", f"Where are {listed}?", where, looks),
        Question(entry, "presence", f"Which are there: {listed}?", there),
    ]


def _regions(entry: Entry, rng: random.Random) -> list[tuple[int, _Asked]]:
    """Questions about single objects, behind the object's number."""
    scene = entry.scene
    boxes = [format_box(normalized_box(item, scene)) for item in scene.objects]
    named = [(number, text) for number, texts in entry.expressions for text in texts]
    asked: list[tuple[int, _Asked]] = [
        (number, ("rec", {"text": text}, REC_ANSWER.format(box=boxes[number])))
        for number, text in rng.sample(named, min(_REC_PER_SCENE, len(named)))
    ]
    if entry.expressions:
        number, texts = rng.choice(entry.expressions)
        asked.append((number, ("reg", {"box": boxes[number]}, rng.choice(texts))))
    return asked


def tag_prefix(entry: Entry, rng: random.Random) -> str:
    """LION's prompt with the tags of the sample world's simulated tagger, errors included."""
    tags = [tag for tag, score in entry.tags if score > THRESHOLD][: rng.randint(0, 12)]
    listed = f"you are allowed to use or partially use the following tags: [{', '.join(tags)}]. "
    return "According to <extra_id_0>, " + (listed if rng.random() < 0.8 else "")


def scene_in_words(scene: Scene, rng: random.Random) -> str:
    """Return the whole scene as a sentence with LION's boxes, objects in random order."""
    items = rng.sample(scene.objects, len(scene.objects))
    return f"{scene.background} background; {_BETWEEN.join(_described(item, scene) for item in items)}. "


def _described(item: SceneObject, scene: Scene) -> str:
    return f"{item.size} {item.name} {format_box(normalized_box(item, scene))}"


def vocabulary_texts(entries: Iterable[Entry], rng: random.Random) -> Iterator[str]:
    """Texts with every word that the tokenizers must know as one token."""
    words = (*SHAPES, *COLORS, *BACKGROUNDS, *_SIZES, "center", "background")
    for _ in range(50):  # often enough to be merged before any rarer word
        yield " ".join(words)
    for phrasings in TASKS.values():
        yield from (*phrasings.train, phrasings.evaluate) * 3
    for entry in entries:
        for question in questions(entry, rng):
            yield from (question.prompt, question.answer)
        yield from entry.captions
        yield tag_prefix(entry, rng)
        yield scene_in_words(entry.scene, rng)
