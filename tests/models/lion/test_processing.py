"""The processor: LION's exact text, tags that give way, labels, pixels, and what wrong input gets."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import BertTokenizer, CLIPImageProcessorPil, PreTrainedTokenizerBase, T5Tokenizer

from models.lion import LionConfig, LionProcessor
from models.lion.prompts.base import SOFT_TOKEN
from models.tag_encoder import TagEncoderConfig, TagEncoderProcessor
from tests.models.lion.conftest import TAGS, TEXTS, Build, batch_of
from tests.models.lion.golden import Case, golden_root, lion_cases

CASES = lion_cases()


@pytest.mark.parametrize("folder", CASES, ids=[str(c.relative_to(golden_root())) for c in CASES])
def test_parity_of_prompts_and_tokens(folder: Path) -> None:
    case = Case(folder)
    if case.tokenizers is None:
        pytest.skip("the case has no tokenizers")
    processor = LionProcessor.for_config(
        case.config(),
        T5Tokenizer.from_pretrained(case.tokenizers / "t5"),
        BertTokenizer.from_pretrained(case.tokenizers / "bert"),
    )
    texts = case.texts
    tags = [[(tag, 1.0) for tag in line.split(", ")] for line in texts["tags"]]
    written = [processor.prompt_text(q, listed) for q, listed in zip(texts["question"], tags, strict=True)]
    assert written == case.meta["prompts"]
    batch = processor(text=texts["question"], tags=tags, answers=texts["answer"])
    ours = {"tok.t5_ids_forward": "input_ids", "tok.t5_mask_forward": "attention_mask"}
    ours |= {"tok.qformer_ids": "qformer_input_ids", "tok.qformer_mask": "qformer_attention_mask"}
    for theirs, name in ours.items():
        if theirs in case.outputs:
            assert torch.equal(batch[name], case.outputs[theirs]), name
    assert torch.equal(batch["labels"], case.outputs[f"{case.levels[0]}.labels"])


@pytest.mark.parametrize(
    "prompt, written",
    [
        ({"kind": "none"}, "where?"),
        (
            {"kind": "static"},
            "According to <extra_id_0>, you are allowed to use or partially use the following tags: [dog, man]. where?",
        ),
        ({"kind": "dynamic", "tokens": 2, "tags_in_text": False}, f"According to {SOFT_TOKEN * 2}, where?"),
        (
            {"kind": "both", "tokens": 2, "confidence_in_text": True},
            f"According to {SOFT_TOKEN * 3}, you are allowed to use or partially use the following tags: "
            "[dog: 0.98, man: 0.70]. where?",
        ),
    ],
)
def test_the_prompt_of_each_kind(build: Build, prompt: dict[str, Any], written: str) -> None:
    _, processor = build(prompt=prompt)
    assert processor.prompt_text("where?", [("dog", 0.98), ("man", 0.7)]) == written


def test_the_least_confident_tags_give_way_and_the_rest_stays(build: Build) -> None:
    _, processor = build(knobs={"max_text_length": 90})
    tags = [(f"square {i}", 0.51 + i / 100) for i in range(40)]
    batch = processor(text=[TEXTS[2]], tags=[tags])
    text = processor.tokenizer.decode(batch["input_ids"][0])
    assert batch["input_ids"].shape[1] <= 90
    assert (batch["input_ids"] == 3).sum() == 1
    assert "let me know its coordinates?" in text
    kept = [tag for tag, _ in sorted(tags, key=lambda item: -item[1]) if f"{tag}," in text or f"{tag}]" in text]
    assert 1 < len(kept) < 40
    assert kept == [f"square {i}" for i in range(39, 39 - len(kept), -1)], "exactly the most confident ones"
    _, roomier = build(knobs={"max_text_length": 91})
    longer = roomier(text=[TEXTS[2]], tags=[tags])["input_ids"].shape[1]
    assert longer - batch["input_ids"].shape[1] <= 8, "no more tags went than had to"


def test_a_question_too_long_on_its_own_is_refused(build: Build) -> None:
    _, processor = build(knobs={"max_text_length": 60})
    with pytest.raises(ValueError, match=r"takes \d+ tokens .* max_text_length is 60"):
        processor(text=[TEXTS[2] * 3], tags=[TAGS[0]])
    _, bare = build(prompt={"kind": "none"}, knobs={"max_text_length": 10})
    with pytest.raises(ValueError, match="max_text_length is 10"):
        bare(text=[TEXTS[2]])


def test_tags_are_chosen_when_read(build: Build) -> None:
    _, processor = build(prompt={"kind": "dynamic"}, knobs={"top_k": 2, "threshold": 0.5})
    tags = [("circle", 0.5), ("green", 0.6), ("square", 0.9), ("blue", 0.7)]
    batch = processor(text=["where?"], tags=[tags])
    assert "[square, blue]" in processor.tokenizer.decode(batch["input_ids"][0])
    assert str(processor.tag_tokenizer.decode(batch["tag_input_ids"][0, 1:])).startswith("square")
    assert batch["tag_token_weights"][0, 0] == 1
    assert batch["tag_token_weights"][0, 1].item() == pytest.approx(0.9)


def test_the_vector_is_made_of_the_encoders_own_tags_and_the_text_of_its_own(build: Build, tmp_path: Path) -> None:
    """A tag encoder reads as it was trained, whatever the text lists, before and after saving."""
    reading: dict[str, Any] = {"top_k": 5, "threshold": 0.7, "max_length": 16, "tag_order": "confidence"}
    _, processor = build(prompt={"kind": "dynamic"}, knobs={"tag_encoder": reading})
    tags = [(f"red square {number}", 0.95 - 0.01 * number) for number in range(30)]
    own = TagEncoderProcessor(processor.tag_tokenizer, **reading)([tags])
    processor.save_pretrained(tmp_path)
    for reader in (processor, LionProcessor.from_pretrained(tmp_path)):
        batch = reader(text=["where?"], tags=[tags])
        assert torch.equal(batch["tag_input_ids"], own.input_ids)
        assert torch.equal(batch["tag_token_weights"], own.token_weights)
        assert batch["tag_input_ids"].shape[1] <= 16
        assert reader.tokenizer.decode(batch["input_ids"][0]).count("red square") > 5


def test_a_tag_encoder_never_reads_more_tokens_than_it_has_positions(build: Build) -> None:
    few = TagEncoderConfig.preset("tiny")
    few.bert.max_position_embeddings = 24
    model, processor = build(prompt={"kind": "dynamic"}, tag_encoder_config=few.to_dict())
    tags = [(f"red square {number}", 0.95 - 0.01 * number) for number in range(30)]
    batch = processor(images=[Image.new("RGB", (9, 9))], text=["where?"], tags=[tags], levels=["region"])
    assert batch["tag_input_ids"].shape[1] <= 24
    assert model.generate(**batch, max_new_tokens=2).shape[0] == 1


def test_rams_thresholds_and_order_decide_the_text_and_are_saved(build: Build, tmp_path: Path) -> None:
    ram = {"dog": 0.9, "group": 1.0, "red": 0.5, "woman": 0.8}
    knobs = {"threshold": "per_tag", "tag_order": "list", "thresholds": ram}
    _, processor = build(prompt={"kind": "both"}, knobs=knobs)
    tags = [("group", 0.97), ("woman", 0.9), ("dog", 0.85), ("red", 0.6), ("own", 0.55)]
    processor.save_pretrained(tmp_path)
    for reader in (processor, LionProcessor.from_pretrained(tmp_path)):
        batch = reader(text=["where?"], tags=[tags])
        text = reader.tokenizer.decode(batch["input_ids"][0])
        assert "following tags: [red, woman, own]. where?" in text
        assert torch.equal(batch["tag_input_ids"], reader.tag_reader([tags]).input_ids)
        assert reader.tag_reader.rule == reader.rule


def test_a_long_prompt_in_the_lists_order_loses_its_least_confident_tags(build: Build) -> None:
    ram = {f"square {number}": 0.5 for number in range(40)}
    _, processor = build(knobs={"max_text_length": 90, "tag_order": "list", "thresholds": ram})
    chance = np.random.default_rng(0).permutation(40)
    tags = [(f"square {number}", 0.51 + chance[number] / 100) for number in range(40)]
    text = processor.tokenizer.decode(processor(text=[TEXTS[2]], tags=[tags])["input_ids"][0])
    kept = [tag for tag, _ in tags if f"{tag}," in text or f"{tag}]" in text]
    assert 1 < len(kept) < 40
    assert set(kept) == {tag for tag, _ in sorted(tags, key=lambda item: -item[1])[: len(kept)]}
    assert ", ".join(kept) in text, "in the order of the list"


def test_no_tag_above_the_threshold_leaves_an_empty_list(build: Build) -> None:
    model, processor = build(prompt={"kind": "dynamic"})
    batch = processor(images=[Image.new("RGB", (9, 9))], text=["where?"], tags=[[("dog", 0.2)]], levels=["region"])
    assert "following tags: []. where?" in processor.tokenizer.decode(batch["input_ids"][0])
    assert batch["tag_input_ids"].shape == (1, 2)
    assert model.generate(**batch, max_new_tokens=2).shape[0] == 1


def test_answers_become_labels_and_text_again(build: Build) -> None:
    _, processor = build()
    labels = batch_of(processor, ["image", "region", "image"])["labels"]
    assert (labels[0] == -100).any()
    assert not (labels[1] == -100).any()
    assert (labels == processor.tokenizer.eos_token_id).sum(dim=1).tolist() == [1, 1, 1]
    assert processor.answers(labels.masked_fill(labels == -100, 0)) == ["a red square", TEXTS[3], "green"]


def test_a_long_question_reaches_the_q_former_with_its_end(build: Build) -> None:
    _, processor = build(knobs={"max_text_length": 600})
    batch = processor(text=["red " * 300 + "square?"], tags=[[]])
    assert batch["qformer_input_ids"].shape == (1, 128)
    assert str(processor.qformer_tokenizer.decode(batch["qformer_input_ids"][0, -4:-1])).endswith("square?")


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I;16", "I", "F"])
def test_every_image_mode_and_shape_becomes_pixels(build: Build, mode: str) -> None:
    _, processor = build()
    pixels = processor(images=[Image.new(mode, (640, 3)), Image.new(mode, (1, 1))])["pixel_values"]
    assert pixels.shape == (2, 3, 48, 48)
    assert pixels.isfinite().all()


def test_pixels_are_clips_normalization_of_the_whole_image(build: Build) -> None:
    _, processor = build()
    left = Image.new("RGB", (100, 50), "black")
    left.paste((255, 255, 255), (50, 0, 100, 50))
    pixels = processor(images=[left])["pixel_values"][0]
    mean, std = torch.tensor([0.48145466, 0.4578275, 0.40821073]), torch.tensor([0.26862954, 0.26130258, 0.27577711])
    torch.testing.assert_close(pixels[:, 20, 0], -mean / std)
    torch.testing.assert_close(pixels[:, 20, -1], (1 - mean) / std)


@pytest.mark.parametrize("rules", [{}, {"do_center_crop": True, "crop_size": 40}, {"do_normalize": False}])
def test_pixels_equal_transformers_in_every_digit(build: Build, rules: dict[str, Any]) -> None:
    _, processor = build()
    size = {"height": 48, "width": 48}
    settings: dict[str, Any] = {"size": size, "do_center_crop": False, **rules}
    processor.image_processor = CLIPImageProcessorPil(**settings)
    noise = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    images = [Image.fromarray(noise), Image.fromarray(noise[:, ::-1, ::-1].copy())]
    expected = processor.image_processor(images, return_tensors="pt")["pixel_values"]
    assert torch.equal(processor(images=images)["pixel_values"], expected)


def test_bad_input_is_refused(build: Build) -> None:
    _, processor = build()
    image = Image.new("RGB", (9, 9))
    not_finite = Image.fromarray(np.full((4, 4), np.nan, dtype=np.float32), mode="F")
    cases: list[tuple[dict[str, Any], str]] = [
        ({}, "there are: none"),
        ({"images": []}, "there are: 0 images"),
        ({"images": [image], "text": ["a?", "b?"], "tags": [[], []]}, "there are: 1 images, 2 text, 2 tags"),
        ({"images": ["picture.jpg"]}, "open it by PIL.Image"),
        ({"images": [not_finite]}, "values outside 0 to 255"),
        ({"text": ["where?"]}, "needs tags; pass an empty list"),
        ({"text": [" "], "tags": [[]]}, "blank"),
        ({"text": [f"what is {SOFT_TOKEN}?"], "tags": [[]]}, "marks the soft prompt.s place"),
        ({"text": ["where?"], "tags": [[(SOFT_TOKEN, 0.9)]]}, "marks the soft prompt.s place"),
        ({"text": ["where?"], "tags": [[("dog", 1.5)]]}, "between 0 and 1"),
        ({"levels": ["image", "pixel"]}, "'pixel' is no level; choose one of region, image"),
    ]
    for arguments, message in cases:
        with pytest.raises(ValueError, match=message):
            processor(**arguments)


def test_a_processor_that_does_not_fit_its_model_is_refused(
    tokenizers: tuple[PreTrainedTokenizerBase, PreTrainedTokenizerBase],
) -> None:
    words, questions = tokenizers
    with pytest.raises(ValueError, match="has id 3 in the tokenizer"):
        LionProcessor.for_config(LionConfig.preset("tiny", soft_prompt_token_id=9), words, questions)
    with pytest.raises(ValueError, match="raise its vocab_size"):
        LionProcessor.for_config(LionConfig.preset("tiny", text_config={"vocab_size": 50}), words, questions)


def test_flan_t5s_own_tokenizer_fits_the_published_sizes(shared: Path, tokenizers: Any) -> None:
    words = T5Tokenizer.from_pretrained(shared / "tokenizers" / "flan-t5")
    processor = LionProcessor.for_config(LionConfig.preset("xl", prompt={"kind": "both"}), words, tokenizers[1])
    ids = processor(text=["where?"], tags=[[]])["input_ids"]
    assert (ids == LionConfig().soft_prompt_token_id).sum() == 2
