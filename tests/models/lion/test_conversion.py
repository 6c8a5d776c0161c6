"""Released weights in, released weights out; nothing unknown, nothing missing, nothing executed."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import T5Config

from models.lion import LionConfig, LionForConditionalGeneration, LionProcessor
from models.lion.conversion import convert_lion, export_lion, place, released_config
from models.lion.generation import PUBLISHED
from models.lion.naming import to_ours, to_released
from tests.models.lion.conftest import Build
from tests.models.lion.golden import Case, golden_root, lion_cases

CASES = lion_cases()
every_case = pytest.mark.parametrize("folder", CASES, ids=[str(c.relative_to(golden_root())) for c in CASES])
needs_golden = pytest.mark.skipif(not CASES, reason="needs ../shared/golden or $LION_GOLDEN")


@pytest.mark.parametrize("size", ["xl", "xxl"])
def test_every_real_key_is_placed_or_ignored_with_a_reason(size: str) -> None:
    file = golden_root() / f"lion_{size}_keys.json"
    if not file.is_file():
        pytest.skip("needs ../shared/golden or $LION_GOLDEN")
    keys: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))["keys"]
    shapes = {key: tuple(entry["shape"]) for key, entry in keys.items()}
    preset = LionConfig.preset(size)
    config = released_config(shapes, preset.text_config)
    assert config.to_dict() == preset.to_dict()
    ignored: dict[str, str] = {}
    meta = ((key, torch.empty(shape, device="meta")) for key, shape in shapes.items())
    placed = dict(place(meta, config, ignored))  # raises on anything unknown, misshapen or missing
    assert len(keys) == 2040
    assert len(placed) + len(ignored) + 39 == len(keys)  # q_bias and v_bias of 39 blocks become one
    assert {key for key in ignored if keys[key]["learnable_in_released"] is not None} == set()
    assert all(ignored.values())
    learnable = [key for key, entry in keys.items() if entry["learnable_in_released"]]
    assert [to_released(to_ours(key, config.adapters) or "", config.adapters) for key in learnable] == learnable


def released_files(case: Case, folder: Path) -> dict[str, Path]:
    """The case's weights as users have them: LION's file, the ViT with its 40th block, a T5 folder in two shards."""
    state = case.state
    trained = {k: v for k, v in state.items() if not k.startswith(("visual_encoder.", "t5_model.")) or ".adapter." in k}
    torch.save({"model": trained, "epoch": 3}, folder / "lion.pth")
    vit = {k.removeprefix("visual_encoder."): v for k, v in state.items() if k.startswith("visual_encoder.")}
    last = 1 + max(int(key.split(".")[1]) for key in vit if key.startswith("blocks."))
    vit |= {k.replace("blocks.0.", f"blocks.{last}."): v.clone() for k, v in vit.items() if k.startswith("blocks.0.")}
    vit |= {"norm.weight": torch.ones(3), "head.weight": torch.ones(3, 3)}
    torch.save(vit, folder / "vit.pth")
    t5 = {
        k.removeprefix("t5_model."): v.clone()
        for k, v in state.items()
        if k.startswith("t5_model.") and ".adapter." not in k
    }
    llm = folder / "t5"
    llm.mkdir()
    names = sorted(t5)
    weight_map: dict[str, str] = {}
    for number, part in enumerate((names[::2], names[1::2])):
        torch.save({name: t5[name] for name in part}, llm / f"shard{number}.bin")
        weight_map |= dict.fromkeys(part, f"shard{number}.bin")
    (llm / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}), encoding="utf-8")
    fields = {key: value for key, value in case.settings["t5"].items() if key != "dense_act_fn"}
    T5Config(**fields).save_pretrained(llm)
    return {"checkpoint": folder / "lion.pth", "vit": folder / "vit.pth", "llm": llm}


def convert(case: Case, files: dict[str, Path], out: Path) -> dict[str, Any]:
    config, tokenizers = case.config(), case.tokenizers
    assert tokenizers is not None
    overrides = {
        "vision_config": {"num_attention_heads": config.vision_config.num_attention_heads},
        "qformer_config": {"num_attention_heads": config.qformer_config.num_attention_heads},
        "aggregator_levels": config.aggregator_levels,
    }
    if not config.uses_qformer:
        overrides.pop("qformer_config")
    return convert_lion(
        files["checkpoint"],
        files["vit"],
        files["llm"],
        tokenizer=tokenizers / "t5",
        qformer_tokenizer=tokenizers / "bert",
        out=out,
        overrides=overrides,
    )


@every_case
def test_released_files_become_a_folder_and_released_weights_again(folder: Path, tmp_path: Path) -> None:
    case = Case(folder)
    if case.tokenizers is None:
        pytest.skip("the case has no tokenizers")
    files = released_files(case, tmp_path)
    told = convert(case, files, tmp_path / "out")
    model = LionForConditionalGeneration.from_pretrained(tmp_path / "out")
    LionProcessor.from_pretrained(tmp_path / "out")
    reference = case.model("sdpa")
    assert told["placed"] == len(dict(reference.named_parameters()))
    assert told["ignored"] == len(told["reasons"]) > 0
    for name, parameter in reference.named_parameters():
        assert torch.equal(parameter, model.get_parameter(name)), name
    assert model.generation_config.repetition_penalty == 1.5
    back = export_lion(tmp_path / "out", tmp_path / "back.pth")
    file = torch.load(tmp_path / "back.pth", weights_only=True)
    saved = file["model"]
    assert file["generation_config"] == PUBLISHED
    trained = torch.load(files["checkpoint"], weights_only=True)["model"]
    trained.pop("Qformer.bert.embeddings.position_ids", None)
    assert back["placed"] == len(trained)
    assert saved.keys() == trained.keys()
    assert all(torch.equal(saved[key], trained[key]) for key in trained)


@needs_golden
def test_a_models_own_generation_settings_come_back_from_the_released_naming(tmp_path: Path) -> None:
    case = next(case for case in map(Case, CASES) if case.tokenizers is not None)
    files = released_files(case, tmp_path)
    convert(case, files, tmp_path / "out")
    settings = tmp_path / "out/generation_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"repetition_penalty": 1.0, "num_beams": 2}))
    export_lion(tmp_path / "out", tmp_path / "back.pth")
    convert(case, files | {"checkpoint": tmp_path / "back.pth"}, tmp_path / "again")
    found = LionForConditionalGeneration.from_pretrained(tmp_path / "again").generation_config
    assert (found.repetition_penalty, found.num_beams) == (1.0, 2)


@needs_golden
def test_unknown_missing_and_misshapen_keys_are_named(tmp_path: Path) -> None:
    case = Case(CASES[0])
    config, state = case.config(), case.state

    def placed(change: dict[str, Tensor | None]) -> None:
        changed = {key: tensor for key, tensor in (state | change).items() if tensor is not None}
        list(place(changed.items(), config, {}))

    adapter = "t5_model.encoder.block.0.layer.1.adapter.adapters.0.down_proj.weight"
    for change, told in (
        ({"t5_model.encoder.block.0.layer.1.lora": torch.ones(1)}, "layer.1.lora is no weight of this LION"),
        ({"optimizer.step": torch.ones(1)}, "optimizer.step is no weight of this LION"),
        ({adapter.replace("adapters.0", "adapters.7"): torch.ones(1)}, "adapters.7.* is no weight of this LION"),
        ({adapter: None}, "1 weights are missing, among them " + adapter),
        ({adapter: torch.ones(2, 2)}, r"down_proj.weight is \(2, 2\) and this LION expects"),
        ({"visual_encoder.blocks.0.attn.v_bias": None}, "1 weights are missing"),
    ):
        with pytest.raises(ValueError, match=told):
            placed(change)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="it is no LION"):
        released_config({k: tuple(v.shape) for k, v in state.items() if k.startswith("vis")}, T5Config())


class Hostile:
    """Runs a command when a careless reader unpickles it."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.marker}",)


