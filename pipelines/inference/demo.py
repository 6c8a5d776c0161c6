"""The models behind the demo page, without the page: tags of an image, and the answers of several models."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from models.tags import ImageTags, threshold_in_words
from pipelines.core.errors import UserError
from pipelines.inference.answerer import Unanswered
from pipelines.inference.drawing import boxes_of, draw_boxes
from pipelines.inference.predictor import Predictor, parse_tags, tags_of
from pipelines.inference.questions import build_question
from pipelines.precompute.taggers import Tagger
from pipelines.sources.images import BadImage, decode_image

if TYPE_CHECKING:
    from PIL.Image import Image

REQUESTS = {"Caption": "caption", "Answer": "vqa", "Object": "rec"}
"""The page's kinds of questions, and the task of each."""
HINTS = {
    "Caption": "nothing to write: the model describes the picture",
    "Answer": "a question about the picture",
    "Object": "what to find, such as: the red circle",
}
"""The text in the empty field of the question."""
_KEPT_TAGS = 64  # pictures whose tags are kept, since each question about a picture needs its tags


def shown_tags(tags: ImageTags) -> str:
    """Return tags as the page shows them, with confidences of two digits."""
    return ", ".join(_shown(tag, score) for tag, score in tags)


def _shown(tag: str, score: float) -> str:
    return f"{tag}: {score:.2f}"


def exact_tags(text: str, tags: ImageTags, shown: ImageTags) -> ImageTags:
    """Parse the page's field of tags, which the user may have changed, by falling confidence.

    A tag with the same two digits as shown gets its exact confidence. An unchanged or blank text stands for all tags of
    the image, of which each model then reads those above its threshold.

    Args:
        text: the text of the field.
        tags: all tags of the image.
        shown: the tags that the page showed.

    Raises:
        UserError: the text is not a list of tags.
    """
    if text.strip() in ("", shown_tags(shown)):
        return tags
    exact = {_shown(tag, score): score for tag, score in tags}
    parsed: ImageTags = []
    for piece in text.split(","):
        ((tag, score),) = parse_tags(piece)
        parsed.append((tag, exact.get(piece.strip(), score)))
    return sorted(parsed, key=lambda item: -item[1])


class DemoModels:
    """The models and the tagger of the page.

    Args:
        models: by the name that the page shows.
        tagger: None where the user writes the tags.
    """

    def __init__(self, models: Mapping[str, Predictor], tagger: Tagger | None) -> None:
        self.models = dict(models)
        self.tagger = tagger
        self._tags: dict[str, ImageTags] = {}  # of the latest pictures, by the digest of their bytes

    @property
    def rules_in_words(self) -> str:
        """The confidences above which the models read tags, each distinct rule once."""
        by_model = [predictor.rules for predictor in self.models.values()]
        rules = [rule for model_rules in by_model for rule in (model_rules.text, model_rules.vector) if rule]
        return " or ".join(dict.fromkeys(f"above {threshold_in_words(rule)}" for rule in rules))

    def tags(self, file: str | None) -> ImageTags:
        """Return the image's tags by falling confidence; none without an image or a tagger.

        Raises:
            UserError: the file cannot be read as a picture.
        """
        if file is None or self.tagger is None:
            return []
        digest = hashlib.sha256(Path(file).read_bytes()).hexdigest()
        tags = self._tags.get(digest)
        if tags is None:
            tags = tags_of(self.tagger, [_open(file)])[0]
            self._tags = {**dict([*self._tags.items()][1 - _KEPT_TAGS :]), digest: tags}
        return list(tags)

    def read_tags(self, tags: ImageTags) -> ImageTags:
        """Return the tags that at least one of the models reads, in their order."""
        by_model = [predictor.reads(tags) for predictor in self.models.values()]
        return [tag for tag, reads in zip(tags, zip(*by_model, strict=True), strict=True) if any(reads)]

    def ask(self, file: str | None, request: str, text: str, tags: str) -> "list[tuple[str, Image]]":
        """Return each model's answer, and the picture with the answer's boxes drawn.

        Args:
            file: the image.
            request: a key of `REQUESTS`.
            text: the question, or what to find.
            tags: the text of the field of tags (see `exact_tags`); blank: the tagger's.

        Raises:
            UserError: there is no image, it cannot be read, or the question or the tags are wrong.
        """
        if file is None:
            raise UserError("Choose or upload an image first.")
        picture = _open(file)
        task = REQUESTS[request]
        if task != "caption" and not text.strip():
            raise UserError(f"Write {HINTS[request]}.")
        question = build_question(task, "" if task == "caption" else text)
        image_tags = self.tags(file)
        written = exact_tags(tags, image_tags, self.read_tags(image_tags))
        answers = []
        for predictor in self.models.values():
            (reply,) = predictor.replies([picture], [question], [written])
            if isinstance(reply, Unanswered):
                raise UserError(f"{reply.reason}: {reply.detail}")
            answers.append((reply, draw_boxes(picture, boxes_of(reply, question.text))))
        return answers


def _open(file: str) -> "Image":
    try:
        return decode_image(Path(file).read_bytes())
    except BadImage as error:
        raise UserError(f"This image cannot be read: {error}") from error
