"""The inputs and outputs of served models, and the packages that a server installs."""

import base64
import importlib.metadata
from collections.abc import Mapping
from typing import Any, Literal

Kind = Literal["tag_encoder", "lion"]
_EVERY_KIND = ("torch", "transformers", "safetensors", "mlflow")
SERVED_WITH: Mapping[Kind, tuple[str, ...]] = {
    "tag_encoder": _EVERY_KIND,
    "lion": (*_EVERY_KIND, "pyarrow", "pillow", "pyyaml"),
}
"""The distributions that a server of each kind of model installs; numpy, pandas and tokenizers are dependencies of
these."""
_ONE_PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4//8/AAX+Av4N70a4AAAAAElFTkSuQmCC"


def signature_and_example(kind: Kind) -> tuple[Any, Any]:
    """Return the MLflow signature of a kind of model (its columns and their types), and an example input.

    LION gives a row an `answer` and the `box` in it; a tag encoder gives a vector.
    """
    import pandas as pd
    from mlflow.models import ModelSignature
    from mlflow.types.schema import Array, ColSpec, DataType, Object, Property, Schema

    tag = Object([Property("tag", DataType.string), Property("score", DataType.double)])
    tags = ColSpec(Array(tag), "tags", required=kind == "tag_encoder")
    example_tags = [{"tag": "dog", "score": 0.98}, {"tag": "ball", "score": 0.96}]
    if kind == "tag_encoder":
        return ModelSignature(Schema([tags]), Schema([ColSpec(Array(DataType.double))])), [{"tags": example_tags}]
    inputs = Schema(
        [
            ColSpec(DataType.binary, "image"),
            ColSpec(DataType.string, "task"),
            ColSpec(DataType.string, "text", required=False),
            ColSpec(DataType.string, "prompt", required=False),
            tags,
        ]
    )
    outputs = Schema([ColSpec(DataType.string, "answer"), ColSpec(Array(DataType.double), "box", required=False)])
    example = {"image": base64.b64decode(_ONE_PIXEL), "task": "vqa", "text": "What is it?", "tags": example_tags}
    return ModelSignature(inputs, outputs), pd.DataFrame([example])


def requirements(kind: Kind) -> list[str]:
    """Return the requirements of a server of a model, pinned to the versions of the process that registers it."""
    return [f"{name}=={importlib.metadata.version(name).split('+')[0]}" for name in SERVED_WITH[kind]]
