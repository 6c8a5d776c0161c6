"""The phrasings of the tasks: several for training, and one for evaluation that training never uses.

Placeholders: `{text}` is the question or the expression, `{choices}` the options, `{box}` the region. A prompt whose
answer has a fixed form names that form; `[x1,y1,x2,y2]` in a phrasing is replaced by the form of the build's notation.
Evaluation has one phrasing per task, so that results compare. For the phrasing of a benchmark set `prompt` of a set.
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
    """A task and its phrasings.

    Attributes:
        level: the adapter that answers it: of the whole image or of a region.
        placeholders: the placeholders that every phrasing has.
        train: the phrasings of training.
        evaluate: the phrasing of evaluation.
    """

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
    """Return the text of a question.

    Args:
        task: a key of `TASKS`.
        mode: the phrasings of training or that of evaluation.
        values: the values of the placeholders, by their names without braces.
        key: decides which phrasing of training is used; the same key always gives the same phrasing.
        prompt: a phrasing to use instead.
        notation: how the answer's boxes are to be written.
    """
    phrasings = TASKS[task]
    if prompt is None:
        number = int.from_bytes(blake2b(key.encode(), digest_size=8).digest(), "big")
        prompt = phrasings.evaluate if mode == "evaluate" else phrasings.train[number % len(phrasings.train)]
        prompt = prompt.replace(_BOX_FORM, _FORMS[notation])
    text = prompt
    # {text} is replaced last: the question may have "{choices}" or "{box}" in it, which must stay as it is.
    for name in ("choices", "box", "text"):
        if name in values:
            text = text.replace("{" + name + "}", values[name])
    return text
