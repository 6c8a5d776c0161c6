"""`predict`: a question about one image or many, answered in this process."""

import dataclasses
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import Any, Literal

from models.tags import ImageTags, tags_to_rows
from pipelines.core import storage
from pipelines.core.errors import UserError
from pipelines.core.paths import path_field
from pipelines.core.steps import StepResult, canonical, digest_of, runtime_group
from pipelines.inference.answerer import Unanswered
from pipelines.inference.decoding import box_warning, in_words
from pipelines.inference.drawing import boxes_of, draw_boxes
from pipelines.inference.pictures import find_pictures, find_table, open_picture
from pipelines.inference.predictor import (
    LocalInference,
    Predictor,
    TagReading,
    find_model,
    parse_tags,
    prompt_reads_tags,
    tags_of,
)
from pipelines.inference.questions import Question, Task, build_question
from pipelines.registry import RegistryConfig
from pipelines.sources.images import BadImage

log = logging.getLogger("lion.predict")
ANSWERS = "answers.jsonl"
_READERS = 8
Contents = Mapping[str, Callable[[], bytes | None]]
"""URI → a function that reads the picture's embedded bytes."""
_GROUNDED = "grounded_caption"  # each box of its answers has a phrase


@dataclasses.dataclass(frozen=True)
class PredictConfig:
    """Ask a model about one image or many, in this process: a caption, an answer, a box.

    Answers are printed to stdout, and written with tags and boxes to `answers.jsonl` in the result's folder. The same
    command run again answers again and overwrites the file."""

    model: str = path_field("model")
    """The model: a folder, a training's result folder, or `models:/NAME@ALIAS`."""
    image: list[str] | str = path_field("input")
    """A file, a folder, `s3://…`, `gs://…`, a web address, or a tagged table (a precompute step's folder), whose
    embedded bytes are used where it has them. Write several as a list: ['a.jpg','b.jpg']."""
    task: Task = "caption"
    """Kind of question: caption, vqa, vqa_choice, rec (find an object), reg (describe a box), grounded_caption,
    statement (true or false), pope (yes or no)."""
    text: str = ""
    """The question, the expression to locate or the statement; for reg the box [x1,y1,x2,y2] to describe."""
    choices: list[str] = dataclasses.field(default_factory=list)
    """Options of vqa_choice."""
    prompt: str | None = None
    """Your wording of the instruction, with {text}, {choices} or {box}. Empty: the evaluation's."""
    tagger: str | None = path_field("input", None)
    """Folder of a tagger, for example RAM, that tags the images. Needed if the model's prompt contains tags."""
    tags: str | None = None
    """Tags for every image, in place of a tagger: 'dog: 0.98, ball: 0.96'. A tag without a number has confidence 1."""
    threshold: Literal["per_tag"] | float | None = None
    """The model reads a tag if its confidence is above this: a number for all tags, or `per_tag`, each tag's own
    threshold. Empty: as the model was trained; if its training has not decided it, the tagger's thresholds."""
    tag_order: Literal["list", "confidence"] | None = None
    """Order of the tags in the prompt: `confidence` (falling), or `list`, the order of RAM's list. Empty: as the model
    was trained."""
    format: Literal["text", "json"] = "text"
    """Form of the printed answers: `text`, or `json`, a line for each image."""
    draw: bool = False
    """Whether to also write each picture with the boxes of its answer drawn on it."""
    out: str = path_field("output", "runs")
    """Folder or URI under which the result's folder is created. It also holds the default registry."""
    inference: LocalInference = dataclasses.field(default_factory=LocalInference)
    registry: RegistryConfig = runtime_group(RegistryConfig)


def predict(config: PredictConfig) -> StepResult:
    """Answer the question for each image, write `answers.jsonl` and the drawn pictures, and return the lines to print.

    Raises:
        UserError: the question, the model, the tags or the images are wrong, or there is no answer for any image.
    """
    config.inference.check()
    question = build_question(config.task, config.text, config.choices, config.prompt)
    pictures, contents = _pictures([config.image] if isinstance(config.image, str) else config.image)
    model = find_model(config.model, config.registry, config.out)
    fixed = _fixed_tags(config, prompt_reads_tags(model.folder))
    predictor = Predictor(model, config.tagger, config.inference, TagReading(config.threshold, config.tag_order))
    settings = predictor.answerer.settings
    limit: dict[str, int] = {config.task: settings.limits[config.task]}
    settings.decoding.check(limit)
    if warning := box_warning(settings.decoding.settings, limit):
        log.warning("%s", warning)
    if predictor.reads_tags:
        log.info("The model reads %s", predictor.rules.in_words())
        _warn_of_unread(predictor, fixed or [])
    identity = {**canonical(config), "image": pictures, "model": predictor.version, "draw": None, "format": None}
    folder = storage.join(storage.absolute(config.out), f"predict-{digest_of(identity)[:12]}")
    rows = []
    for row in _answers(config, predictor, question, pictures, contents, fixed, folder):
        rows.append(row)
        if len(pictures) > 1 and (len(rows) % 100 == 0 or len(rows) == len(pictures)):
            log.info("%d of %d images answered", len(rows), len(pictures))
    unanswered = [row for row in rows if row["problem"]]
    if len(unanswered) == len(rows):
        raise UserError(f"There is no answer for any of {len(rows)} images; the first: {unanswered[0]['problem']}.")
    answers = storage.join(folder, ANSWERS)
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    storage.write_atomic(answers, "".join(f"{line}\n" for line in lines).encode())
    decoded_with = in_words(settings.decoding.as_dict(limit))
    summary = {"rows": len(rows), "unanswered": len(unanswered), "model": predictor.version, "answers": answers,
               "decoded_with": decoded_with}  # fmt: skip
    if predictor.reads_tags:
        summary |= {"tags_read": predictor.rules.described()}
    if config.format == "text":
        lines = [_line(row, alone=len(rows) == 1) for row in rows]
    return StepResult("predict", folder, False, summary, lines)


