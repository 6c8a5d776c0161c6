"""A T5 that starts by likeness compares before it has learnt anything."""

from typing import Any

import torch
from transformers import T5Config, T5ForConditionalGeneration

from pipelines.sample_world.backbones.language import untie_head
from pipelines.sample_world.backbones.likeness import start_by_likeness


def started() -> Any:
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


def test_what_is_alike_gets_most_of_the_attention_and_is_copied() -> None:
    t5 = started()
    words = torch.tensor([[7, 8, 9, 10, 11]])

    with torch.no_grad():
        states = t5.encoder.embed_tokens(words)
        cross = t5.decoder.block[0].layer[1].EncDecAttention
        normed = t5.decoder.block[0].layer[1].layer_norm(states)
        copied = cross(normed[:, 2:3], key_value_states=normed)[0]

    alike = torch.nn.functional.cosine_similarity(copied[0], states[0])
    assert alike.argmax() == 2
    assert alike[2] > 0.9


def test_one_head_looks_at_the_word_before_and_others_not_at_themselves() -> None:
    bias = started().encoder.block[0].layer[0].SelfAttention.compute_bias(5, 5)[0]

    assert bias[0].argmax(-1).tolist()[1:] == [0, 1, 2, 3]
    assert (bias[2].diagonal() < bias[2].max(-1).values).all()


def test_the_head_reads_what_the_embedding_wrote() -> None:
    t5 = started()

    assert ((t5.lm_head.weight @ t5.shared.weight.T).argmax(0) == torch.arange(50)).all()
