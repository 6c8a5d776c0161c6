"""The tag encoder behind `mlflow.pyfunc.load_model`: images' tags in, vectors out."""

from typing import Any

import pandas as pd
import torch
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext

from models.alignment import align_weights
from models.tag_encoder import TagEncoder, TagEncoderProcessor
from models.tags import tags_from_rows


class ServedTagEncoder(PythonModel):
    """A served tag encoder: rows of `tags` (a list of `{"tag", "score"}`) in, vectors of the encoder's width out."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the `from_pretrained` folder that the model carries."""
        folder = context.artifacts["model"]
        self.encoder = TagEncoder.from_pretrained(folder).eval()
        align_weights(self.encoder)
        self.processor = TagEncoderProcessor.from_pretrained(folder)

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> list[list[float]]:
        """Return a vector (a list of floats) per row of the data frame."""
        rows = [tags_from_rows(tags) for tags in model_input["tags"]]
        with torch.inference_mode():
            return self.encoder.encode(**self.processor(rows).as_dict()).float().tolist()


set_model(ServedTagEncoder())
