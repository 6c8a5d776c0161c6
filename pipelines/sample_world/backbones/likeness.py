"""Start weights with which attention already looks for what is alike, and copies it.

A T5 of half a million parameters and random weights takes many thousands of steps before any head compares a
question's words with the scene's. Trained attention layers are known to end near "query and key agree, output undoes
value"; starting there (Trockman and Kolter 2023, "Mimetic Initialization of Self-Attention Layers") it compares from
the first step.
"""

from typing import Any, cast

import torch
from torch import Tensor
from transformers import T5ForConditionalGeneration

_LIKENESS = 0.4  # of the product of query and key; with T5's unscaled logits about 10 for a vector and itself
_COPIED = 0.5  # of what is attended to, added to the residual stream
_PREVIOUS = 3.0  # logit by which one head looks at the word before, so that "red circle" becomes one thing to look for
_NOT_ITSELF = -8.0  # what is most alike is oneself, and would leave nothing for others


@torch.no_grad()
def start_by_likeness(t5: T5ForConditionalGeneration) -> None:
    """Set the attention of every layer, the relative positions and the head; draws from torch's global generator.

    Head 0 looks at the word before, head 1 at everything, the others away from their own place.
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
                if attention.has_relative_attention_bias:  # (buckets, heads); bucket 0 is oneself, 1 the one before
                    bias = attention.relative_attention_bias.weight
                    bias.zero_()
                    bias[1, 0], bias[0, 0] = _PREVIOUS, -_PREVIOUS
                    bias[0, 2:] = _NOT_ITSELF
    # Logits are products with the final state, whose length is the root of the width.
    t5.lm_head.weight.copy_(t5.shared.weight * width**-0.5)


def _rotation(width: int) -> Tensor:
    return torch.linalg.qr(torch.randn(width, width))[0]
