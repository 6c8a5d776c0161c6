"""Speed of LION's generation and adapters: KV cache, batches, beams, levels, fused adapters.

The weights are random, because they do not change the speed. The ViT and the Q-Former run once before, so they are
tiny.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput

from models.lion import LEVELS, LionConfig, LionForConditionalGeneration
from models.lion.adapters import LionAdapter
from tests.benchmarks.figures import Figure, Settings, clock, in_turns, seconds

BEAMS, VISUAL_AND_TEXT, CALLS, LARGEST = 5, 32 + 257 + 64, 10, 64
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class Generation:
    """A LION that generates answers from given encoder inputs."""

    def __init__(self, size: str) -> None:
        tiny = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
        config = LionConfig.preset(
            size, vision_config=tiny, qformer_config=tiny, visual_input="qformer", adapters=LEVELS
        )
        torch.manual_seed(0)
        self.model = LionForConditionalGeneration(config).eval().to(DEVICE)
        self.width = config.text_config.d_model

    def run(
        self,
        batch: int,
        tokens: int,
        beams: int = BEAMS,
        mixed: bool = True,
        use_cache: bool = True,
        plain: bool = False,
    ) -> float:
        """Generate one batch and return the seconds.

        Args:
            batch: number of answers.
            tokens: number of tokens per answer.
            beams: number of beams.
            mixed: whether every second sample has the other level.
            use_cache: whether keys and values are cached.
            plain: whether to use transformers' cache instead of this project's.
        """
        states = torch.randn(batch, VISUAL_AND_TEXT, self.width, device=DEVICE)
        levels = torch.arange(batch, device=DEVICE) % (len(LEVELS) if mixed else 1)
        cache = {"past_key_values": EncoderDecoderCache(DynamicCache(), DynamicCache())} if plain else {}
        return seconds(
            lambda: self.model.generate(
                encoder_outputs=BaseModelOutput(last_hidden_state=states),
                attention_mask=torch.ones(states.shape[:2], dtype=torch.long, device=DEVICE),
                levels=levels,
                num_beams=beams,
                max_new_tokens=tokens,
                min_new_tokens=tokens,
                use_cache=use_cache,
                **cache,
            )
        )


def separate_adapters(adapter: LionAdapter, hidden: Tensor, levels: Tensor) -> Tensor:
    """Compute the same sum with separate products per adapter, as in the released code."""
    total = torch.zeros_like(hidden)
    for level in adapter.levels:
        part = {
            name: getattr(adapter, f"{level}_{name}") for name in ("down_weight", "down_bias", "up_weight", "up_bias")
        }
        inner = functional.relu(functional.linear(hidden, part["down_weight"], part["down_bias"]))
        outer = getattr(adapter, f"{level}_scale") * functional.linear(inner, part["up_weight"], part["up_bias"])
        total = total + getattr(adapter, f"{level}_router")[levels][:, None] * outer
    return total


def adapters(batch: int, rounds: int) -> Iterator[Figure]:
    """Measure the adapters of one layer of LION base in a training step and in a decoding step with beam 5."""
    config = LionConfig.preset("base")
    width = config.text_config.d_model
    adapter = LionAdapter(LEVELS, width, config.adapter_bottleneck).to(DEVICE)
    for name, what, shape, train in (
        ("adapters_training", "a layer's fused adapters, forward and backward", (batch, VISUAL_AND_TEXT, width), True),
        ("adapters_decoding", "a layer's fused adapters, one decoding step", (batch * BEAMS, 1, width), False),
    ):
        hidden = torch.randn(shape, device=DEVICE, requires_grad=train)
        levels = torch.arange(shape[0], device=DEVICE) % len(LEVELS)
        if not train:
            adapter._folded = adapter._fold(hidden.dtype)  # generation folds once, too

        def run(call: Callable[..., Tensor], hidden: Tensor, levels: Tensor, train: bool) -> float:
            def work() -> None:
                with torch.set_grad_enabled(train):
                    for _ in range(CALLS if train else 10 * CALLS):
                        output = call(hidden, levels)
                        if train:
                            output.sum().backward()

            return 1000 * seconds(work) / (CALLS if train else 10 * CALLS)

        calls: dict[str, Callable[..., Tensor]] = {"fused": adapter, "apart": partial(separate_adapters, adapter)}
        contenders = {kind: partial(run, call, hidden, levels, train) for kind, call in calls.items()}
        in_turns(1, contenders)  # warm-up
        turns = in_turns(rounds, contenders)
        yield Figure(name, what, "separate ones", turns["fused"], turns["apart"], "ms", clock(), goal=1.0)


def measure(settings: Settings) -> Iterator[Figure]:
    """Measure T5-small on a CPU, T5-XL on a GPU."""
    torch.set_num_threads(1)
    model = Generation("xl" if DEVICE == "cuda" else "small")
    rounds, tokens = settings.choose(3, 2), settings.choose(32, 12)
    model.run(2, 2)

    def figure(name: str, what: str, against: str, ours: Any, other: Any, per: tuple[int, int] = (1, 1),
               count: int = rounds, **more: Any) -> Figure:  # fmt: skip
        turns = in_turns(count, {"ours": ours, "other": other})
        mine, others = ([value / share for value in turns[side]] for side, share in zip(turns, per, strict=True))
        return Figure(name, what, against, mine, others, "s/answer", clock(), **more)

    yield figure(
        "cache", f"{tokens} tokens, beam {BEAMS}, with KV cache", "without",
        lambda: model.run(1, tokens), lambda: model.run(1, tokens, use_cache=False), count=settings.choose(2, 1),
        goal=4.0, note="the gain grows with the length of the answers",
    )  # fmt: skip
    few = settings.choose(8, 2)
    yield figure(
        "beam_cache", f"a batch of {few}, beam 5, the encoder's keys staying where they are", "transformers' cache",
        partial(model.run, few, 8), partial(model.run, few, 8, plain=True), per=(few, few), goal=1.2,
    )  # fmt: skip
    large = settings.choose(LARGEST, 8)
    for beams in (1, BEAMS):
        many = large if beams == 1 else large // 4
        yield figure(
            f"batch_beam_{beams}", f"batches of {many}, 8 tokens, beam {beams}", "one answer at a time",
            partial(model.run, many, 8, beams), partial(model.run, 1, 8, beams), per=(many, 1), goal=2.0,
        )  # fmt: skip
    some = settings.choose(16, 4)
    yield figure(
        "mixed_levels", f"a batch of {some}, image and region in turn", f"{some} of image level",
        partial(model.run, some, 8, 1, True), partial(model.run, some, 8, 1, False), per=(some, some), goal=0.98,
    )  # fmt: skip
    yield from adapters(settings.choose(4, 2), rounds + 2)
