"""A tiny LION with tokenizers of its own, for tests without any given material."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import BatchFeature, PreTrainedTokenizerBase

from models.lion import LionConfig, LionForConditionalGeneration, LionProcessor
from models.lion.vocabulary import bert_vocabulary, t5_vocabulary

TEXTS = [
    "According to this, you are allowed to use or partially use the following tags: [red square, blue circle].",
    "Please describe the image using a single short sentence.",
    "In the image, can you locate the red square left of the circle and let me know its coordinates?",
    "Answer: [0.440,0.060,0.650,0.367]",
    "what color is the large triangle above the square? green yellow",
]
TAGS = [[("red square", 0.98), ("circle", 0.71), ("large", 0.2)], [("triangle", 0.9)], []]

Build = Callable[..., tuple[LionForConditionalGeneration, LionProcessor]]


@pytest.fixture(autouse=True, scope="package")
def one_thread() -> Iterator[None]:
    """Tiny models run faster on one thread than on several that wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tokenizers() -> tuple[PreTrainedTokenizerBase, PreTrainedTokenizerBase]:
    """T5's and BERT's, small."""
    return t5_vocabulary(TEXTS), bert_vocabulary(TEXTS)


@pytest.fixture
def build(tokenizers: tuple[PreTrainedTokenizerBase, PreTrainedTokenizerBase]) -> Build:
    """Makes a tiny LION with random weights everywhere, also where training starts at zero, and its processor."""

    def make(seed: int = 0, knobs: dict[str, Any] | None = None, **overrides: Any) -> Any:
        torch.manual_seed(seed)
        config = LionConfig.preset("tiny", **overrides)
        model = LionForConditionalGeneration(config)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if ".adapter." in name or "vision_aggregator" in name:
                    parameter.add_(torch.randn_like(parameter) * 0.05)
        return model.eval(), LionProcessor.for_config(config, *tokenizers, **(knobs or {}))

    return make


def feed_forward(model: LionForConditionalGeneration, stack: str, block: int) -> Any:
    """The feed-forward layer of a T5 block, which carries the adapters."""
    return model.get_submodule(f"language_model.{stack}.block.{block}").layer[-1]  # type: ignore[index]


def batch_of(processor: LionProcessor, levels: list[str], answers: bool = True) -> BatchFeature:
    """A batch of up to three samples, each with its own picture, question, tags and answer."""
    count = len(levels)
    colors = ["red", "blue", "green"]
    return processor(
        images=[Image.new("RGB", (60, 40 + i), colors[i]) for i in range(count)],
        text=[TEXTS[1], TEXTS[2], TEXTS[4]][:count],
        tags=TAGS[:count],
        levels=levels,
        answers=["a red square", TEXTS[3], "green"][:count] if answers else None,
    )
