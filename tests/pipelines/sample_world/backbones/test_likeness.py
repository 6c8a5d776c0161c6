"""The initial weights of the small T5: attention compares words before any training."""

from typing import Any

import torch
from transformers import T5Config, T5ForConditionalGeneration

from pipelines.sample_world.backbones.language import untie_head
from pipelines.sample_world.backbones.likeness import start_by_likeness


def initialized() -> Any:
    """Return a small T5 with the initial weights."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "d_model": 64,
        "d_kv": 16,
        "num_heads": 4,
        "d_ff": 64,
        "num_layers": 1,
        "num_decoder_layers": 1,
    }
    t5 = T5ForConditionalGeneration(T5Config(vocab_size=50, feed_forward_proj="gated-gelu", **sizes))
    untie_head(t5)
    start_by_likeness(t5)
    return t5.eval()


def test_a_vector_attends_to_its_equal_and_copies_it() -> None:
    t5 = initialized()
    words = torch.tensor([[7, 8, 9, 10, 11]])

    with torch.no_grad():
        states = t5.encoder.embed_tokens(words)
        cross = t5.decoder.block[0].layer[1].EncDecAttention
        normed = t5.decoder.block[0].layer[1].layer_norm(states)
        copied = cross(normed[:, 2:3], key_value_states=normed)[0]

    alike = torch.nn.functional.cosine_similarity(copied[0], states[0])
    assert alike.argmax() == 2
    assert alike[2] > 0.9


def test_one_head_attends_to_the_previous_word_and_others_not_to_themselves() -> None:
    bias = initialized().encoder.block[0].layer[0].SelfAttention.compute_bias(5, 5)[0]

    assert bias[0].argmax(-1).tolist()[1:] == [0, 1, 2, 3]
    assert (bias[2].diagonal() < bias[2].max(-1).values).all()


def test_the_output_head_recognizes_every_embedding() -> None:
    t5 = initialized()

    assert ((t5.lm_head.weight @ t5.shared.weight.T).argmax(0) == torch.arange(50)).all()
