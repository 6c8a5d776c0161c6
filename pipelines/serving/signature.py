"""What served models take and give, and what serves them."""

import importlib.metadata
from typing import Any, Literal

Kind = Literal["tag_encoder", "lion"]
SERVED_WITH = ("torch", "transformers", "safetensors", "mlflow")


def signature_and_example(kind: Kind) -> tuple[Any, list[dict[str, Any]]]:
    """What a served model takes and gives, with an example."""
    from mlflow.models import ModelSignature
    from mlflow.types.schema import Array, ColSpec, DataType, Object, Property, Schema

    tag = Object([Property("tag", DataType.string), Property("score", DataType.double)])
    tags = ColSpec(Array(tag), "tags", required=kind == "tag_encoder")
    example_tags = [{"tag": "dog", "score": 0.98}, {"tag": "ball", "score": 0.96}]
    if kind == "tag_encoder":
        return ModelSignature(Schema([tags]), Schema([ColSpec(Array(DataType.double))])), [{"tags": example_tags}]
    text = [ColSpec(DataType.string, name) for name in ("image", "instruction", "level")]
    one_pixel = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4//8/AAX+Av4N70a4AAAAAElFTkSuQmCC"
    example = [{"image": one_pixel, "instruction": "What is it?", "level": "image", "tags": example_tags}]
    return ModelSignature(Schema([*text, tags]), Schema([ColSpec(DataType.string)])), example


def requirements() -> list[str]:
    """What a server of a model installs: the versions of the process that registers it."""
    return [f"{name}=={importlib.metadata.version(name).split('+')[0]}" for name in SERVED_WITH]