@needs_golden
@pytest.mark.parametrize("which", ["checkpoint", "vit", "shard"])
def test_a_hostile_pickle_is_refused_and_not_run(tmp_path: Path, which: str) -> None:
    case, marker = Case(CASES[0]), tmp_path / "ran"
    files = released_files(case, tmp_path)
    victim = files["llm"] / "shard1.bin" if which == "shard" else files[which]
    torch.save({"model": {"query_tokens": torch.ones(1), "note": Hostile(marker)}}, victim)
    with pytest.raises(ValueError, match="contains other objects than tensors"):
        convert(case, files, tmp_path / "out")
    assert not marker.exists()
    torch.load(victim, weights_only=False)
    assert marker.exists(), "the file must be hostile for this test to say anything"


@needs_golden
def test_files_that_are_no_checkpoints_are_told_apart(tmp_path: Path) -> None:
    case = Case(CASES[0])
    files = released_files(case, tmp_path)
    (tmp_path / "text.pth").write_text("not a checkpoint")
    torch.save({"lr": 0.1}, tmp_path / "numbers.pth")
    (tmp_path / "empty").mkdir()
    shutil.copy(files["llm"] / "config.json", tmp_path / "empty")
    for change, told in (
        ({"checkpoint": tmp_path / "none.pth"}, "is not a file"),
        ({"checkpoint": tmp_path / "text.pth"}, "text.pth"),
        ({"checkpoint": tmp_path / "numbers.pth"}, "has no state dict"),
        ({"vit": files["checkpoint"]}, "no pos_embed"),
        ({"llm": tmp_path / "empty"}, "has no weights"),
    ):
        with pytest.raises(ValueError, match=told):
            convert(case, files | change, tmp_path / "out")


def test_a_dynamic_prompt_cannot_be_exported(build: Build, tmp_path: Path) -> None:
    model, _ = build(prompt={"kind": "dynamic"})
    model.save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match="released LION does not have"):
        export_lion(tmp_path / "model", tmp_path / "out.pth")
