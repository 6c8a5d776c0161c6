"""The text corpus of the small T5: questions about scenes, and their answers."""

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
# Questions of one kind have answers of similar length, so that a batch has little padding.
KINDS: dict[Kind, tuple[str, ...]] = {
    "short": ("vqa", "vqa_choice", "pope"),
    "long": ("caption", "rec"),
    "region": ("reg",),
    "scene": ("scene",),
    "locate": ("locate",),
    "presence": ("presence",),
}
# An answer of LION's own tasks needs one look-up in the scene, from which a small T5 learns look-ups very slowly. An
# answer of a drill needs several. Drills are frequent at the start of training and rare later.
DRILLS: dict[Kind, float] = {"locate": 0.85, "presence": 0.15}
_LION_TASKS: dict[Kind, float] = {"short": 0.45, "long": 0.35, "region": 0.12, "scene": 0.08}
_DRILLED = (0.5, 0.1)  # fraction of drills at the start, and from the middle of training on
_NAMES_PER_DRILL = 5
# LION's own tasks are about one object; a list of all objects needs many look-ups in one answer.
_SCENE_PROMPTS = ("List every object with its box.", "Name all objects from left to right, each with its box.")
_VQA_PER_SCENE, _REC_PER_SCENE, _CHOICE_SHARE = 2, 3, 0.4
_SEPARATOR = "; "
_BARE_SHARE = 0.15  # fraction of questions without a prompt template
_SIZES = ("small", "large")


@dataclass(frozen=True)
class AnswerSpan:
    """A part of an answer that is about some objects of the scene.

    Attributes:
        start, end: first character, and last character + 1.
        objects: indices of the objects in the scene.
    """

    start: int
    end: int
    objects: frozenset[int]


@dataclass(frozen=True)
class CorpusQuestion:
    """A question about a scene, with its answer.

    Attributes:
        entry: the scene with its texts.
        task: a task of LION, or `scene`, `locate`, `presence`.
        prompt: the question in words.
        answer: the true answer.
        spans: the parts of the answer that are about certain objects; empty if that is not known.
    """

    entry: Entry
    task: str
    prompt: str
    answer: str
    spans: tuple[AnswerSpan, ...] = ()


def shares(progress: float) -> dict[Kind, float]:
    """Return the probability of each kind of question at a point of the training, from 0 (start) to 1 (end)."""
    first, later = _DRILLED
    drilled = max(later, first - 2 * (first - later) * progress)
    return {kind: share * drilled for kind, share in DRILLS.items()} | {
        kind: share * (1 - drilled) for kind, share in _LION_TASKS.items()
    }


def questions(entry: Entry, rng: random.Random) -> list[CorpusQuestion]:
    """Return some questions of every task about one scene, in the phrasings for training."""
    return [*_short(entry, rng), *_long(entry, rng), *_scene(entry, rng), *_drills(entry, rng)]


def questions_of(kind: Kind, entries: Iterator[Entry], count: int, rng: random.Random) -> list[CorpusQuestion]:
    """Return `count` questions of one kind, from as many scenes as necessary."""
    write = {"short": _short, "long": _long, "region": _long, "scene": _scene}.get(kind, _drills)
    selected: list[CorpusQuestion] = []
    while len(selected) < count:
        selected += [question for question in write(next(entries), rng) if question.task in KINDS[kind]]
    return selected[:count]


def _short(entry: Entry, rng: random.Random) -> list[CorpusQuestion]:
    drafts = [*_vqa(entry, rng), *_pope(entry, rng)]
    return [
        CorpusQuestion(
            entry,
            task,
            _worded(task, values, rng),
            answer,
            _whole(answer, mentioned_objects(entry.scene, values["text"])),
        )
        for task, values, answer in drafts
    ]


def _long(entry: Entry, rng: random.Random) -> list[CorpusQuestion]:
    caption = CorpusQuestion(entry, "caption", _worded("caption", {}, rng), rng.choice(entry.captions))
    return [
        caption,
        *(
            CorpusQuestion(entry, task, _worded(task, values, rng), answer, _whole(answer, {number}))
            for number, (task, values, answer) in _regions(entry, rng)
        ),
    ]


def _scene(entry: Entry, rng: random.Random) -> list[CorpusQuestion]:
    scene = entry.scene
    order = sorted(range(len(scene.objects)), key=lambda number: scene.objects[number].center)
    answer, spans = _joined((_described(scene.objects[number], scene), {number}) for number in order)
    return [CorpusQuestion(entry, "scene", rng.choice(_SCENE_PROMPTS), answer, spans)]


def _whole(answer: str, objects: AbstractSet[int]) -> tuple[AnswerSpan, ...]:
    """Return one span over the whole answer; none if there are no objects."""
    return (AnswerSpan(0, len(answer), frozenset(objects)),) if objects else ()


def _joined(parts: Iterable[tuple[str, AbstractSet[int]]]) -> tuple[str, tuple[AnswerSpan, ...]]:
    """Join the parts of an answer, each with its objects; return the answer and the spans of the parts."""
    answer, spans = "", []
    for text, objects in parts:
        start = len(answer) + (len(_SEPARATOR) if answer else 0)
        answer += (_SEPARATOR if answer else "") + text
        if objects:
            spans.append(AnswerSpan(start, len(answer), frozenset(objects)))
    return answer, tuple(spans)


def mentioned_objects(scene: Scene, text: str) -> set[int]:
    """Return the indices of the objects whose full name is in a text or, if there are none, whose color or shape is."""
    named = {number for number, item in enumerate(scene.objects) if item.name in text}
    words = set(re.findall("[a-z]+", text))
    return named or {
        number for number, item in enumerate(scene.objects) if words & {item.color, item.shape, plural(item.shape)}
    }


