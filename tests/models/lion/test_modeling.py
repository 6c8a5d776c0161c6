"""LION as a model: every switch, saving and loading, generation, precision, bad input."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import DynamicCache, EncoderDecoderCache

from models.alignment import align_weights
from models.lion import GROUPS, TRAINABLE, LionConfig, LionForConditionalGeneration, parameter_group, set_trainable
from models.lion.conversion import expected_shapes
from models.lion.generation import PUBLISHED, BeamCache
from models.lion.precision import set_precision
from models.tag_encoder import TagEncoder, TagEncoderConfig
from tests.models.lion.conftest import Build, batch_of, feed_forward
from tests.tolerance import ROUNDING

LEVELS = ["image", "region", "image"]


@pytest.mark.parametrize("visual_input", ["all", "qformer", "aggregator"])
@pytest.mark.parametrize(
    "prompt",
    [
        {"kind": "none"},
        {"kind": "static"},
        {"kind": "static", "tags_in_text": False},
        {"kind": "dynamic"},
        {"kind": "dynamic", "tokens": 3, "projector": "mlp", "pooling": "confidence", "confidence_in_text": True},
        {"kind": "both", "tokens": 2, "tags_in_text": False, "pooling": "mean"},
    ],
    ids=lambda prompt: "-".join(str(value) for value in prompt.values()),
)
def test_every_switch_trains_all_of_its_parts(build: Build, visual_input: str, prompt: dict[str, Any]) -> None:
    model, processor = build(visual_input=visual_input, prompt=prompt)
    output = model.train()(**batch_of(processor, LEVELS))
    output.loss.backward()
    without = {
        n for n, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.isfinite().all())
    }
    assert not without
    assert output.sample_loss.shape == (3,)
    groups = {parameter_group(name) for name, _ in model.named_parameters()}
    assert ("prompt" in groups) == (prompt["kind"] in ("static", "both"))
    assert ("projector" in groups) == (prompt["kind"] in ("dynamic", "both"))
    assert ("q_former" in groups) == (visual_input != "aggregator")
    assert ("vision_aggregator" in groups) == (visual_input != "qformer")


def test_the_loss_is_the_mean_over_tokens_and_sums_per_sample(build: Build) -> None:
    model, processor = build()
    batch = batch_of(processor, LEVELS)
    output = model(**batch)
    tokens = (batch["labels"] != -100).sum()
    torch.testing.assert_close(output.loss, output.sample_loss.sum() / tokens)
    alone = model(**batch_of(processor, LEVELS[:1]))
    torch.testing.assert_close(output.sample_loss[:1], alone.sample_loss, atol=1e-4, rtol=1e-5)


def test_saved_and_loaded_it_is_the_same_model(build: Build, tmp_path: Path) -> None:
    model, processor = build(prompt={"kind": "both", "tokens": 2})
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    loaded = LionForConditionalGeneration.from_pretrained(tmp_path)
    again = type(processor).from_pretrained(tmp_path)
    assert {file.suffix for file in tmp_path.glob("*model*")} == {".safetensors"}
    for name, parameter in model.named_parameters():
        other = loaded.get_parameter(name)
        assert torch.equal(parameter, other), name
        assert parameter.requires_grad == other.requires_grad, name
    assert loaded.language_model.lm_head.weight is not loaded.language_model.shared.weight
    assert loaded.language_model.encoder.embed_tokens.weight is loaded.language_model.shared.weight
    assert loaded.generation_config.to_dict() == model.generation_config.to_dict()
    one, two = batch_of(processor, LEVELS), batch_of(again, LEVELS)
    assert all(torch.equal(one[key], two[key]) for key in one)
    align_weights(loaded)
    assert torch.equal(model(**one).logits, loaded(**two).logits)


def test_loaded_into_a_larger_model_the_new_parts_start_as_new(build: Build, tmp_path: Path) -> None:
    model, _ = build(visual_input="qformer")
    model.save_pretrained(tmp_path)
    larger = LionForConditionalGeneration.from_pretrained(tmp_path, config=LionConfig.preset("tiny"))
    adapter = feed_forward(larger, "decoder", 0).adapter
    assert torch.equal(adapter.image_up_weight, feed_forward(model, "decoder", 0).adapter.image_up_weight)
    assert not adapter.region_up_weight.any()
    assert adapter.image_router[:, 0].tolist() == [0, 1]
    assert all(not dense.weight.any() for dense in larger.vision_aggregator.output_denses())


def test_start_values_of_a_new_model_are_t5s_own() -> None:
    torch.manual_seed(0)
    model = LionForConditionalGeneration(LionConfig.preset("tiny"))
    dense = feed_forward(model, "encoder", 0).DenseReluDense
    assert dense.wi_0.weight.std().item() == pytest.approx(128**-0.5, rel=0.05)
    assert model.get_parameter("soft_prompt").std().item() == pytest.approx(1, rel=0.3)
    assert model.language_model.lm_head.weight.std().item() == pytest.approx(128**-0.5, rel=0.05)


@pytest.mark.parametrize("beams", [1, 5])
def test_mixed_levels_generate_as_they_would_alone(build: Build, beams: int) -> None:
    model, processor = build()
    mixed = model.generate(**batch_of(processor, LEVELS), num_beams=beams, max_new_tokens=8)
    for level in ("image", "region"):
        same = model.generate(**batch_of(processor, [level] * 3), num_beams=beams, max_new_tokens=8)
        rows = [row for row, own in enumerate(LEVELS) if own == level]
        assert processor.answers(mixed[rows]) == processor.answers(same[rows])
    swapped = model.generate(**batch_of(processor, ["region", "image", "region"]), num_beams=beams, max_new_tokens=8)
    assert processor.answers(mixed) != processor.answers(swapped), "the level must matter for this test to say anything"


@pytest.mark.parametrize("beams", [1, 4])
@pytest.mark.parametrize("text", [{}, {"num_layers": 1, "num_decoder_layers": 3}], ids=["even", "deeper decoder"])
def test_the_cache_changes_nothing_but_time(build: Build, beams: int, text: dict[str, int]) -> None:
    model, processor = build(text_config=text)
    batch = batch_of(processor, LEVELS, answers=False)
    run: dict[str, Any] = {
        "num_beams": beams,
        "max_new_tokens": 10,
        "return_dict_in_generate": True,
        "output_scores": True,
    }
    cached, plain = (model.generate(**batch, **run, use_cache=use) for use in (True, False))
    assert torch.equal(cached.sequences, plain.sequences)
    torch.testing.assert_close(cached.scores[-1], plain.scores[-1], atol=1e-4, rtol=1e-4)


def test_beams_that_share_the_encoders_keys_are_those_of_transformers_own_cache(build: Build) -> None:
    model, processor = build()
    batch = batch_of(processor, LEVELS, answers=False)
    run: dict[str, Any] = {
        "num_beams": 4,
        "num_return_sequences": 4,
        "max_new_tokens": 10,
        "return_dict_in_generate": True,
        "output_scores": True,
    }
    theirs = EncoderDecoderCache(DynamicCache(), DynamicCache())
    ours, expected = model.generate(**batch, **run), model.generate(**batch, **run, past_key_values=theirs)
    assert isinstance(ours.past_key_values, BeamCache)
    assert expected.past_key_values is theirs
    assert torch.equal(ours.sequences, expected.sequences)
    # The keys lie otherwise in memory, so that another kernel may run on them.
    for mine, theirs_of_step in zip(ours.scores, expected.scores, strict=True):
        torch.testing.assert_close(mine, theirs_of_step, **ROUNDING)
    assert len(set(map(tuple, ours.beam_indices.tolist()))) > 3, (
        "the beams must change places for this test to say anything"
    )


def test_generation_defaults_are_lions_own() -> None:
    defaults = LionForConditionalGeneration(LionConfig.preset("tiny")).generation_config
    published = {"num_beams": 5, "max_new_tokens": 256, "min_length": 1, "repetition_penalty": 1.5, "length_penalty": 1}
    assert {name: getattr(defaults, name) for name in published} == published


def test_a_folder_without_generation_settings_generates_as_lion_is_published(build: Build, tmp_path: Path) -> None:
    model, _ = build()
    model.generation_config.update(repetition_penalty=1.0)
    model.save_pretrained(tmp_path)
    assert LionForConditionalGeneration.from_pretrained(tmp_path).generation_config.repetition_penalty == 1.0
    (tmp_path / "generation_config.json").unlink()
    loaded = LionForConditionalGeneration.from_pretrained(tmp_path).generation_config
    assert {name: getattr(loaded, name) for name in PUBLISHED} == PUBLISHED
    assert loaded.decoder_start_token_id == model.config.decoder_start_token_id


def test_eager_and_sdpa_agree(build: Build, tmp_path: Path) -> None:
    model, processor = build(prompt={"kind": "dynamic"})
    model.save_pretrained(tmp_path)
    eager = LionForConditionalGeneration.from_pretrained(tmp_path, attn_implementation="eager")
    assert (eager.config._attn_implementation, model.config._attn_implementation) == ("eager", "sdpa")
    assert eager.vision_aggregator.blocks[0].attention.self.config._attn_implementation == "eager"
    batch = batch_of(processor, LEVELS)
    torch.testing.assert_close(eager(**batch).logits, model(**batch).logits, atol=2e-5, rtol=1e-4)


def test_bfloat16_with_chosen_groups_in_float32(build: Build, tmp_path: Path) -> None:
    kept = ["router", "ln_vision", "projector", "q_former"]
    model, processor = build(prompt={"kind": "both"}, fp32_groups=kept)
    batch = batch_of(processor, LEVELS)
    exact = model(**batch).loss
    model.save_pretrained(tmp_path)
    loaded = LionForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.bfloat16)
    set_precision(model, torch.bfloat16)
    for half in (loaded, model):
        for name, parameter in half.named_parameters():
            wanted = torch.float32 if parameter_group(name) in kept else torch.bfloat16
            assert parameter.dtype == wanted, name
        output = half(**batch)
        output.loss.backward()
        assert output.logits.dtype == torch.bfloat16
        torch.testing.assert_close(output.loss, exact, rtol=0.03, atol=0)
        half.generate(**batch, max_new_tokens=3)
    with pytest.raises(ValueError, match="no group of a LION"):
        set_precision(model, torch.bfloat16, {"routers": torch.float32})


def test_a_dynamic_prompt_follows_the_tags_and_a_trained_encoder(build: Build) -> None:
    model, processor = build(prompt={"kind": "dynamic", "tags_in_text": False, "pooling": "confidence"})
    batch = batch_of(processor, LEVELS)
    before = model(**batch).logits
    changed = dict(
        batch, tag_token_weights=batch["tag_token_weights"] * torch.linspace(0.1, 1, batch["tag_input_ids"].shape[1])
    )
    assert not torch.allclose(model(**changed).logits[0], before[0])
    torch.manual_seed(7)
    trained = TagEncoder(TagEncoderConfig(bert=model.config.tag_encoder_config.bert))
    model.set_tag_encoder(trained)
    assert model.tag_encoder.config.pooling == "confidence"
    assert not any(parameter.requires_grad for parameter in model.tag_encoder.parameters())
    assert not torch.allclose(model(**batch).logits, before)
    with pytest.raises(ValueError, match="projector reads 64"):
        model.set_tag_encoder(TagEncoder(TagEncoderConfig.preset("tiny")))
    static, _ = build()
    with pytest.raises(ValueError, match="reads no tag encoder"):
        static.set_tag_encoder(trained)


@pytest.mark.parametrize("name", ["tiny", "small", "base", "xl", "xxl"])
def test_every_parameter_of_every_preset_has_one_group(name: str) -> None:
    config = LionConfig.preset(name, prompt={"kind": "both"})
    assert {parameter_group(parameter) for parameter in expected_shapes(config)} == set(GROUPS)


def test_trainable_parameters_of_the_published_sizes() -> None:
    for name, published in (("xl", 281_570_400), ("xxl", 320_439_392)):
        shapes = expected_shapes(LionConfig.preset(name))
        sizes = [torch.Size(shape).numel() for key, shape in shapes.items() if parameter_group(key) in TRAINABLE]
        assert sum(sizes) == published


def test_set_trainable_freezes_the_rest_and_keeps_it_in_eval_mode(build: Build) -> None:
    model, processor = build()
    names = set_trainable(model, ["vision_aggregator", "region_adapter"])
    assert {parameter_group(name) for name in names} == {"vision_aggregator", "region_adapter"}
    model.train()
    assert model.vision_aggregator.training
    assert not any(m.training for m in (model.vision_model, model.qformer, model.language_model))
    assert not feed_forward(model, "encoder", 0).dropout.training
    model(**batch_of(processor, LEVELS)).loss.backward()
    assert {name for name, parameter in model.named_parameters() if parameter.grad is not None} == set(names)


@pytest.mark.parametrize(
    "groups, message",
    [
        ([], "No group"),
        (["q_formr"], "no group"),
        (["language_model"], "stays frozen"),
        (["projector"], "leaves it out"),
    ],
)
def test_set_trainable_refuses_what_would_not_train(build: Build, groups: list[str], message: str) -> None:
    model, _ = build()
    with pytest.raises(ValueError, match=message):
        set_trainable(model, groups)


def test_foundations_train_only_when_asked_for_by_name(build: Build) -> None:
    model, _ = build()
    names = set_trainable(model, ["language_model", "prompt"], allow_foundations=True)
    assert {parameter_group(name) for name in names} == {"language_model", "prompt"}
    assert model.train().language_model.training
    with pytest.raises(ValueError, match="no parameter of a LION"):
        parameter_group("something.else")


def test_bad_input_is_refused(build: Build) -> None:
    model, processor = build(prompt={"kind": "dynamic"})
    good = batch_of(processor, LEVELS)
    pixels = good["pixel_values"].clone()
    pixels[1, 0, 3, 3] = float("nan")
    cases = [
        ({"pixel_values": pixels}, r"samples \[1\] hold NaN"),
        ({"pixel_values": torch.zeros(3, 3, 56, 56)}, r"reads \(batch, 3, 48, 48\)"),
        ({"pixel_values": torch.zeros(3, 1, 48, 48)}, r"reads \(batch, 3, 48, 48\)"),
        ({"pixel_values": None}, "pixel_values is missing"),
        ({"levels": None}, "levels is missing"),
        ({"levels": torch.tensor([0, 1, 2])}, "a level is 0"),
        ({"levels": torch.tensor([0, 1])}, "int64 of shape"),
        ({"qformer_input_ids": None}, "qformer_input_ids is missing"),
        ({"tag_input_ids": None}, "A dynamic prompt needs tags"),
        ({"input_ids": good["input_ids"].masked_fill(good["input_ids"] == 3, 5)}, "do not hold <extra_id_0>"),
        ({"input_ids": None}, "input_ids is missing"),
    ]
    for change, message in cases:
        with pytest.raises(ValueError, match=message):
            model(**(dict(good) | change))
        with pytest.raises(ValueError, match=message):
            model.generate(**(dict(good) | change))


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"visual_input": "both"}, "choose one of all, qformer, aggregator"),
        ({"prompt": {"kind": "soft"}}, "choose one of none, static, dynamic, both"),
        ({"prompt": {"kind": "dynamic", "tokens": 0}}, "at least 1 vector"),
        ({"prompt": {"kind": "dynamic", "pooling": "max"}}, "choose one of cls, mean, confidence"),
        ({"prompt": {"tags_in_text": False, "confidence_in_text": True}}, "needs prompt.tags_in_text"),
        ({"aggregator_levels": (6, 2)}, "between 0 and 5"),
        ({"adapters": ["pixel"]}, "choose one of region, image"),
        ({"num_queries": 3}, "no field 'num_queries'"),
    ],
)
def test_a_wrong_configuration_names_the_choice(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LionConfig.preset("tiny", **fields)
    with pytest.raises(ValueError, match="choose one of tiny, small, base, xl, xxl"):
        LionConfig.preset("large")
