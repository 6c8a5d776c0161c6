"""The tags that a stage reads: in the text of its prompt, and in its tag encoder."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from models.tags import TagRule
from pipelines.core.tag_rules import ModelRules, exceed_threshold, table_rule, thresholds_of
from pipelines.training.config import TrainStageConfig


def stage_rule(images: str, settings: TrainStageConfig) -> TagRule:
    """Return the rule by which a stage's prompts list the tags of a table.

    Raises:
        UserError: the settings need thresholds or a tag list that the table does not have.
    """
    return table_rule(images, settings.top_k, settings.threshold, settings.tag_order)


def differences(rules: ModelRules, images: str, settings: TrainStageConfig) -> Iterator[str]:
    """Yield a warning for each setting of a stage that differs from the training of its tag encoder.

    The settings of the stage decide the prompt's text only: the tag encoder reads tags as it was trained.
    """
    vector = rules.vector
    if vector is None:
        return
    pairs = (("top_k", settings.top_k, vector.top_k), ("threshold", settings.threshold, vector.threshold))
    for name, value, trained in pairs:
        if value is not None and value != trained:
            yield (
                f"{name} is {value}, but the tag encoder was trained with {trained}: the prompt's text lists tags by "
                f"{value}, and its vectors are made of tags by {trained}."
            )
    table_thresholds = thresholds_of(images) if vector.threshold == "per_tag" else None
    if table_thresholds is not None and table_thresholds != vector.thresholds:
        yield (
            f"The tag encoder was trained with other thresholds by tag than those of {images}, and keeps them; train "
            "it on tags of this tagger."
        )


def letters_of_tags(tags: pa.ListArray, rule: TagRule) -> np.ndarray:
    """Return approximately how many letters the tags of each image add to its prompt, (images,) int64."""
    letters = np.zeros(len(tags), dtype=np.int64)
    images, listed = pc.list_parent_indices(tags), pc.list_flatten(tags)
    added = pc.utf8_length(pc.struct_field(listed, "tag")).to_numpy() + 2  # comma and space
    read = exceed_threshold(pc.struct_field(listed, "tag"), pc.struct_field(listed, "score").to_numpy(), rule)
    np.add.at(letters, images.to_numpy()[read], added[read])
    return letters
