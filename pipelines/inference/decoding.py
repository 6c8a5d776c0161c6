"""Decoding of answers: the settings of a run, merged with the model's own into the effective settings.

An empty setting is the model's own, from its `generation_config.json`; nothing is overridden silently. The effective
settings are part of an evaluation's hash and are written into its predictions and metrics.
"""

import dataclasses
import math
from collections.abc import Collection, Mapping
from typing import Any

from pipelines.core import storage
from pipelines.core.errors import UserError

BOX_TASKS = ("rec", "grounded_caption")
"""Tasks whose answers hold boxes. The digits of boxes repeat, so that a penalty on repetition changes them."""
GENERATION_FILE = "generation_config.json"
# The defaults of transformers, used where neither the call nor the model sets a value.
_DEFAULTS: Mapping[str, bool | int | float] = {
    "num_beams": 1,
    "do_sample": False,
    "min_length": 0,
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "length_penalty": 1.0,
    "early_stopping": False,
    "temperature": 1.0,
    "top_k": 50,
    "top_p": 1.0,
}
_BEAM_SETTINGS = ("length_penalty", "early_stopping")
_SAMPLING_SETTINGS = ("temperature", "top_k", "top_p")
# Keys that are no settings here: tasks set the lengths, and the others do not change which tokens are chosen.
_NO_SETTING = ("transformers_version", "max_length", "max_new_tokens", "use_cache", "cache_implementation")


@dataclasses.dataclass(frozen=True)
class DecodingConfig:
    """Settings of decoding other than the number of beams. An empty setting is the model's own."""

    max_new_tokens: int | None = None
    """Largest number of tokens of an answer, for every task. Empty: the limit of the task or the benchmark."""
    min_length: int | None = None
    """Smallest number of tokens of an answer, including the decoder's start token; 0 and 1 have no effect."""
    repetition_penalty: float | None = None
    """Penalty on tokens that the answer already has: above 1 they are less likely, 1 is no penalty. LION's is 1.5.
    Digits of boxes repeat, so that a penalty makes boxes wrong: set 1 for tasks with boxes."""
    no_repeat_ngram_size: int | None = None
    """Length of token sequences that may occur only once in an answer, for example 3; 0: no such rule."""
    length_penalty: float | None = None
    """Exponent of the length in the divisor of a beam's score: above 0 favors long answers, below 0 short ones. Needs
    several beams."""
    early_stopping: bool | None = None
    """Whether a beam search ends as soon as it has as many complete answers as beams. Needs several beams."""
    do_sample: bool | None = None
    """Whether each token is drawn by its probability; otherwise the likeliest is taken. Each row is then a batch by
    itself, so that its answer does not depend on other rows, which is slower."""
    temperature: float | None = None
    """With do_sample: divisor of the logits; below 1, likely tokens become more likely."""
    top_k: int | None = None
    """With do_sample: number of the likeliest tokens that are drawn from; 0: all tokens."""
    top_p: float | None = None
    """With do_sample: total probability of the likeliest tokens that are drawn from; 1: all tokens."""
    seed: int | None = None
    """With do_sample: seed of the draws, together with the row's id. Empty: 0."""

    def check(self, beams: int | None) -> None:
        """Refuse values that no model can decode with.

        Args:
            beams: width of the beam search; None: the model's own.

        Raises:
            UserError: a value is out of its range, or has no effect with the other values.
        """
        if beams is not None and beams < 1:
            raise UserError(f"inference.beams is {beams}; give at least 1, or nothing for the model's own.")
        for name, (low, strict) in _LOWEST.items():
            value = getattr(self, name)
            if value is not None and (not math.isfinite(value) or value < low or (strict and value == low)):
                least = "more than" if strict else "at least"
                raise UserError(f"inference.decoding.{name} is {value}; give {least} {low}, or nothing.")
        if self.length_penalty is not None and not math.isfinite(self.length_penalty):
            raise UserError(f"inference.decoding.length_penalty is {self.length_penalty}; give a finite number.")
        if self.top_p is not None and self.top_p > 1:
            raise UserError(f"inference.decoding.top_p is {self.top_p}; it is a probability: give at most 1.")
        if self.do_sample is not True:
            self._refuse((*_SAMPLING_SETTINGS, "seed"), "nothing is drawn: add inference.decoding.do_sample true")
        if beams == 1:
            self._refuse(_BEAM_SETTINGS, "there is one beam: raise inference.beams")

    def _refuse(self, names: Collection[str], reason: str) -> None:
        for name in names:
            if getattr(self, name) is not None:
                raise UserError(f"inference.decoding.{name} has no effect, since {reason}, or leave {name} out.")


# Name: the lowest value, and whether it is excluded.
_LOWEST: Mapping[str, tuple[int, bool]] = {
    "max_new_tokens": (1, False),
    "min_length": (0, False),
    "repetition_penalty": (0, True),
    "no_repeat_ngram_size": (0, False),
    "temperature": (0, True),
    "top_k": (0, False),
    "top_p": (0, True),
    "seed": (0, False),
}


