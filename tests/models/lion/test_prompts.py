"""A prompt design from outside the package: one class and one call of `register_prompt`, then used like any other."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import initialization as init

from jobs.cli import from_values, make_parser, parse
from models.lion import (
    GROUPS,
    TRAINABLE,
    LionForConditionalGeneration,
    LionProcessor,
    PromptConfig,
    parameter_group,
    set_trainable,
)
from models.lion import prompts as registry
from models.lion.conversion import export_lion
from models.lion.groups import all_groups, trainable_groups
from models.lion.merge import merge_stages
from models.lion.naming import to_ours, to_released
from models.lion.precision import set_precision
from models.lion.prompts import prompt_design, prompt_kinds, register_prompt
from models.lion.prompts.base import SOFT_TOKEN, PromptDesign, PromptInputs
from models.lion.prompts.static import StaticPrompt
from models.tags import ScoredTag
from pipelines.core.errors import UserError
from pipelines.core.tag_rules import model_rules
from pipelines.training.config import STAGE_GROUPS, PromptSettings, TrainStageConfig
from pipelines.training.stage import StageTask, merge_parents
from tests.models.lion.conftest import Build, batch_of
from tests.models.lion.test_merge import stages

LEVELS = ["image", "region", "image"]
TOY = {"kind": "toy"}


class ToyPrompt(PromptDesign):
    """Two learned vectors before the question, without LION's sentence."""

    kind = "toy"
    groups = {"toy": r"toy_vectors"}
    parts = ("toy_vectors",)

    def slots(self, prompt: PromptConfig) -> int:
        """Return 2."""
        return 2

    def lists_tags(self, prompt: PromptConfig) -> bool:
        """Return False: the text is the question."""
        return False

    def text(self, prompt: PromptConfig, question: str, tags: Sequence[ScoredTag]) -> str:
        """Return the question after the two slots."""
        return f"{SOFT_TOKEN * 2} {question}"

    def add_modules(self, model: LionForConditionalGeneration) -> None:
        """Add the vectors (2, d)."""
        model.toy_vectors = nn.Parameter(torch.empty(2, model.config.text_config.d_model))

    def initialize(self, model: LionForConditionalGeneration) -> None:
        """Draw the vectors from a standard normal distribution."""
        init.normal_(model.get_parameter("toy_vectors"), mean=0.0, std=1.0)

    def vectors(self, model: LionForConditionalGeneration, embeddings: Tensor, inputs: PromptInputs) -> Tensor:
        """Return the same two vectors for each sample (B, 2, d)."""
        return model.get_parameter("toy_vectors").to(embeddings.dtype).expand(len(embeddings), -1, -1)


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> ToyPrompt:
    """Register the toy for one test."""
    monkeypatch.setattr(registry, "_DESIGNS", dict(registry._DESIGNS))
    design = ToyPrompt()
    register_prompt(design)
    return design


def stage_settings(stage: int = 1) -> TrainStageConfig:
    return from_values("train_stage", TrainStageConfig, {
        "data": "samples", "tagged": "images", "parents": "start", "stage": stage, "prompt": TOY,
    })  # fmt: skip


