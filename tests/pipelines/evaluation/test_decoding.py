"""An evaluation decodes with the model's settings unless its own are set, and records the effective ones."""

import json
import logging
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from models.lion import LionForConditionalGeneration, LionProcessor
from pipelines.core import storage
from pipelines.core.errors import UserError
from pipelines.core.parquet import read_parquet
from pipelines.core.steps import StepResult, read_manifest
from pipelines.evaluation.config import EvaluateConfig, InferenceConfig
from pipelines.evaluation.results import METRICS
from pipelines.evaluation.run import evaluate
from pipelines.inference.decoding import DecodingConfig
from pipelines.registry import Registry, RegistryConfig
from pipelines.scoring.prediction_files import read_decoding
from tests.pipelines.evaluation.conftest import World

HERE = InferenceConfig(beams=2, launcher="local", cpus=1)
# Each setting with a value that changes answers, and the other settings without which it has no effect.
SETTINGS: dict[str, tuple[Any, dict[str, Any]]] = {
    "min_length": (12, {}),
    "repetition_penalty": (1.0, {}),
    "no_repeat_ngram_size": (1, {"repetition_penalty": 1.0}),
    "length_penalty": (-4.0, {}),
    "early_stopping": (True, {}),
    "do_sample": (True, {}),
    "temperature": (0.2, {"do_sample": True}),
    "top_k": (2, {"do_sample": True}),
    "top_p": (0.2, {"do_sample": True}),
}


# Settings that decide how answers end; this untrained model hardly ever ends an answer.
ENDINGS = ("min_length", "length_penalty", "early_stopping")


def run(world: World, out: Path, inference: InferenceConfig = HERE, **changes: Any) -> StepResult:
    config = EvaluateConfig(model=world.model, data=world.data, tagged=world.tagged, out=str(out), inference=inference)
    return evaluate(replace(config, **{"benchmark": "caption", **changes}))


def answers(result: StepResult) -> list[str]:
    return read_parquet(result.path, "predictions")["prediction"].to_pylist()


def decoding(result: StepResult) -> dict[str, Any]:
    return storage.read_json(storage.join(result.path, METRICS))["decoding"]


