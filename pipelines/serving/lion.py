"""LION behind `mlflow.pyfunc.load_model`: images and questions in, answers out."""

import base64
from io import BytesIO

import torch
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext
from PIL import Image

from models.lion import LionForConditionalGeneration, LionProcessor


class ServedLion(PythonModel):
    """Rows of `image` (an encoded picture in base64), `instruction`, `level` and `tags` to answers."""

    def load_context(self, context: PythonModelContext) -> None:
        """Loads the `from_pretrained` folder that the model carries."""
        folder = context.artifacts["model"]
        self.model = LionForConditionalGeneration.from_pretrained(folder).eval()
        self.processor = LionProcessor.from_pretrained(folder)

    # Without type hints: MLflow takes them for a schema of its own, and warns of every one that it does not know.
    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
        """One answer per row of the data frame."""
        listed = list(model_input["tags"]) if "tags" in model_input else [None] * len(model_input)
        inputs = self.processor(
            images=[Image.open(BytesIO(base64.b64decode(picture))) for picture in model_input["image"]],
            text=list(model_input["instruction"]),
            tags=[[(tag["tag"], float(tag["score"])) for tag in (() if tags is None else tags)] for tags in listed],
            levels=list(model_input["level"]),
        )
        with torch.inference_mode():
            return self.processor.answers(self.model.generate(**inputs))


set_model(ServedLion())
