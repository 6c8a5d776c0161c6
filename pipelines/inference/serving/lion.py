"""LION behind `mlflow.pyfunc.load_model` and `mlflow models serve`: pictures and questions in, answers out."""

from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext

from models.tags import ImageTags, tags_from_rows
from pipelines.inference.answerer import Unanswered
from pipelines.inference.predictor import LocalInference, Predictor
from pipelines.inference.questions import build_question
from pipelines.registry import ModelReference
from pipelines.sources.boxes import parse_box
from pipelines.sources.images import BadImage, decode_image, load_image


class ServedLion(PythonModel):
    """A served LION: rows of `image`, `task`, `text`, `prompt` and `tags` in, rows of `answer` and `box` out.

    The answers are those of `jobs.predict`.

    `image` is the encoded picture: bytes in a data frame, base64 in a request. In a data frame it may also be a path,
    `s3://…` or `gs://…`; a request cannot name files of the server. `task` is a task of `jobs.predict`, `text` its
    question, `prompt` the user's wording, and `tags` a list of `{"tag", "score"}` if the model's prompt contains tags.
    """

    def load_context(self, context: PythonModelContext) -> None:
        """Load the `from_pretrained` folder that the model carries."""
        self.predictor = Predictor(ModelReference(context.artifacts["model"]), None, LocalInference())

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Return an `answer` per row, and the `box` in it (x1, y1, x2, y2 in [0, 1]) or None.

        Raises:
            ValueError: an image cannot be read, or a question does not fit the model; the message names the row.
            UserError: a task is unknown, or its text is missing.
        """
        rows = model_input.to_dict("records")
        questions = [build_question(row["task"], _text(row, "text"), (), _text(row, "prompt") or None) for row in rows]
        tags = [self._tags(number, row) for number, row in enumerate(rows)]
        replies = self.predictor.replies([_picture(row["image"]) for row in rows], questions, tags)
        answers = []
        for number, reply in enumerate(replies):
            if isinstance(reply, Unanswered):
                raise ValueError(f"Row {number} cannot be answered: {reply.reason}: {reply.detail}")
            parsed = parse_box(reply)
            answers.append({"answer": reply, "box": list(parsed.box) if parsed else None})
        return pd.DataFrame(answers, columns=["answer", "box"])

    def _tags(self, number: int, row: dict[Any, Any]) -> ImageTags:
        tags = row.get("tags")
        if tags is None or isinstance(tags, float):  # pandas writes a missing value as NaN
            if self.predictor.reads_tags:
                raise ValueError(f"Row {number} has no tags, but the model's prompt contains tags; write [] for none.")
            return []
        return tags_from_rows(tags)


def _text(row: dict[Any, Any], name: str) -> str:
    value = row.get(name)
    return value if isinstance(value, str) else ""


def _picture(image: Any) -> Any:
    """Return a picture, or the reason why it cannot be read."""
    try:
        return load_image(image) if isinstance(image, str) else decode_image(bytes(image))
    except BadImage as error:
        return error


set_model(ServedLion())