def trained(model: nn.Module) -> set[str]:
    return {parameter_group(name) for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_its_text_and_its_vectors_reach_the_language_model(toy: ToyPrompt, build: Build) -> None:
    model, processor = build(prompt=TOY)
    assert processor.prompt_text("where?", [("dog", 0.9)]) == f"{SOFT_TOKEN}{SOFT_TOKEN} where?"
    batch = batch_of(processor, LEVELS)
    assert (batch["input_ids"] == model.config.soft_prompt_token_id).sum(dim=1).tolist() == [2, 2, 2]
    assert not [name for name in batch if name.startswith("tag_")]
    vectors = model.get_parameter("toy_vectors")
    embeddings = model.text_embeddings(batch["input_ids"])
    assert torch.equal(embeddings[1][batch["input_ids"][1] == model.config.soft_prompt_token_id], vectors)
    before = model(**batch).logits
    with torch.no_grad():
        vectors.add_(1.0)
    assert not torch.equal(before, model(**batch).logits)


def test_it_trains_and_generates_with_and_without_a_cache(toy: ToyPrompt, build: Build) -> None:
    model, processor = build(prompt=TOY)
    assert set_trainable(model, ["toy"]) == ["toy_vectors"]
    model.train()(**batch_of(processor, LEVELS)).loss.backward()
    gradient = model.get_parameter("toy_vectors").grad
    assert gradient is not None
    assert gradient.abs().sum(dim=1).min() > 0
    batch = batch_of(processor, LEVELS, answers=False)
    cached, plain = (
        model.eval().generate(**batch, num_beams=3, max_new_tokens=6, use_cache=cache) for cache in (True, False)
    )
    assert torch.equal(cached, plain)


def test_it_is_saved_and_loaded(toy: ToyPrompt, build: Build, tmp_path: Path) -> None:
    model, processor = build(prompt=TOY)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    loaded = LionForConditionalGeneration.from_pretrained(tmp_path)
    assert torch.equal(loaded.get_parameter("toy_vectors"), model.get_parameter("toy_vectors"))
    assert loaded.get_parameter("toy_vectors").requires_grad
    batch, same = batch_of(processor, LEVELS), batch_of(LionProcessor.from_pretrained(tmp_path), LEVELS)
    assert torch.equal(batch["input_ids"], same["input_ids"])
    torch.testing.assert_close(loaded(**same).logits, model(**batch).logits, atol=1e-6, rtol=1e-6)


def test_its_parameters_are_a_group_like_any_other(toy: ToyPrompt, build: Build) -> None:
    model, _ = build(prompt=TOY)
    assert parameter_group("module.toy_vectors") == "toy"
    assert all_groups() == (*GROUPS, "toy")
    assert trainable_groups() == (*TRAINABLE, "toy")
    set_precision(model, torch.bfloat16, {"toy": torch.float32})
    assert {name for name, p in model.named_parameters() if p.dtype == torch.float32} == {"toy_vectors"}
    with pytest.raises(ValueError, match=r"no 'prompt'.*toy"):
        set_trainable(model, ["prompt"])
    other, _ = build()
    with pytest.raises(ValueError, match="no 'toy'"):
        set_trainable(other, ["toy"])


def test_two_stages_are_merged_with_it(toy: ToyPrompt, build: Build, tmp_path: Path) -> None:
    first, second = stages(build, TOY, "toy")
    merged, _ = build(prompt=TOY)
    merge_stages(first, second, merged)
    assert torch.equal(merged.get_parameter("toy_vectors"), first.get_parameter("toy_vectors"))
    assert not torch.equal(merged.get_parameter("toy_vectors"), second.get_parameter("toy_vectors"))
    _, processor = build(visual_input="qformer", prompt=TOY)
    for stage, name in ((first, "stage1"), (second, "stage2")):
        stage.save_pretrained(tmp_path / name)
        processor.save_pretrained(tmp_path / name)
    merge_parents(str(tmp_path / "stage1"), str(tmp_path / "stage2"), str(tmp_path / "merged"))
    loaded = LionForConditionalGeneration.from_pretrained(tmp_path / "merged")
    assert torch.equal(loaded.get_parameter("toy_vectors"), first.get_parameter("toy_vectors"))


def test_a_stage_trains_it_from_a_parent_with_another_prompt(toy: ToyPrompt, build: Build, tmp_path: Path) -> None:
    parent, processor = build(visual_input="qformer")
    parent.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    settings = stage_settings()
    assert settings.trained_groups == [*STAGE_GROUPS[1], "toy"]
    task = StageTask(settings, "samples", "images", str(tmp_path), None, ())
    model = task.build()
    assert trained(model) == {*STAGE_GROUPS[1], "toy"}
    assert "toy" in task.groups
    assert not hasattr(model, "soft_prompt")
    assert not PromptSettings("toy").dynamic
    assert PromptSettings("both").dynamic
    assert model.get_parameter("toy_vectors").std().item() == pytest.approx(1, rel=0.3)
    for name, parameter in model.named_parameters():
        assert name == "toy_vectors" or torch.equal(parameter, parent.get_parameter(name)), name
    assert trained(task.outline()) == trained(model)


def test_it_has_no_released_form(toy: ToyPrompt, build: Build, tmp_path: Path) -> None:
    assert [prompt_design(kind).is_released for kind in prompt_kinds()] == [True, True, False, False, False]
    assert to_ours("soft_prompt_hint", ()) == "soft_prompt"
    assert to_released("soft_prompt", ()) == "soft_prompt_hint"
    with pytest.raises(ValueError, match="no part toy_vectors"):
        to_released("toy_vectors", ())
    model, _ = build(prompt=TOY)
    model.save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match="prompt of kind 'toy'"):
        export_lion(tmp_path / "model", tmp_path / "out.pth")


