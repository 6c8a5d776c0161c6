"""Questions about scenes, with answers of ten simulated annotators who sometimes confuse look-alikes."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pipelines.sample_world.language import OPPOSITE, RELATION_WORDS, Direction, is_strictly, plural, with_article
from pipelines.sample_world.scenes import COLORS, LOOK_ALIKES, SHAPES, Scene, SceneObject

ANNOTATORS = 10
_RELIABILITY = 0.85  # probability that an annotator gives the true answer
_LEAST_AGREEING = 6  # of ten, so that the true answer is always the most frequent one


@dataclass(frozen=True)
class VqaQuestion:
    """A question with the fields of VQAv2. `truth` is the true answer and the most frequent of `answers`."""

    text: str
    question_type: str
    answer_type: Literal["yes/no", "number", "other"]
    truth: str
    answers: tuple[str, ...]


@dataclass(frozen=True)
class ChoiceQuestion:
    """A question with the fields of A-OKVQA: four choices, one of them correct, and ten direct answers."""

    text: str
    choices: tuple[str, ...]
    correct_choice: int
    direct_answers: tuple[str, ...]
    rationales: tuple[str, ...]


def vqa_questions(scene: Scene, index: int, rng: random.Random) -> list[VqaQuestion]:
    """Return one question of each type that the scene allows: color or shape, count, presence, and relation.

    Answers are balanced over scenes: yes and no, left and right alternate with `index`, the scene's number; rare
    colors, shapes and counts get a larger weight.
    """
    is_even = index % 2 == 0
    drawn = [_attribute(scene, rng), _count(scene, rng), _presence(scene, is_even, rng), _relation(scene, is_even, rng)]
    return [question for question in drawn if question is not None]


def choice_question(scene: Scene, rng: random.Random) -> ChoiceQuestion:
    """Return a question that needs a comparison of all objects, with the correct choice at a random position."""
    candidates = [question for compare in _COMPARISONS if (question := compare(scene)) is not None]
    if not candidates:
        total = str(len(scene.objects))
        candidates = [("How many shapes can be seen in all?", total, f"Counting them gives {total}.")]
    text, truth, rationale = rng.choice(candidates)
    wrong_choices = _distractors(scene, truth, rng)
    correct = rng.randrange(4)
    choices = [*wrong_choices[:correct], truth, *wrong_choices[correct:]]
    answers = annotate(truth, wrong_choices[:1], rng)
    rationales = (rationale, f"The answer is {truth}.", f"Looking at every shape leads to {truth}.")
    return ChoiceQuestion(text, tuple(choices), correct, answers, rationales)


def annotate(truth: str, confusions: Sequence[str], rng: random.Random) -> tuple[str, ...]:
    """Return the answers of ten annotators.

    Args:
        truth: the true answer, given by at least six annotators.
        confusions: wrong answers, of which the other annotators choose.
        rng: the random generator.
    """
    answers = [truth if rng.random() < _RELIABILITY else rng.choice(confusions) for _ in range(ANNOTATORS)]
    for position in range(ANNOTATORS):
        if answers.count(truth) >= _LEAST_AGREEING:
            break
        answers[position] = truth
    return tuple(answers)


def name_in(scene: Scene, item: SceneObject) -> str | None:
    """Return the shortest name that is unique in the scene: "red circle", "small red circle", or None."""
    if sum(other.name == item.name for other in scene.objects) == 1:
        return item.name
    if sum((other.name, other.size) == (item.name, item.size) for other in scene.objects) == 1:
        return f"{item.size} {item.name}"
    return None


def _attribute(scene: Scene, rng: random.Random) -> VqaQuestion | None:
    """Return a question for the color or shape of an object that its other attribute identifies; None if there is none.

    Examples: "What color is the circle?", "What shape is the red object?".
    """
    shapes, colors = scene.counts("shape"), scene.counts("color")
    # Rare answers get a larger weight, so that the most frequent answer is not a good guess.
    for_color = [(item, 1 / COLORS[item.color]) for item in scene.objects if shapes[item.shape] == 1]
    for_shape = [(item, 1 / SHAPES[item.shape]) for item in scene.objects if colors[item.color] == 1]
    kinds = [(kind, weighted) for kind, weighted in (("color", for_color), ("shape", for_shape)) if weighted]
    if not kinds:
        return None
    kind, weighted = rng.choice(kinds)
    item = rng.choices([entry for entry, _ in weighted], [weight for _, weight in weighted])[0]
    if kind == "color":
        text, start, truth = f"What color is the {item.shape}?", "what color is the", item.color
    else:
        text, start, truth = f"What shape is the {item.color} object?", "what shape is the", item.shape
    vocabulary = COLORS if kind == "color" else SHAPES
    confusion = LOOK_ALIKES.get(truth) or rng.choice([word for word in vocabulary if word != truth])
    return VqaQuestion(text, start, "other", truth, annotate(truth, [confusion], rng))


def _count(scene: Scene, rng: random.Random) -> VqaQuestion:
    """Return a question for the number of objects of a shape or color. The count is drawn first, so that 0 is as
    frequent as 1."""
    shapes, colors = scene.counts("shape"), scene.counts("color")
    options = [(shapes[shape], plural(shape)) for shape in SHAPES]
    options += [(colors[color], f"{color} objects") for color in COLORS]
    number = rng.choice(sorted({count for count, _ in options}))
    noun = rng.choice([noun for count, noun in options if count == number])
    wrong_counts = [str(number + 1)] if number == 0 else [str(number - 1), str(number + 1)]
    return VqaQuestion(
        f"How many {noun} are there?", "how many", "number", str(number), annotate(str(number), wrong_counts, rng)
    )


def _presence(scene: Scene, is_present: bool, rng: random.Random) -> VqaQuestion:
    """Return a question such as "Is there a red circle?". A "no" is mostly about a look-alike of an object."""
    if is_present:
        name = rng.choice(scene.names)
    else:
        absent = absent_names(scene)
        look_alikes = sorted(set(absent) & {other for item in scene.objects for other in _look_alike_names(item)})
        name = rng.choice(look_alikes) if look_alikes and rng.random() < 0.7 else rng.choice(absent)
    truth, other = ("yes", "no") if is_present else ("no", "yes")
    text = f"Is there {with_article(name)} in the picture?"
    return VqaQuestion(text, "is there a", "yes/no", truth, annotate(truth, [other], rng))


def _relation(scene: Scene, first_side: bool, rng: random.Random) -> VqaQuestion | None:
    """Return a question for the relation of two objects, half of the time as a yes/no question; None if no two objects
    have unique names."""
    named = [(item, name) for item in scene.objects if (name := name_in(scene, item)) is not None]
    if len(named) < 2:
        return None
    (item, name), (anchor, anchor_name) = rng.sample(named, 2)
    sides: list[Direction] = [side for side in OPPOSITE if is_strictly(side, item, anchor)]
    side = rng.choice(sides)
    if (side in ("left", "above")) != first_side:  # swapping the two objects reverses the side
        (name, anchor_name), side = (anchor_name, name), OPPOSITE[side]
    if rng.random() < 0.5:
        sides_text = "to the left or to the right of" if side in ("left", "right") else "above or below"
        text = f"Is the {name} {sides_text} the {anchor_name}?"
        return VqaQuestion(text, "is the", "other", side, annotate(side, [OPPOSITE[side]], rng))
    truth, other = rng.choice([("yes", "no"), ("no", "yes")])
    claimed = side if truth == "yes" else OPPOSITE[side]
    text = f"Is the {name} {RELATION_WORDS[claimed]} the {anchor_name}?"
    return VqaQuestion(text, "is the", "yes/no", truth, annotate(truth, [other], rng))


def absent_names(scene: Scene) -> list[str]:
    """Return every color-shape pair that is not in the scene, sorted."""
    present = set(scene.names)
    return sorted(name for color in COLORS for shape in SHAPES if (name := f"{color} {shape}") not in present)


def _look_alike_names(item: SceneObject) -> list[str]:
    """Return the names that the object may be confused with: another color or another shape."""
    names = [f"{LOOK_ALIKES[item.color]} {item.shape}"] if item.color in LOOK_ALIKES else []
    return [*names, f"{item.color} {LOOK_ALIKES[item.shape]}"] if item.shape in LOOK_ALIKES else names


# Each comparison returns (question, answer, rationale), or None if the answer would not be clear.
def _largest(scene: Scene) -> tuple[str, str, str] | None:
    first, second = (item.width * item.height for item in scene.objects[:2])
    if first < 1.3 * second:
        return None
    return "Which shape is the biggest of all?", scene.objects[0].name, "No other is as wide and as high."


def _outermost(scene: Scene) -> tuple[str, str, str] | None:
    ordered = sorted(scene.objects, key=lambda item: item.center[0])
    if ordered[1].center[0] - ordered[0].center[0] < 0.08 * scene.width:
        return None
    return "Which shape would be met first coming from the left?", ordered[0].name, "It lies nearest to the left edge."


def _lowest(scene: Scene) -> tuple[str, str, str] | None:
    ordered = sorted(scene.objects, key=lambda item: -item.center[1])
    if ordered[0].center[1] - ordered[1].center[1] < 0.08 * scene.height:
        return None
    return "Which shape would touch the ground first if all fell?", ordered[0].name, "It is the lowest of all."


def _shared_color(scene: Scene) -> tuple[str, str, str] | None:
    ranked = scene.counts("color").most_common(2)
    if ranked[0][1] < 2 or (len(ranked) > 1 and ranked[1][1] == ranked[0][1]):
        return None
    return "Which color is the most common here?", ranked[0][0], "More shapes have it than any other color."


def _repeated_shape(scene: Scene) -> tuple[str, str, str] | None:
    ranked = scene.counts("shape").most_common(2)
    if ranked[0][1] < 2 or (len(ranked) > 1 and ranked[1][1] == ranked[0][1]):
        return None
    return "Which kind of shape is repeated most often?", ranked[0][0], "It appears more often than any other."


_COMPARISONS: tuple[Callable[[Scene], tuple[str, str, str] | None], ...] = (
    _largest,
    _outermost,
    _lowest,
    _shared_color,
    _repeated_shape,
)


def _distractors(scene: Scene, truth: str, rng: random.Random) -> list[str]:
    """Return three wrong choices of the same kind as the truth; those that occur in the scene come first."""
    if truth.isdigit():
        return [str(number) for number in rng.sample([n for n in range(1, 9) if str(n) != truth], 3)]
    kinds: Mapping[str, tuple[Sequence[str], Sequence[str]]] = {
        "color": (sorted(scene.counts("color")), list(COLORS)),
        "shape": (sorted(scene.counts("shape")), list(SHAPES)),
        "name": (scene.names, absent_names(scene)),
    }
    present, vocabulary = kinds["color" if truth in COLORS else "shape" if truth in SHAPES else "name"]
    choices = [word for word in present if word != truth]
    rng.shuffle(choices)
    absent = [word for word in vocabulary if word != truth and word not in choices]
    choices = choices[:3]
    return choices + rng.sample(absent, 3 - len(choices))
