"""How fast LION generates and adapts: ``python -m tests.benchmarks.lion_speed [--size base] [--device cpu]``.

Prints a table; nothing here passes or fails. Random weights of the true sizes: speed does not read them.
"""

import argparse
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers.modeling_outputs import BaseModelOutput

from models.lion import LEVELS, LionConfig, LionForConditionalGeneration
from models.lion.adapters import LionAdapter

NEW_TOKENS, BEAMS, VISUAL_AND_TEXT, CALLS = 32, 5, 32 + 257 + 64, 20


def seconds(run: Callable[[], Any], repeats: int, device: str) -> float:
    """Median time of ``run`` after one warm-up: CPU time on a CPU (neighbours disturb it least), else wall time."""
    clock = time.perf_counter if device == "cuda" else time.process_time
    times = []
    for _ in range(repeats + 1):
        start = clock()
        run()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(clock() - start)
    return statistics.median(times[1:])


def generation(size: str, batch: int, repeats: int, device: str, dtype: torch.dtype) -> dict[bool, float]:
    """Seconds by use of the KV cache: beam 5, 32 tokens, from the encoder's states on.

    The ViT and Q-Former, which run once before, are left tiny: they are not what the cache speeds up.
    """
    config = LionConfig.preset(
        size,
        vision_config={"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4},
        qformer_config={"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4},
        visual_input="qformer",
        adapters=LEVELS,
    )
    model = LionForConditionalGeneration(config).eval()
    model.to(device=device, dtype=dtype)
    states = torch.randn(batch, VISUAL_AND_TEXT, config.text_config.d_model, device=device, dtype=dtype)
    mask = torch.ones(states.shape[:2], dtype=torch.long, device=device)
    levels = torch.arange(batch, device=device) % len(LEVELS)

    def run(use_cache: bool) -> None:
        model.generate(
            encoder_outputs=BaseModelOutput(last_hidden_state=states.clone()),
            attention_mask=mask,
            levels=levels,
            num_beams=BEAMS,
            max_new_tokens=NEW_TOKENS,
            min_new_tokens=NEW_TOKENS,
            use_cache=use_cache,
        )

    return {use_cache: seconds(partial(run, use_cache), repeats, device) for use_cache in (True, False)}


def separate_adapters(adapter: LionAdapter, hidden: Tensor, levels: Tensor) -> Tensor:
    """The same sum, one adapter after the other, each with its own two products, as in the released code."""
    total = torch.zeros_like(hidden)
    for level in adapter.levels:
        part = {
            name: getattr(adapter, f"{level}_{name}") for name in ("down_weight", "down_bias", "up_weight", "up_bias")
        }
        inner = functional.relu(functional.linear(hidden, part["down_weight"], part["down_bias"]))
        outer = getattr(adapter, f"{level}_scale") * functional.linear(inner, part["up_weight"], part["up_bias"])
        total = total + getattr(adapter, f"{level}_router")[levels][:, None] * outer
    return total


def adapters(
    config: LionConfig, batch: int, repeats: int, device: str, dtype: torch.dtype
) -> list[tuple[str, float, float]]:
    """Seconds of one layer's adapters, fused and separate: in a training step, and in one decoding step of beam 5."""
    width = config.text_config.d_model
    adapter = LionAdapter(LEVELS, width, config.adapter_bottleneck).to(device, dtype)
    rows = []
    for name, shape, train in (
        ("training step, forward and backward", (batch, VISUAL_AND_TEXT, width), True),
        ("decoding step", (batch * BEAMS, 1, width), False),
    ):
        hidden = torch.randn(shape, device=device, dtype=dtype, requires_grad=train)
        levels = torch.arange(shape[0], device=device) % len(LEVELS)
        if not train:
            adapter._folded = adapter._fold(dtype)  # as generation does, once

        def run(call: Callable[..., Tensor], hidden: Tensor, levels: Tensor, train: bool) -> None:
            with torch.set_grad_enabled(train):
                for _ in range(CALLS):
                    output = call(hidden, levels)
                    if train:
                        output.sum().backward()

        fused = seconds(partial(run, adapter, hidden, levels, train), repeats, device)
        apart = seconds(partial(run, partial(separate_adapters, adapter), hidden, levels, train), repeats, device)
        rows.append((name, fused / CALLS, apart / CALLS))
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="base")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    arguments = parser.parse_args()
    torch.manual_seed(0)
    config, dtype = LionConfig.preset(arguments.size), getattr(torch, arguments.dtype)
    setting = (arguments.batch, arguments.repeats, arguments.device, dtype)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    where = torch.cuda.get_device_name() if arguments.device == "cuda" else f"{torch.get_num_threads()} threads"
    print(
        f"LION {arguments.size}, batch {arguments.batch}, {arguments.dtype}, {arguments.device} ({where}, "
        f"{platform.machine()}), torch {torch.__version__}, commit {commit.stdout.strip() or 'unknown'}"
    )
    print(f"\n| what | {'seconds' if arguments.device == 'cuda' else 'CPU seconds'} | ratio |\n|---|---|---|")
    taken = generation(arguments.size, *setting)
    ratio = taken[False] / taken[True]
    print(f"| {NEW_TOKENS} tokens, beam {BEAMS}, with cache | {taken[True]:.3f} | {ratio:.2f} × faster |")
    print(f"| {NEW_TOKENS} tokens, beam {BEAMS}, without cache | {taken[False]:.3f} | 1 |")
    for name, fused, apart in adapters(config, *setting):
        print(f"| adapters of one layer, fused, {name} | {fused:.6f} | {apart / fused:.2f} × faster |")
        print(f"| adapters of one layer, separate, {name} | {apart:.6f} | 1 |")


if __name__ == "__main__":
    main()
