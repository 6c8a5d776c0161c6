"""RAM's model: determinism, the label cache, chunks, tag lists, training, bad input."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from models.alignment import align_weights
from models.ram import RamConfig, RamForImageTagging, asymmetric_loss
from tests.tolerance import ROUNDING

N_TAGS = 11


@pytest.fixture
def model() -> RamForImageTagging:
    torch.manual_seed(0)
    return RamForImageTagging(RamConfig.preset("tiny", n_tags=N_TAGS)).eval()


@pytest.fixture(scope="module")
def pixels() -> Tensor:
    return torch.randn(3, 3, 48, 48, generator=torch.Generator().manual_seed(0))


def test_confidences_are_float32_probabilities_without_gradient(model: RamForImageTagging, pixels: Tensor) -> None:
    confidences = model.confidences(pixels)
    assert confidences.shape == (3, N_TAGS)
    assert confidences.dtype == torch.float32
    assert not confidences.requires_grad
    assert confidences.gt(0).all()
    assert confidences.lt(1).all()
    torch.testing.assert_close(confidences, model(pixels).logits.sigmoid())


def test_confidences_ignore_the_training_mode_and_leave_it(model: RamForImageTagging, pixels: Tensor) -> None:
    expected = model.confidences(pixels)
    model.train()
    assert model.confidences(pixels).equal(expected)
    assert model.training
    assert model.tagging_head.training


def test_the_label_branch_is_computed_once(model: RamForImageTagging, pixels: Tensor) -> None:
    calls: list[int] = []
    model.wordvec_proj.register_forward_hook(lambda *_: calls.append(1))
    for _ in range(3):
        model.confidences(pixels)
    assert len(calls) == 1


def test_the_label_cache_follows_every_change_of_the_weights(model: RamForImageTagging, pixels: Tensor) -> None:
    def fresh() -> Tensor:
        other = RamForImageTagging(RamConfig.preset("tiny", n_tags=N_TAGS)).eval()
        other.load_state_dict(model.state_dict())
        return other.confidences(pixels)

    before = model.confidences(pixels)
    with torch.no_grad():
        model.label_embed.add_(1.0)  # an optimizer's step
    assert not model.confidences(pixels).equal(before)
    assert model.confidences(pixels).equal(fresh())
    model.load_state_dict({name: tensor * 1.5 for name, tensor in model.state_dict().items()})
    assert model.confidences(pixels).equal(fresh())
    model.train()
    model.wordvec_proj.weight.data.mul_(2.0)  # what training engines do behind autograd's back
    model.eval()
    assert model.confidences(pixels).equal(fresh())


def test_the_cache_is_not_used_in_training(model: RamForImageTagging, pixels: Tensor) -> None:
    model.confidences(pixels)
    model(pixels, labels=torch.zeros(3, N_TAGS)).loss.backward()
    assert model.label_embed.grad is not None
    assert model.label_embed.grad.abs().sum() > 0


@pytest.mark.parametrize("tag_chunk", [1, 4, N_TAGS, 100])
def test_chunks_of_tags_do_not_change_the_result(model: RamForImageTagging, pixels: Tensor, tag_chunk: int) -> None:
    torch.testing.assert_close(model.confidences(pixels, tag_chunk), model.confidences(pixels), **ROUNDING)


def test_chunk_below_one_is_refused(model: RamForImageTagging, pixels: Tensor) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        model.confidences(pixels, tag_chunk=0)


def test_an_image_does_not_depend_on_its_batch(model: RamForImageTagging, pixels: Tensor) -> None:
    alone = torch.cat([model.confidences(image[None]) for image in pixels])
    torch.testing.assert_close(alone, model.confidences(pixels), **ROUNDING)


def test_selected_tags_keep_their_confidences(model: RamForImageTagging, pixels: Tensor, tmp_path: Path) -> None:
    expected = model.confidences(pixels)[:, [7, 2]]
    model.select_tags([7, 2])
    torch.testing.assert_close(model.confidences(pixels), expected, **ROUNDING)
    model.save_pretrained(tmp_path)
    loaded = RamForImageTagging.from_pretrained(tmp_path)
    assert loaded.config.n_tags == 2
    torch.testing.assert_close(loaded.confidences(pixels), expected, **ROUNDING)


@pytest.mark.parametrize("shape", [(0, 32), (4, 31), (32,)])
def test_wrong_label_embeddings_are_refused(model: RamForImageTagging, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="at least one tag"):
        model.set_label_embeddings(torch.zeros(shape))


def test_new_label_embeddings_start_at_expected_length_one() -> None:
    model = RamForImageTagging(RamConfig.preset("tiny", n_tags=2000))
    assert model.label_embed.norm(dim=1).mean().item() == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_pixels_that_are_no_numbers_are_refused_by_name(model: RamForImageTagging, pixels: Tensor, bad: float) -> None:
    broken = pixels.clone()
    broken[1, 0, 5, 5] = bad
    with pytest.raises(ValueError, match=r"images \[1\]"):
        model.confidences(broken)


@pytest.mark.parametrize("shape", [(3, 48, 48), (1, 1, 48, 48), (1, 3, 64, 64)])
def test_pixels_of_another_shape_are_refused(model: RamForImageTagging, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"needs \(B, 3, 48, 48\)"):
        model.confidences(torch.zeros(shape))


def test_labels_of_another_length_are_refused(model: RamForImageTagging, pixels: Tensor) -> None:
    with pytest.raises(ValueError, match="shapes must be equal"):
        model(pixels, labels=torch.zeros(3, N_TAGS - 1))


def test_asymmetric_loss_is_the_papers_equation() -> None:
    logits, labels = torch.tensor([[2.0, -1.0, 0.0]]), torch.tensor([[1, 0, 0]])
    p = torch.sigmoid(logits)[0]
    shifted = (p - 0.05).clamp_min(0)
    expected = -p[0].log() - shifted[1] ** 7 * (1 - shifted[1]).log() - shifted[2] ** 7 * (1 - shifted[2]).log()
    torch.testing.assert_close(asymmetric_loss(logits, labels), expected)
    # An absent tag below the clip costs nothing; the batch is averaged.
    assert asymmetric_loss(torch.tensor([[-4.0]]), torch.tensor([[0]])).item() == 0
    torch.testing.assert_close(asymmetric_loss(logits.repeat(5, 1), labels.repeat(5, 1)), expected)


def test_training_learns_a_tag_with_gradient_checkpointing(model: RamForImageTagging) -> None:
    """Train tag 0 for bright and tag 1 for dark images. With gamma_neg 0 both terms of the loss count."""
    model.config.gamma_neg = 0.0
    model.gradient_checkpointing_enable()
    model.train()
    labels = torch.zeros(4, N_TAGS)
    labels[:2, 0], labels[2:, 1] = 1, 1
    pixels = torch.randn(4, 3, 48, 48) * 0.1 + torch.tensor([1.5, 1.0, -1.0, -1.5]).view(4, 1, 1, 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(40):
        model(pixels, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert (model.confidences(pixels)[:, :2] > 0.5).equal(labels[:, :2].bool())


def test_gradient_checkpointing_does_not_change_the_gradients(model: RamForImageTagging, pixels: Tensor) -> None:
    gradients = []
    for enable in (model.gradient_checkpointing_disable, model.gradient_checkpointing_enable):
        enable()
        model.train()
        torch.manual_seed(0)
        model.zero_grad()
        model(pixels, labels=torch.ones(3, N_TAGS)).loss.backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-6, rtol=1e-4)


def test_bf16_stays_near_float32(model: RamForImageTagging, pixels: Tensor) -> None:
    expected = model.confidences(pixels)
    low = model.bfloat16().confidences(pixels)
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, expected, atol=0.03, rtol=0)


@pytest.mark.parametrize("threads", [1, 2])
def test_saving_and_loading_keeps_every_number(
    model: RamForImageTagging, pixels: Tensor, tmp_path: Path, threads: int
) -> None:
    model.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").exists()
    loaded = RamForImageTagging.from_pretrained(tmp_path)
    for name, stored in model.state_dict().items():
        assert loaded.state_dict()[name].equal(stored), name
    before = torch.get_num_threads()
    torch.set_num_threads(threads)  # with AVX-512, two threads show what unaligned weights do, and one does not
    try:
        expected = model.confidences(pixels)
        torch.testing.assert_close(loaded.confidences(pixels), expected, **ROUNDING)
        align_weights(loaded)
        assert loaded.confidences(pixels).equal(expected)
    finally:
        torch.set_num_threads(before)


def test_attention_implementation_reaches_every_part(model: RamForImageTagging, pixels: Tensor) -> None:
    expected = model.confidences(pixels)
    model.set_attn_implementation("eager")
    assert {part.config._attn_implementation for part in (model.swin, model.tagging_head)} == {"eager"}
    torch.testing.assert_close(model.confidences(pixels), expected, **ROUNDING)


def test_impossible_configurations_are_refused() -> None:
    with pytest.raises(ValueError, match="tiny, swin_large"):
        RamConfig.preset("huge")
    with pytest.raises(ValueError, match="at least one tag"):
        RamConfig.preset("tiny", n_tags=0)
    with pytest.raises(ValueError, match="smaller than its window"):
        RamConfig(swin={"image_size": 64, "window_size": 12})
