"""The stage merge: right after it, each level goes exactly the way of its own stage."""

from pathlib import Path

import pytest
import torch

from models.lion import LionConfig, LionForConditionalGeneration, set_trainable
from models.lion.merge import differing_settings, merge_stages
from tests.models.lion.conftest import Build, batch_of, feed_forward


def shake(model: LionForConditionalGeneration, groups: list[str], seed: int) -> None:
    """Stands for a training: the named groups move."""
    torch.manual_seed(seed)
    set_trainable(model, groups)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)


def stages(
    build: Build, prompt: dict[str, str] | None = None, group: str = "prompt"
) -> tuple[LionForConditionalGeneration, LionForConditionalGeneration]:
    """Return stages 1 and 2 as if trained, with a prompt (None: the static one) whose parameters are `group`."""
    first, _ = build(visual_input="qformer", prompt=prompt)
    second, _ = build(visual_input="aggregator", prompt=prompt)
    for name, parameter in second.named_parameters():
        if name.startswith(("vision_model", "language_model")) and ".adapter." not in name:
            parameter.data.copy_(first.get_parameter(name))
    shake(first, ["q_former", "query_tokens", "t5_projection", "ln_vision", "image_adapter", group], 1)
    shake(second, ["vision_aggregator", "region_adapter", group], 2)
    return first, second


def test_each_level_takes_its_own_stages_adapters_exactly(build: Build) -> None:
    first, second = stages(build)
    merged = LionForConditionalGeneration(LionConfig.preset("tiny"))
    assert merge_stages(first, second, merged) is merged
    hidden = torch.randn(2, 11, 128)
    for stack in ("encoder", "decoder"):
        for index, block in enumerate(getattr(merged.language_model, stack).block):
            adapter = block.layer[-1].adapter
            alone = [getattr(m.language_model, stack).block[index].layer[-1].adapter for m in (second, first)]
            for row in (0, 1):
                ours, theirs = adapter(hidden, torch.tensor([row, row])), alone[row](hidden, None)
                torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-6)


def test_a_merged_model_answers_an_image_question_by_stage_1_alone(build: Build) -> None:
    """With the aggregator's tokens taken away, the whole model is stage 1's for an image-level batch."""
    first, second = stages(build)
    merged, processor = build()
    merge_stages(first, second, merged)
    for level, stage, visual in (("image", first, "qformer"), ("region", second, "aggregator")):
        batch = batch_of(processor, [level] * 3)
        merged.config.visual_input = visual
        merged.get_parameter("soft_prompt").data.copy_(stage.get_parameter("soft_prompt"))
        torch.testing.assert_close(merged(**batch).logits, stage(**batch).logits, atol=1e-5, rtol=1e-5)


def test_the_merged_model_generates_as_stage_1_does(build: Build) -> None:
    first, second = stages(build)
    for stage, penalty in ((first, 1.0), (second, 1.25)):
        stage.generation_config.update(repetition_penalty=penalty, num_beams=1)
    merged = merge_stages(first, second, LionForConditionalGeneration(LionConfig.preset("tiny")))
    assert merged.generation_config.to_dict() == first.generation_config.to_dict()
    assert merged.generation_config is not first.generation_config
    assert differing_settings(first, second) == {"repetition_penalty": (1.0, 1.25)}


def test_the_router_starts_afresh_in_a_loaded_model(build: Build, tmp_path: Path) -> None:
    first, second = stages(build)
    build()[0].save_pretrained(tmp_path)
    merged = LionForConditionalGeneration.from_pretrained(tmp_path)
    merge_stages(first, second, merged)
    adapter = feed_forward(merged, "encoder", 1).adapter
    assert adapter.region_router[:, 0].tolist() == [1, 0]
    assert adapter.image_router[:, 0].tolist() == [0, 1]


def test_prompt_parts_come_from_stage_1_where_both_have_them(build: Build) -> None:
    first, second = stages(build)
    merged, _ = build()
    kept, own, other = (
        model.get_parameter("soft_prompt") for model in (merge_stages(first, second, merged), first, second)
    )
    assert torch.equal(kept, own)
    assert not torch.equal(own, other)


def test_a_merge_that_cannot_be_right_changes_nothing(build: Build) -> None:
    first, second = stages(build)
    merged, _ = build()
    before = {name: parameter.clone() for name, parameter in merged.named_parameters()}
    other, _ = build(seed=5, visual_input="aggregator")
    wider, _ = build(visual_input="qformer", num_query_tokens=9)
    wider.load_state_dict(
        {**wider.state_dict(), **{k: v for k, v in first.state_dict().items() if k != "query_tokens"}}
    )
    for stage1, stage2, into, message in (
        (first, other, merged, "differs between the stages"),
        (second, first, merged, "is not in stage"),
        (wider, second, merged, "query_tokens is"),
        (first, second, first, "needs both adapters"),
    ):
        with pytest.raises(ValueError, match=message):
            merge_stages(stage1, stage2, into)
    assert all(torch.equal(before[name], parameter) for name, parameter in merged.named_parameters())
