"""How tasks are put into words: our own phrasings, those of training and those of evaluation apart.

`{text}` is the question or the expression, `{choices}` the options, `{box}` the region. Every prompt whose answer has a
form says which; `[x1,y1,x2,y2]` in a wording becomes the form of the notation that a build is made in. Evaluation has
one phrasing a task, which training never shows, so that its results compare; a benchmark's own wording goes in a set's
`prompt`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal

from pipelines.sources.boxes import Notation

Mode = Literal["train", "evaluate"]

REC_ANSWER = "Answer: {box}"
_BOX_FORM = "[x1,y1,x2,y2]"
_FORMS: Mapping[Notation, str] = {
    "lion": _BOX_FORM,
    "markdown": "[phrase](x1,y1,x2,y2)",
    "kosmos2": "<phrase>phrase</phrase><object><patch_index_first><patch_index_last></object>",
}


@dataclass(frozen=True)
class Phrasings:
    """A task's level (which adapter answers it), its placeholders and its wordings."""

    level: Literal["image", "region"]
    placeholders: tuple[str, ...]
    train: tuple[str, ...]
    evaluate: str


TASKS: Mapping[str, Phrasings] = {
    "caption": Phrasings(
        "image",
        (),
        (
            "Describe the image in one short sentence.",
            "Write a short caption for this picture.",
            "What does the image show? Answer with one sentence.",
            "Sum up the picture in a single sentence.",
        ),
        "Describe what the picture shows in one short sentence.",
    ),
    "vqa": Phrasings(
        "image",
        ("{text}",),
        (
            "{text} Answer with a word or a short phrase.",
            "Look at the image and answer in a few words. {text}",
            "Question about the picture: {text} Short answer:",
            "{text} Keep the answer short.",
        ),
        "Look at the picture and answer with a word or a short phrase. {text}",
    ),
    "vqa_choice": Phrasings(
        "image",
        ("{text}", "{choices}"),
        (
            "{text} Choose from: {choices}. Answer with the right option.",
            "Question about the picture: {text} Options: {choices}. Right option:",
            "Look at the image and pick one of the options {choices}. {text}",
        ),
        "{text} Options: {choices}. Answer with the right option.",
    ),
    "rec": Phrasings(
        "region",
        ("{text}",),
        (
            "Where is this: {text}? Answer with its box [x1,y1,x2,y2].",
            "Locate in the image: {text}. Give the box as [x1,y1,x2,y2].",
            "Find what is meant by: {text}. Answer with the box [x1,y1,x2,y2].",
            "Give the box [x1,y1,x2,y2] of: {text}.",
        ),
        "Locate what is meant by: {text}. Answer with its box [x1,y1,x2,y2].",
    ),
    "reg": Phrasings(
        "region",
        ("{box}",),
        (
            "What is at {box}? Answer with a phrase that fits nothing else in the image.",
            "Name the region {box} so that nothing else is meant.",
            "Describe what the box {box} holds in a short phrase.",
        ),
        "Describe the region {box} in a short phrase that fits nothing else.",
    ),
    "grounded_caption": Phrasings(
        "region",
        (),
        (
            "Describe the image in one sentence, with the box [x1,y1,x2,y2] of each thing behind its name.",
            "Write a caption that gives each thing together with its box [x1,y1,x2,y2].",
            "What is where in the picture? Answer with a sentence that puts boxes [x1,y1,x2,y2] behind the things.",
        ),
        "Describe the picture in one sentence that names each thing with its box [x1,y1,x2,y2].",
    ),
    "statement": Phrasings(
        "image",
        ("{text}",),
        (
            "{text} Is this true or false of the image?",
            "Look at the image and answer true or false. {text}",
            "Statement about the picture: {text} True or false:",
        ),
        "Look at the picture and say true or false. {text}",
    ),
    "pope": Phrasings(
        "image",
        ("{text}",),
        (
            "{text} Answer yes or no.",
            "Look at the image and say yes or no. {text}",
            "Question about the picture: {text} Yes or no:",
        ),
        "Look at the picture and answer yes or no. {text}",
    ),
}


def instruction(
    task: str,
    mode: Mode,
    values: Mapping[str, str],
    key: str,
    prompt: str | None = None,
    notation: Notation = "lion",
) -> str:
    """Return a question in words.

    Args:
        task: a key of `TASKS`.
        mode: whose phrasings.
        values: what stands for the placeholders, by their names without braces.
        key: decides which phrasing of training it is; the same key gives the same one.
        prompt: a wording to use instead.
        notation: of the boxes that are asked for.
    """
    phrasings = TASKS[task]
    if prompt is None:
        number = int.from_bytes(blake2b(key.encode(), digest_size=8).digest(), "big")
        prompt = phrasings.evaluate if mode == "evaluate" else phrasings.train[number % len(phrasings.train)]
        prompt = prompt.replace(_BOX_FORM, _FORMS[notation])
    pieces = prompt
    # The text comes last: whatever stands in it, braces too, is the question's own.
    for name in ("choices", "box", "text"):
        if name in values:
            pieces = pieces.replace("{" + name + "}", values[name])
    return pieces