@pytest.mark.parametrize(
    ("kind", "groups", "message"),
    [
        ("static", {"toy": "toy"}, "'static' is already registered"),
        ("new", {"router": "new"}, "group 'router', which LION or another prompt has"),
        ("new", {"prompt": "new"}, "group 'prompt', which LION or another prompt has"),
    ],
)
def test_names_that_are_taken_are_refused(kind: str, groups: dict[str, str], message: str) -> None:
    design = type("Taken", (ToyPrompt,), {"kind": kind, "groups": groups})()
    with pytest.raises(ValueError, match=message):
        register_prompt(design)
    assert prompt_kinds() == ("none", "static", "dynamic", "both")


def test_two_designs_may_share_a_group(toy: ToyPrompt) -> None:
    register_prompt(type("Longer", (StaticPrompt,), {"kind": "longer"})())
    assert parameter_group("soft_prompt") == "prompt"
    assert len(all_groups()) == len(set(all_groups()))


def test_the_command_line_takes_registered_kinds_and_refuses_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    argv = ["--data", "a", "--tagged", "b", "--parents", "c", "--prompt.kind", "toy"]
    with pytest.raises(SystemExit) as end:
        parse("train_stage", TrainStageConfig, argv)
    assert end.value.code == 2
    assert "prompt.kind is 'toy'; choose one of none, static, dynamic, both." in capsys.readouterr().err
    with pytest.raises(ValueError, match="choose one of none, static, dynamic, both"):
        PromptConfig(kind="toy")
    request.getfixturevalue("toy")
    assert parse("train_stage", TrainStageConfig, argv).trained_groups[-1] == "toy"


def test_help_explains_each_built_in_kind_and_imports_no_torch(root: Path) -> None:
    actions = {action.dest: action for action in make_parser("train_stage", TrainStageConfig)._actions}
    for kind in registry.BUILT_IN:
        assert f"{kind}:" in str(actions["prompt.kind"].help)
    script = "import sys, models.lion.prompts; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], cwd=root, check=False).returncode == 0


@pytest.mark.parametrize(("kind", "reads"), [("none", False), ("static", False), ("dynamic", True), ("both", True)])
def test_the_rules_of_a_models_folder_have_those_of_the_tag_encoder_where_its_prompt_uses_one(
    build: Build, tmp_path: Path, kind: str, reads: bool
) -> None:
    _, processor = build(prompt={"kind": kind})
    processor.save_pretrained(tmp_path / kind)
    assert (model_rules(str(tmp_path / kind)).vector is not None) == reads


def test_the_rules_of_a_folder_with_an_unregistered_prompt_are_refused(
    toy: ToyPrompt, build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, processor = build(prompt=TOY)
    processor.save_pretrained(tmp_path)
    assert model_rules(str(tmp_path)).vector is None
    monkeypatch.undo()
    with pytest.raises(UserError, match=r"processor_config.json: prompt.kind is 'toy'; choose one of none"):
        model_rules(str(tmp_path))