@dataclasses.dataclass(frozen=True)
class Decoding:
    """The effective settings of a model in a run.

    Attributes:
        settings: arguments of `generate`, without those that have no effect (of beams with one beam, of sampling
            without sampling).
        own: further settings of the model, which `generate` reads from the model.
        max_new_tokens: largest number of tokens of every answer; None: the tasks' limits apply.
        seed: seed of sampling; None: no sampling.
    """

    settings: Mapping[str, bool | int | float]
    own: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    max_new_tokens: int | None = None
    seed: int | None = None

    def limits(self, tasks: Mapping[str, int]) -> dict[str, int]:
        """Return the largest number of tokens of an answer by task, from the tasks' own limits."""
        return {task: self.max_new_tokens or limit for task, limit in tasks.items()}

    def check(self, limits: Mapping[str, int]) -> None:
        """Refuse a smallest length that exceeds the largest length.

        Args:
            limits: largest number of tokens of an answer, by task.

        Raises:
            UserError: min_length exceeds a task's limit.
        """
        least = self.settings["min_length"] - 1  # min_length counts the start token, the limits do not
        if short := [task for task, limit in limits.items() if limit < least]:
            raise UserError(
                f"min_length {self.settings['min_length']} is more than the {limits[short[0]]} tokens that an answer "
                f"of task {short[0]} may have; lower inference.decoding.min_length, or raise max_new_tokens."
            )

    def as_dict(self, limits: Mapping[str, int] | None = None) -> dict[str, Any]:
        """Return plain JSON values: all settings, and the largest number of tokens (by task where `limits` is set)."""
        sampling = {} if self.seed is None else {"seed": self.seed}
        longest = self.max_new_tokens if limits is None else dict(limits)
        return {**self.settings, **sampling, **self.own, "max_new_tokens": longest}


def resolve_decoding(model: str, config: DecodingConfig, beams: int | None) -> Decoding:
    """Merge a run's settings with those of a model's folder, without loading the model.

    Args:
        model: a `from_pretrained` folder or its URI; without `generation_config.json`, LION's published settings apply.
        config: the settings of the run.
        beams: width of the beam search; None: the model's own.

    Raises:
        UserError: a value is wrong or has no effect with this model.
    """
    config.check(beams)
    document = _own_settings(model)
    values = {**_DEFAULTS, **{name: document[name] for name in _DEFAULTS if document.get(name) is not None}}
    changes = {name: value for name, value in dataclasses.asdict(config).items() if name in _DEFAULTS}
    changes["num_beams"] = beams
    values |= {name: value for name, value in changes.items() if value is not None}
    without = () if values["num_beams"] > 1 else _BEAM_SETTINGS
    for name in without:
        if getattr(config, name) is not None:
            raise UserError(
                f"inference.decoding.{name} has no effect: {model} decodes with one beam by default; raise "
                f"inference.beams, or leave {name} out."
            )
    if not values["do_sample"]:
        without = (*without, *_SAMPLING_SETTINGS)
    settings = {
        name: float(value) if isinstance(_DEFAULTS[name], float) else value
        for name, value in values.items()
        if name not in without
    }
    own = {name: value for name, value in document.items() if _is_own(name, value)}
    seed = (config.seed or 0) if values["do_sample"] else None
    return Decoding(settings, own, config.max_new_tokens, seed)


def _own_settings(model: str) -> Mapping[str, Any]:
    path = storage.join(model, GENERATION_FILE)
    if storage.exists(path):
        document: Mapping[str, Any] = storage.read_json(path)
        return document
    from models.lion.generation import PUBLISHED

    return PUBLISHED


def _is_own(name: str, value: Any) -> bool:
    """Return whether a key of a model's file changes answers and is not a setting of a run."""
    excluded = name in _DEFAULTS or name in _NO_SETTING or name.endswith("_token_id")
    return value is not None and not excluded and not name.startswith(("_", "output_", "return_"))


def box_warning(settings: Mapping[str, Any], tasks: Collection[str]) -> str | None:
    """Return a warning if a penalty on repetition is active and answers hold boxes, else None.

    Args:
        settings: effective settings, such as `Decoding.settings`.
        tasks: the tasks of the questions.
    """
    boxes = [task for task in BOX_TASKS if task in tasks]
    penalties = {"repetition_penalty": 1.0, "no_repeat_ngram_size": 0}
    active = [f"{name} {settings[name]:g}" for name, neutral in penalties.items() if settings[name] != neutral]
    if not boxes or not active:
        return None
    return (
        f"Answers of {' and '.join(boxes)} hold boxes, whose digits repeat, and the model decodes with "
        f"{' and '.join(active)}: boxes are wrong although the model knows them. Set "
        "--inference.decoding.repetition_penalty 1 --inference.decoding.no_repeat_ngram_size 0 to decode without."
    )


def in_words(document: Mapping[str, Any]) -> str:
    """Return effective settings, as `Decoding.as_dict` returns them, as one line of text."""
    return ", ".join(f"{name} {_value(value)}" for name, value in document.items() if value is not None)


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return " ".join(f"{name}:{_value(item)}" for name, item in value.items())
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
