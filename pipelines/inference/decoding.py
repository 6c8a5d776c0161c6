"""How answers are decoded: what a run may set, and which settings hold once the model's own are merged in.

Every setting left open is the model's own, as its `generation_config.json` has it; nothing is overridden silently. The
settings that hold, the *effective* ones, are part of an evaluation's hash and stand in its predictions and metrics.
"""

import dataclasses
import math
from collections.abc import Collection, Mapping
from typing import Any

from pipelines.core import storage
from pipelines.core.errors import UserError

BOX_TASKS = ("rec", "grounded_caption")
"""Tasks whose answers hold boxes: their digits repeat, and a penalty on repetition changes them."""
GENERATION_FILE = "generation_config.json"
# What transformers generates with where neither the call nor the model says otherwise.
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
_OF_BEAMS = ("length_penalty", "early_stopping")
_OF_SAMPLING = ("temperature", "top_k", "top_p")
# Lengths are the tasks' own; the rest says how `generate` works, not which tokens it chooses.
_NO_SETTING = ("transformers_version", "max_length", "max_new_tokens", "use_cache", "cache_implementation")


@dataclasses.dataclass(frozen=True)
class DecodingConfig:
    """Settings of decoding beside the beams. Each one left empty is the model's own."""

    max_new_tokens: int | None = None
    """Most tokens of an answer, for every task; empty: the limit of the task or the benchmark."""
    min_length: int | None = None
    """Fewest tokens of an answer, the decoder's start token counted; 0 and 1 demand nothing."""
    repetition_penalty: float | None = None
    """Above 1, tokens that the answer already has become less likely; 1: no penalty; LION's is 1.5. Digits of boxes
    repeat, so that a penalty makes boxes wrong."""
    no_repeat_ngram_size: int | None = None
    """Sequences of so many tokens stand in an answer once; 0: no such rule."""
    length_penalty: float | None = None
    """Exponent of the length that a beam's score is divided by: above 0 long answers gain, below 0 short ones. Only
    with several beams."""
    early_stopping: bool | None = None
    """End a beam search as soon as there are as many whole answers as beams. Only with several beams."""
    do_sample: bool | None = None
    """Draw each token by its probability instead of taking the likeliest. Every row is then answered by itself, so that
    an answer depends on no batch; that is slower."""
    temperature: float | None = None
    """With do_sample: logits are divided by it; below 1 likely tokens become likelier."""
    top_k: int | None = None
    """With do_sample: only so many of the likeliest tokens are drawn from; 0: all."""
    top_p: float | None = None
    """With do_sample: only the likeliest tokens that together have this probability are drawn from; 1: all."""
    seed: int | None = None
    """With do_sample: what the draws follow from, together with the row's id; empty: 0."""

    def check(self, beams: int | None) -> None:
        """Refuse values that no model can decode with.

        Args:
            beams: width of the beam search; None: the model's own.

        Raises:
            UserError: a value is out of its range, or has no effect beside the others.
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
            self._refuse((*_OF_SAMPLING, "seed"), "nothing is drawn: add inference.decoding.do_sample true")
        if beams == 1:
            self._refuse(_OF_BEAMS, "there is one beam: raise inference.beams")

    def _refuse(self, names: Collection[str], why: str) -> None:
        for name in names:
            if getattr(self, name) is not None:
                raise UserError(f"inference.decoding.{name} has no effect, since {why}, or leave {name} out.")


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
    """The settings that hold for a model in a run.

    Attributes:
        settings: arguments of `generate`; those without effect are left out (of beams with one beam, of sampling
            without it).
        own: further settings of the model's own that `generate` reads from the model.
        max_new_tokens: most tokens of every answer; None: the tasks' limits hold.
        seed: of sampling; None: nothing is drawn.
    """

    settings: Mapping[str, bool | int | float]
    own: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    max_new_tokens: int | None = None
    seed: int | None = None

    def limits(self, tasks: Mapping[str, int]) -> dict[str, int]:
        """Return the most tokens of an answer by task, from the tasks' own limits."""
        return {task: self.max_new_tokens or limit for task, limit in tasks.items()}

    def check(self, limits: Mapping[str, int]) -> None:
        """Refuse a shortest answer that is longer than the longest.

        Args:
            limits: most tokens of an answer, by the tasks that are asked.

        Raises:
            UserError: min_length exceeds a task's limit.
        """
        least = self.settings["min_length"] - 1  # the start token is counted there and not here
        if short := [task for task, limit in limits.items() if limit < least]:
            raise UserError(
                f"min_length {self.settings['min_length']} is more than the {limits[short[0]]} tokens that an answer "
                f"of task {short[0]} may have; lower inference.decoding.min_length, or raise max_new_tokens."
            )

    def as_dict(self, limits: Mapping[str, int] | None = None) -> dict[str, Any]:
        """Return plain JSON values: all settings, and the most tokens of an answer, by task where limits are given."""
        drawn = {} if self.seed is None else {"seed": self.seed}
        longest = self.max_new_tokens if limits is None else dict(limits)
        return {**self.settings, **drawn, **self.own, "max_new_tokens": longest}


def resolve_decoding(model: str, config: DecodingConfig, beams: int | None) -> Decoding:
    """Merge a run's settings with those of a model's folder; nothing of the model is loaded.

    Args:
        model: a `from_pretrained` folder or its URI; without `generation_config.json` LION's published settings hold.
        config: what the run sets.
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
    without = () if values["num_beams"] > 1 else _OF_BEAMS
    for name in without:
        if getattr(config, name) is not None:
            raise UserError(
                f"inference.decoding.{name} has no effect: {model} decodes with one beam of its own; raise "
                f"inference.beams, or leave {name} out."
            )
    if not values["do_sample"]:
        without = (*without, *_OF_SAMPLING)
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
    """Whether a key of a model's file is a setting that a run cannot change and that changes answers."""
    listed = name in _DEFAULTS or name in _NO_SETTING or name.endswith("_token_id")
    return value is not None and not listed and not name.startswith(("_", "output_", "return_"))


def box_warning(settings: Mapping[str, Any], tasks: Collection[str]) -> str | None:
    """Return a warning where a penalty on repetition meets tasks whose answers hold boxes, else None.

    Args:
        settings: effective settings, such as `Decoding.settings`.
        tasks: what is asked.
    """
    boxes = [task for task in BOX_TASKS if task in tasks]
    penalties = {"repetition_penalty": 1.0, "no_repeat_ngram_size": 0}
    active = [f"{name} {settings[name]:g}" for name, neutral in penalties.items() if settings[name] != neutral]
    if not boxes or not active:
        return None
    return (
        f"Answers of {' and '.join(boxes)} hold boxes, whose digits repeat, and the model decodes with "
        f"{' and '.join(active)}: boxes come out wrong that the model knows. Set "
        "--inference.decoding.repetition_penalty 1 --inference.decoding.no_repeat_ngram_size 0 to measure without."
    )


def in_words(document: Mapping[str, Any]) -> str:
    """Return effective settings, as `Decoding.as_dict` gives them, in one line."""
    return ", ".join(f"{name} {_value(value)}" for name, value in document.items() if value is not None)


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return " ".join(f"{name}:{_value(item)}" for name, item in value.items())
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