@pytest.mark.parametrize("name", SETTINGS)
def test_each_setting_acts_like_the_models_own(
    world: World, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    value, others = SETTINGS[name]
    calls: list[dict[str, Any]] = []
    generate = LionForConditionalGeneration.generate

    def recorded(self: LionForConditionalGeneration, **kwargs: Any) -> Any:
        calls.append(kwargs)
        return generate(self, **kwargs)

    monkeypatch.setattr(LionForConditionalGeneration, "generate", recorded)
    result = run(world, tmp_path, replace(HERE, decoding=DecodingConfig(**{name: value, **others})))
    assert decoding(result)[name] == value
    assert calls
    assert {call[name] for call in calls} == {value}
    without = run(world, tmp_path, replace(HERE, decoding=DecodingConfig(**others)))
    assert without.path != result.path
    if name not in ENDINGS:
        assert answers(without) != answers(result)
    own = shutil.copytree(world.model, tmp_path / "model")
    file = own / "generation_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {name: value, **others}))
    same = run(world, tmp_path, model=str(own))
    assert decoding(same) == decoding(result)
    assert answers(same) == answers(result)


def test_an_empty_answer_gets_the_smallest_length(world: World, tmp_path: Path) -> None:
    import torch
    from PIL import Image

    model, processor = (
        LionForConditionalGeneration.from_pretrained(world.model),
        LionProcessor.from_pretrained(world.model),
    )
    with Image.open(Path(world.model).parent / "0.png") as picture:
        inputs = processor(images=[picture], text=["Describe the image."], tags=[[("red", 0.9)]], levels=["image"])
    first = int(model.eval().generate(**inputs, num_beams=1, max_new_tokens=1)[0, 1])
    with torch.no_grad():  # makes the end token slightly likelier than the likeliest first token
        head = model.language_model.lm_head.weight
        head[model.config.eos_token_id] = 1.1 * head[first]
    own = shutil.copytree(world.model, tmp_path / "model")
    model.save_pretrained(own)
    greedy = replace(HERE, beams=1)
    short = run(world, tmp_path, greedy, model=str(own))
    long = run(world, tmp_path, replace(greedy, decoding=DecodingConfig(min_length=9)), model=str(own))
    assert answers(short)[0] == ""
    assert answers(long)[0] != ""


def test_beams_and_the_longest_answer_can_be_set(world: World, tmp_path: Path) -> None:
    plain = run(world, tmp_path)
    greedy = run(world, tmp_path, replace(HERE, beams=1))
    short = run(world, tmp_path, replace(HERE, decoding=DecodingConfig(max_new_tokens=3)))
    assert [decoding(result)["num_beams"] for result in (plain, greedy)] == [2, 1]
    assert answers(greedy) != answers(plain)
    assert decoding(short)["max_new_tokens"] == {"caption": 3}
    assert max(len(text.split()) for text in answers(short)) <= 3 < max(len(text.split()) for text in answers(plain))


def test_every_result_names_the_effective_settings(world: World, tmp_path: Path) -> None:
    result = run(world, tmp_path, replace(HERE, beams=None), benchmark="mixed")
    expected = {
        "num_beams": 5, "do_sample": False, "min_length": 1, "repetition_penalty": 1.5, "no_repeat_ngram_size": 0,
        "length_penalty": 1.0, "early_stopping": False,
        "max_new_tokens": {"caption": 40, "pope": 8, "rec": 48, "vqa": 16},
    }  # fmt: skip
    assert decoding(result) == expected
    assert read_decoding(result.path) == expected
    for file in Path(result.path, "predictions").iterdir():
        assert json.loads(pq.read_schema(file).metadata[b"decoding"]) == expected
    manifest = read_manifest(result.path)
    assert manifest["decoding"] == expected
    assert manifest["config"]["decoding"]["repetition_penalty"] == 1.5
    # Predictions that are scored again keep the record of their decoding; a file from elsewhere has none.
    scored = evaluate(EvaluateConfig(predictions=storage.join(result.path, "predictions"), out=str(tmp_path)))
    assert decoding(scored) == expected
    plain = tmp_path / "plain.parquet"
    pq.write_table(read_parquet(result.path, "predictions").replace_schema_metadata(None), plain)
    assert decoding(evaluate(EvaluateConfig(predictions=str(plain), out=str(tmp_path)))) is None


def test_the_models_own_settings_written_out_are_the_same_step(world: World, tmp_path: Path) -> None:
    own = run(world, tmp_path, replace(HERE, beams=None))
    same = run(world, tmp_path, replace(HERE, beams=5, decoding=DecodingConfig(repetition_penalty=1.5)))
    assert same.skipped
    assert same.path == own.path


def test_predictions_of_different_settings_are_not_scored_together(world: World, tmp_path: Path) -> None:
    both = tmp_path / "both"
    both.mkdir()
    for name, beams, benchmark in (("a", 1, "pope"), ("b", 2, "vqa")):
        result = run(world, tmp_path, replace(HERE, beams=beams), benchmark=benchmark)
        shutil.copy(Path(result.path, "predictions/part-00000000.parquet"), both / f"{name}.parquet")
    with pytest.raises(UserError, match="decoded with different settings"):
        evaluate(EvaluateConfig(predictions=str(both), out=str(tmp_path)))


def test_a_penalty_is_named_in_the_log_where_boxes_are_asked_for(
    world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="lion.evaluate"):
        run(world, tmp_path, benchmark="rec")
        assert any(record.levelno == logging.WARNING and "digits" in record.getMessage() for record in caplog.records)
        assert "decoded with num_beams 2" in caplog.text
        caplog.clear()
        run(world, tmp_path, replace(HERE, decoding=DecodingConfig(repetition_penalty=1.0)), benchmark="rec")
        run(world, tmp_path, benchmark="pope")
        assert not [record for record in caplog.records if record.levelno == logging.WARNING]


def test_drawn_answers_depend_on_the_seed_and_on_no_neighbor(world: World, tmp_path: Path) -> None:
    drawn = replace(HERE, beams=1, decoding=DecodingConfig(do_sample=True, seed=1))
    first = run(world, tmp_path / "a", drawn)
    again = run(world, tmp_path / "b", replace(drawn, batch_size=3))
    other = run(world, tmp_path / "a", replace(drawn, decoding=DecodingConfig(do_sample=True, seed=2)))
    assert os.path.basename(first.path) == os.path.basename(again.path)
    assert answers(first) == answers(again) != answers(other)


def test_a_registered_model_keeps_its_settings_and_its_version_names_them(world: World, tmp_path: Path) -> None:
    own = shutil.copytree(world.model, tmp_path / "model")
    file = own / "generation_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"repetition_penalty": 1.25}))
    registry = Registry(RegistryConfig(), str(tmp_path))
    version = registry.register("lion", str(own), registry.open_run("lion", "0" * 64), "lion")
    result = run(world, tmp_path, model="models:/lion@candidate", benchmark="pope")
    assert decoding(result)["repetition_penalty"] == 1.25
    tags = registry.client.get_model_version("lion", str(version)).tags
    assert json.loads(tags["evaluate.pope.decoding"]) == decoding(result)
