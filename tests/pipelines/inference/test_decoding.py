"""Settings of decoding: the run's, merged with the model's, and the warning about boxes."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.core.errors import UserError
from pipelines.inference.decoding import _DEFAULTS, DecodingConfig, box_warning, in_words, resolve_decoding

LIONS = {"num_beams": 5, "repetition_penalty": 1.5, "length_penalty": 1.0, "min_length": 1, "do_sample": False}


def model(folder: Path, **settings: Any) -> str:
    """Return a folder with the settings of a model and no weights."""
    (folder / "generation_config.json").write_text(json.dumps({"pad_token_id": 0, "_private": 1, **settings}))
    return str(folder)


def test_what_is_left_open_is_the_models_own(tmp_path: Path) -> None:
    decoding = resolve_decoding(model(tmp_path, **LIONS, max_new_tokens=256), DecodingConfig(), None)
    assert decoding.as_dict({"rec": 48}) == {
        **LIONS, "no_repeat_ngram_size": 0, "early_stopping": False, "max_new_tokens": {"rec": 48},
    }  # fmt: skip


def test_what_is_set_wins_and_the_rest_stays(tmp_path: Path) -> None:
    config = DecodingConfig(repetition_penalty=1, max_new_tokens=7)
    decoding = resolve_decoding(model(tmp_path, **LIONS), config, 3)
    assert (decoding.settings["num_beams"], decoding.settings["repetition_penalty"]) == (3, 1.0)
    assert decoding.settings["min_length"] == 1
    assert decoding.limits({"rec": 48, "pope": 8}) == {"rec": 7, "pope": 7}


def test_a_folder_without_settings_has_lions_published_ones(tmp_path: Path) -> None:
    settings = resolve_decoding(str(tmp_path), DecodingConfig(), None).settings
    assert {name: settings[name] for name in LIONS} == LIONS


def test_what_is_left_open_by_both_is_what_transformers_takes() -> None:
    from transformers import GenerationConfig

    defaults = GenerationConfig._get_default_generation_params()
    assert {name: defaults[name] for name in _DEFAULTS} == _DEFAULTS


def test_settings_without_effect_are_not_listed(tmp_path: Path) -> None:
    folder = model(tmp_path, temperature=0.7, length_penalty=2.0)
    greedy = resolve_decoding(folder, DecodingConfig(), None).as_dict()
    assert not {"temperature", "top_k", "top_p", "length_penalty", "early_stopping", "seed"} & set(greedy)
    drawn = resolve_decoding(folder, DecodingConfig(do_sample=True), None).as_dict()
    assert (drawn["temperature"], drawn["top_k"], drawn["seed"]) == (0.7, 50, 0)


def test_other_settings_of_the_model_are_listed(tmp_path: Path) -> None:
    document = resolve_decoding(model(tmp_path, suppress_tokens=[3], use_cache=True), DecodingConfig(), 2).as_dict()
    assert document["suppress_tokens"] == [3]
    assert not {"use_cache", "pad_token_id", "_private"} & set(document)


@pytest.mark.parametrize(
    "changes, beams, message",
    [
        ({}, 0, "beams is 0; give at least 1"),
        ({"repetition_penalty": 0.0}, None, "repetition_penalty is 0.0; give more than 0"),
        ({"repetition_penalty": float("nan")}, None, "repetition_penalty is nan"),
        ({"length_penalty": float("inf")}, 5, "length_penalty is inf"),
        ({"max_new_tokens": 0}, None, "max_new_tokens is 0; give at least 1"),
        ({"no_repeat_ngram_size": -1}, None, "no_repeat_ngram_size is -1"),
        ({"do_sample": True, "top_p": 1.5}, None, "top_p is 1.5; it is a probability"),
        ({"temperature": 0.5}, None, "temperature has no effect.*do_sample true"),
        ({"seed": 1, "do_sample": False}, None, "seed has no effect"),
        ({"length_penalty": 0.5}, 1, "length_penalty has no effect.*raise inference.beams"),
        ({"early_stopping": True}, None, "decodes with one beam by default"),
    ],
)
def test_mistakes_are_refused(tmp_path: Path, changes: dict[str, Any], beams: int | None, message: str) -> None:
    with pytest.raises(UserError, match=message):
        resolve_decoding(model(tmp_path, num_beams=1), DecodingConfig(**changes), beams)


def test_an_answer_cannot_be_longer_than_it_may_be(tmp_path: Path) -> None:
    decoding = resolve_decoding(model(tmp_path), DecodingConfig(min_length=9), None)
    decoding.check({"pope": 8})
    with pytest.raises(UserError, match=r"min_length 9 is more than the 7 tokens.*task pope"):
        decoding.check({"caption": 40, "pope": 7})


def test_a_penalty_on_repetition_is_named_where_answers_hold_boxes() -> None:
    penalty = {"repetition_penalty": 1.5, "no_repeat_ngram_size": 0}
    warning = box_warning(penalty, ["caption", "rec"])
    assert warning is not None
    assert "repetition_penalty 1.5" in warning
    assert box_warning(penalty, ["caption", "vqa"]) is None
    assert box_warning({"repetition_penalty": 1.0, "no_repeat_ngram_size": 0}, ["rec"]) is None
    assert "no_repeat_ngram_size 3" in (
        box_warning({"repetition_penalty": 1.0, "no_repeat_ngram_size": 3}, ["rec"]) or ""
    )


def test_settings_in_words() -> None:
    document = {"num_beams": 5, "repetition_penalty": 1.0, "do_sample": False, "max_new_tokens": {"rec": 48, "vqa": 16}}
    assert in_words(document) == "num_beams 5, repetition_penalty 1, do_sample false, max_new_tokens rec:48 vqa:16"