def _worded(task: str, values: dict[str, str], rng: random.Random) -> str:
    """Return the prompt: a random template of the task, or the bare question."""
    if "text" in values and task != "vqa_choice" and rng.random() < _BARE_SHARE:
        return values["text"]
    prompt = rng.choice(TASKS[task].train)
    for name, value in values.items():
        prompt = prompt.replace("{" + name + "}", value)
    return prompt


_Draft = tuple[str, dict[str, str], str]
"""Task, values of the prompt template, and answer."""


def _vqa(entry: Entry, rng: random.Random) -> list[_Draft]:
    picked = rng.sample(entry.vqa, min(_VQA_PER_SCENE, len(entry.vqa)))
    drafts: list[_Draft] = [("vqa", {"text": question.text}, question.truth) for question in picked]
    if rng.random() < _CHOICE_SHARE:
        choice = entry.choice
        values = {"text": choice.text, "choices": ", ".join(choice.choices)}
        drafts.append(("vqa_choice", values, choice.choices[choice.correct_choice]))
    return drafts


def _pope(entry: Entry, rng: random.Random) -> list[_Draft]:
    """Return a question about an object of the scene, and one about an absent object."""
    scene = entry.scene
    no = _absent(scene, rng)
    noun = rng.choice(("image", "picture"))
    return [
        ("pope", {"text": f"Is there {with_article(name)} in the {noun}?"}, answer)
        for name, answer in ((rng.choice(scene.names), "yes"), (no, "no"))
    ]


def _absent(scene: Scene, rng: random.Random) -> str:
    """Return the name of an absent object. Half of the time its color and its shape both occur in the scene."""
    absent = absent_names(scene)
    colors, shapes = scene.counts("color"), scene.counts("shape")
    partly_present = [name for name in absent if name.split()[0] in colors and name.split()[1] in shapes]
    return rng.choice(partly_present) if partly_present and rng.random() < 0.5 else rng.choice(absent)


def _drills(entry: Entry, rng: random.Random) -> list[CorpusQuestion]:
    """Return two questions about several names, some of absent objects: where each is, and whether it is present."""
    scene = entry.scene
    boxes = {item.name: format_box(normalized_box(item, scene)) for item in scene.objects}
    single = [name for name in scene.names if sum(item.name == name for item in scene.objects) == 1]
    names = dict.fromkeys(rng.sample(single, min(len(single), _NAMES_PER_DRILL // 2 + 1)))
    while len(names) < _NAMES_PER_DRILL:
        names[_absent(scene, rng)] = None
    order = rng.sample(list(names), len(names))
    listing = ", ".join(order)
    numbers = {name: {number for number, item in enumerate(scene.objects) if item.name == name} for name in order}
    where, spans = _joined((f"{name} {boxes.get(name, 'no')}", numbers[name]) for name in order)
    presence = " ".join("yes" if name in boxes else "no" for name in order)
    return [
        CorpusQuestion(entry, "locate", f"Where are {listing}?", where, spans),
        CorpusQuestion(entry, "presence", f"Which are there: {listing}?", presence),
    ]


def _regions(entry: Entry, rng: random.Random) -> list[tuple[int, _Draft]]:
    """Return questions about single objects, each with the object's index."""
    scene = entry.scene
    boxes = [format_box(normalized_box(item, scene)) for item in scene.objects]
    named = [(number, text) for number, texts in entry.expressions for text in texts]
    drafts: list[tuple[int, _Draft]] = [
        (number, ("rec", {"text": text}, REC_ANSWER.format(box=boxes[number])))
        for number, text in rng.sample(named, min(_REC_PER_SCENE, len(named)))
    ]
    if entry.expressions:
        number, texts = rng.choice(entry.expressions)
        drafts.append((number, ("reg", {"box": boxes[number]}, rng.choice(texts))))
    return drafts


def tag_prefix(entry: Entry, rng: random.Random) -> str:
    """Return the beginning of LION's prompt, with the tags of the simulated tagger, which has errors."""
    tags = [tag for tag, score in entry.tags if score > THRESHOLD][: rng.randint(0, 12)]
    tag_text = f"you are allowed to use or partially use the following tags: [{', '.join(tags)}]. "
    return "According to <extra_id_0>, " + (tag_text if rng.random() < 0.8 else "")


def scene_in_words(scene: Scene, rng: random.Random) -> str:
    """Return the scene as a sentence with all objects in random order, with boxes in LION's notation."""
    items = rng.sample(scene.objects, len(scene.objects))
    return f"{scene.background} background; {_SEPARATOR.join(_described(item, scene) for item in items)}. "


def _described(item: SceneObject, scene: Scene) -> str:
    return f"{item.size} {item.name} {format_box(normalized_box(item, scene))}"


def vocabulary_texts(entries: Iterable[Entry], rng: random.Random) -> Iterator[str]:
    """Yield texts for the training of the tokenizers, with every word that must become one token."""
    words = (*SHAPES, *COLORS, *BACKGROUNDS, *_SIZES, "center", "background")
    for _ in range(50):  # so often that these words become tokens before rarer ones
        yield " ".join(words)
    for phrasings in TASKS.values():
        yield from (*phrasings.train, phrasings.evaluate) * 3
    for entry in entries:
        for question in questions(entry, rng):
            yield from (question.prompt, question.answer)
        yield from entry.captions
        yield tag_prefix(entry, rng)
        yield scene_in_words(entry.scene, rng)