def _pictures(names: Sequence[str]) -> tuple[list[str], Contents]:
    """Return the URIs of the pictures in order, and the readers of those that a tagged table embeds."""
    tables = {name: find_table(name) for name in names}
    contents = {uri: read for table in tables.values() if table is not None for uri, read in table.items()}
    if not any(table is not None for table in tables.values()):
        return find_pictures(names), contents
    by_name = [find_pictures([name]) if (table := tables[name]) is None else list(table) for name in names]
    return [uri for uris in by_name for uri in uris], contents


def _fixed_tags(config: PredictConfig, reads_tags: bool) -> ImageTags | None:
    """Return the tags of the command line; None where a tagger computes them, empty where the model reads none.

    Raises:
        UserError: the model needs tags and there are none, or both sources are set.
    """
    if config.tags is not None and config.tagger is not None:
        raise UserError("Give --tagger or --tags, not both.")
    if reads_tags and config.tags is None and config.tagger is None:
        raise UserError(
            f"The prompt of {config.model} contains the image's tags, and there are none: give --tagger FOLDER (the "
            "tagger of the training images), or --tags 'dog: 0.98, ball: 0.96'."
        )
    if not reads_tags and (config.tags is not None or config.tagger is not None):
        log.warning(
            "The prompt of %s contains no tags: they are written to the answers and change nothing", config.model
        )
    if config.tags is not None:
        return parse_tags(config.tags)
    return None if config.tagger is not None else []


def _warn_of_unread(predictor: Predictor, tags: ImageTags) -> None:
    """Warn about tags of the command line that are not above their threshold."""
    unread = [tag for (tag, _), is_read in zip(tags, predictor.reads(tags), strict=True) if not is_read]
    if unread:
        log.warning("Not above their threshold, so that the model does not read them: %s", ", ".join(unread))


def _answers(
    config: PredictConfig,
    predictor: Predictor,
    question: Question,
    pictures: Sequence[str],
    contents: Contents,
    fixed: ImageTags | None,
    folder: str,
) -> Iterator[dict[str, Any]]:
    """Yield a row per picture, with one batch of pictures in memory."""
    size = config.inference.batch_size
    with ThreadPoolExecutor(_READERS) as pool:
        for start in range(0, len(pictures), size):
            uris = pictures[start : start + size]
            images = list(pool.map(lambda uri: open_picture(uri, contents[uri]() if uri in contents else None), uris))
            if predictor.tagger is not None and fixed is None:
                tags = tags_of(predictor.tagger, images)
            else:
                tags = [fixed or []] * len(images)
            replies = predictor.replies(images, [question] * len(images), tags)
            for number, (uri, image, image_tags, reply) in enumerate(zip(uris, images, tags, replies, strict=True)):
                row = _row(uri, question, image_tags, reply, predictor.version)
                if config.draw and not isinstance(image, BadImage):
                    row["picture"] = _draw(image, row, storage.join(folder, _name(start + number, uri)))
                yield row


def _row(uri: str, question: Question, tags: ImageTags, reply: str | Unanswered, version: str) -> dict[str, Any]:
    answered = isinstance(reply, str)
    phrase = None if question.task == _GROUNDED else question.text
    spans = boxes_of(reply, phrase) if isinstance(reply, str) else []
    return {
        "image": uri,
        "task": question.task,
        "text": question.text,
        "instruction": question.instruction,
        "answer": reply if answered else "",
        "box": list(spans[0].box or ()) if spans else None,
        "boxes": [{"phrase": span.text, "box": list(span.box or ())} for span in spans],
        "tags": tags_to_rows(tags),
        "model": version,
        "picture": None,
        "problem": None if isinstance(reply, str) else f"{reply.reason}: {reply.detail}",
    }


def _draw(image: Any, row: Mapping[str, Any], uri: str) -> str | None:
    """Write the picture with its boxes and return its URI; None where the answer has no box."""
    from pipelines.sources.grounding import Span

    spans = [Span(entry["phrase"], tuple(entry["box"])) for entry in row["boxes"]]
    if not spans:
        log.info("%s: no box in the answer %r, so nothing is drawn", row["image"], row["answer"])
        storage.delete_file(uri)  # written by an earlier run whose answer had a box
        return None
    sink = BytesIO()
    draw_boxes(image, spans).save(sink, "PNG")
    storage.write_atomic(uri, sink.getvalue())
    return uri


def _name(number: int, uri: str) -> str:
    """Return the name of a drawn picture; it is numbered, since two folders may have files of the same name."""
    stem = os.path.splitext(os.path.basename(uri.split("?")[0]))[0] or "image"
    return f"pictures/{number:05d}-{stem}.png"


def _line(row: Mapping[str, Any], alone: bool) -> str:
    answer = f"(no answer: {row['problem']})" if row["problem"] else row["answer"]
    return answer if alone else f"{row['image']}: {answer}"
