"""Gradient checkpointing on and off: the time of a step, and the memory of its activations."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

from models.lion import LionConfig, LionForConditionalGeneration
from pipelines.training.memory import peak_bytes
from tests.benchmarks.figures import Figure, Settings, clock, in_turns, seconds
from tests.benchmarks.training_overhead import InMemory

BATCH = 16


def measure(settings: Settings) -> Iterator[Figure]:
    """Measure stage 3 of LION tiny on a CPU, of LION base on a GPU."""
    torch.set_num_threads(1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    config = LionConfig.preset("base" if device == "cuda" else "tiny")
    models: dict[str, Any] = {kind: LionForConditionalGeneration(config) for kind in ("kept", "again")}
    for model in models.values():
        model.to(device).train()
    models["again"].activation_checkpointing_enable()
    batch = {name: value.to(device) for name, value in InMemory(config, BATCH).batches[0].tensors.items()}

    def loss(kind: str) -> torch.Tensor:
        loss: torch.Tensor = models[kind](**batch).loss
        return loss

    def step(kind: str) -> float:
        models[kind].zero_grad()
        return 1000 * seconds(lambda: loss(kind).backward())

    contenders = {kind: partial(step, kind) for kind in models}
    in_turns(1, contenders)
    turns = in_turns(settings.choose(8, 3), contenders)
    yield Figure("time", "a step with gradient checkpointing", "without", turns["again"], turns["kept"], "ms", clock(),
                 note="recomputed: the forward pass of the trained layers and all layers after them")  # fmt: skip
    peaks = {}
    for kind, model in models.items():
        model.zero_grad(set_to_none=True)
        peaks[kind] = peak_bytes(model, partial(loss, kind)) / 2**20
    yield Figure("memory", "the most that activations take with gradient checkpointing", "without", [peaks["again"]],
                 [peaks["kept"]], "MiB", "memory", goal=2.0)  # fmt: skip
