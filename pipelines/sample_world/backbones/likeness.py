"""Initial weights with which attention already looks for similar vectors and copies them.

A T5 of half a million parameters with random weights needs many thousands of steps before any head compares the words
of a question with those of the scene. In trained attention layers, query and key weights are nearly equal, and the
output weights nearly invert the value weights. With such initial weights (Trockman and Kolter 2023, "Mimetic
Initialization of Self-Attention Layers") attention compares words from the first step.
"""

from typing import Any, cast

import torch
from torch import Tensor
from transformers import T5ForConditionalGeneration

_LIKENESS = 0.4  # scale of the product of query and key; T5's unscaled logit of a vector with itself is then about 10
_COPIED = 0.5  # fraction of the attended vector that is added to the residual stream
_PREVIOUS = 3.0  # logit for the previous word in head 0, so that "red circle" becomes one thing to look for
_NOT_ITSELF = -8.0  # logit for the position itself, which is always most similar and would get all attention


@torch.no_grad()
def start_by_likeness(t5: T5ForConditionalGeneration) -> None:
    """Set the weights of every attention layer, the relative position biases and the output head.

    Head 0 attends to the previous word, head 1 to all positions, the others to all except their own position. The
    rotations are drawn from torch's global generator.
    """
    width = t5.config.d_model
    for stack in (t5.encoder, t5.decoder):
        for block in cast(Any, stack.block):
            for layer in block.layer[:-1]:
                attention = layer.SelfAttention if hasattr(layer, "SelfAttention") else layer.EncDecAttention
                compared, copied = _rotation(width), _rotation(width)
                attention.q.weight.copy_(compared * _LIKENESS**0.5)
                attention.k.weight.copy_(compared * _LIKENESS**0.5)
                attention.v.weight.copy_(copied)
                attention.o.weight.copy_(copied.T * _COPIED)
                if attention.has_relative_attention_bias:
                    # (buckets, heads); bucket 0 is the position itself, bucket 1 the previous one.
                    bias = attention.relative_attention_bias.weight
                    bias.zero_()
                    bias[1, 0], bias[0, 0] = _PREVIOUS, -_PREVIOUS
                    bias[0, 2:] = _NOT_ITSELF
    # Logits are products with the final state, whose norm is the square root of the width.
    t5.lm_head.weight.copy_(t5.shared.weight * width**-0.5)


def _rotation(width: int) -> Tensor:
    """Draw a random orthogonal matrix (width, width)."""
    return torch.linalg.qr(torch.randn(width, width))[0]
