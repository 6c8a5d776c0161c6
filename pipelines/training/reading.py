"""Which tags a stage reads: those that its prompt's text lists, and those that its tag encoder was trained with."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from models.tags import TagRule
from pipelines.core.tag_rules import ModelRules, exceed_threshold, table_rule, thresholds_of
from pipelines.training.config import TrainStageConfig


def stage_rule(images: str, settings: TrainStageConfig) -> TagRule:
    """Return which tags of a table a stage's prompts list, and in which order.

    Raises:
        UserError: the settings need thresholds or a list that the table does not have.
    """
    return table_rule(images, settings.top_k, settings.threshold, settings.tag_order)


def differences(rules: ModelRules, images: str, settings: TrainStageConfig) -> Iterator[str]:
    """Yield a sentence for each setting of a stage that the tag encoder of its dynamic prompt was not trained with.

    The encoder reads as it was trained; the settings decide the prompt's text.
    """
    vector = rules.vector
    if vector is None:
        return
    pairs = (("top_k", settings.top_k, vector.top_k), ("threshold", settings.threshold, vector.threshold))
    for name, value, own in pairs:
        if value is not None and value != own:
            yield (
                f"{name} is {value}, and the tag encoder was trained with {own}: the prompt's text lists tags by "
                f"{value}, its vectors are made of tags by {own}, as the encoder was trained."
            )
    of_table = thresholds_of(images) if vector.threshold == "per_tag" else None
    if of_table is not None and of_table != vector.thresholds:
        yield (
            f"The tag encoder was trained with other thresholds by tag than those of {images}, and keeps its own; "
            "train it on tags of this tagger."
        )


def letters_of_tags(tags: pa.ListArray, rule: TagRule) -> np.ndarray:
    """Return about how many letters each image's tags add to a prompt: those above their threshold, (images,)."""
    letters = np.zeros(len(tags), dtype=np.int64)
    images, listed = pc.list_parent_indices(tags), pc.list_flatten(tags)
    added = pc.utf8_length(pc.struct_field(listed, "tag")).to_numpy() + 2  # a comma and a blank
    read = exceed_threshold(pc.struct_field(listed, "tag"), pc.struct_field(listed, "score").to_numpy(), rule)
    np.add.at(letters, images.to_numpy()[read], added[read])
    return letters
