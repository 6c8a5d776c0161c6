"""The fused adapters against the plain composition, routed sample by sample."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers.models.instructblip.modeling_instructblip import InstructBlipQFormerMultiHeadAttention

from models.lion.adapters import LionAdapter
from models.lion.configuration import LEVELS
from tests.models.lion.conftest import Build, batch_of, feed_forward


def random_adapter(levels: tuple[str, ...] = LEVELS) -> LionAdapter:
    torch.manual_seed(0)
    adapter = LionAdapter(levels, width=24, bottleneck=5)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return adapter


def separate(adapter: LionAdapter, hidden: Tensor, level: int) -> Tensor:
    """Σ_k G_k ⊙ s_k (U_k relu(D_k h + b) + c), one adapter after the other, one level for all: as released."""
    total = torch.zeros_like(hidden)
    for name in adapter.levels:
        part = {p: getattr(adapter, f"{name}_{p}") for p in ("down_weight", "down_bias", "up_weight", "up_bias")}
        inner = functional.relu(functional.linear(hidden, part["down_weight"], part["down_bias"]))
        outer = getattr(adapter, f"{name}_scale") * functional.linear(inner, part["up_weight"], part["up_bias"])
        total = total + (getattr(adapter, f"{name}_router")[level] * outer if adapter.routed else outer)
    return total


@pytest.mark.parametrize("level", [0, 1])
def test_fused_equals_separate_in_value_and_gradient(level: int) -> None:
    fused, plain = random_adapter(), random_adapter()
    hidden = torch.randn(3, 7, 24, dtype=torch.float64)
    fused.double(), plain.double()
    ours = fused(hidden, torch.full((3,), level))
    theirs = separate(plain, hidden, level)
    torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=1e-12)
    (ours**2).sum().backward()
    (theirs**2).sum().backward()
    for (name, mine), other in zip(fused.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad, atol=1e-9, rtol=1e-9, msg=name)


def test_fused_equals_separate_to_1e_6_in_float32() -> None:
    adapter = random_adapter()
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.mul_(0.2)
    hidden = torch.randn(2, 9, 24)
    for level in (0, 1):
        gap = (adapter(hidden, torch.full((2,), level)) - separate(adapter, hidden, level)).abs().max()
        assert gap < 1e-6


def test_each_sample_takes_the_way_of_its_own_level() -> None:
    adapter = random_adapter()
    hidden = torch.randn(4, 3, 24)
    mixed = adapter(hidden, torch.tensor([1, 0, 0, 1]))
    for row, level in enumerate([1, 0, 0, 1]):
        alone = adapter(hidden[row : row + 1], torch.tensor([level]))
        torch.testing.assert_close(mixed[row : row + 1], alone)


def test_a_single_adapter_serves_both_levels() -> None:
    adapter = random_adapter(("image",))
    hidden = torch.randn(2, 3, 24)
    torch.testing.assert_close(adapter(hidden, None), separate(adapter, hidden, 0))
    assert not any("router" in name for name, _ in adapter.named_parameters())


def test_it_starts_as_the_identity_and_chooses_the_own_adapter() -> None:
    adapter = LionAdapter(LEVELS, width=24, bottleneck=5)
    assert not adapter(torch.randn(2, 3, 24), torch.tensor([0, 1])).any()
    assert adapter.get_parameter("region_router")[:, 0].tolist() == [1, 0]
    assert adapter.get_parameter("image_router")[:, 0].tolist() == [0, 1]


def test_one_level_can_be_frozen_alone() -> None:
    adapter = random_adapter()
    adapter.get_parameter("region_down_weight").requires_grad_(False)
    adapter(torch.randn(2, 3, 24), torch.tensor([0, 1])).sum().backward()
    assert adapter.get_parameter("region_down_weight").grad is None
    gradient = adapter.get_parameter("image_down_weight").grad
    assert gradient is not None
    assert gradient.any()


def test_levels_are_needed_with_a_router() -> None:
    with pytest.raises(ValueError, match="levels"):
        random_adapter()(torch.randn(2, 3, 24), None)


def test_gradient_checkpointing_keeps_levels_and_gradients(build: Build) -> None:
    model, processor = build()
    batch = batch_of(processor, ["image", "region", "image"])
    other = batch_of(processor, ["region", "image", "region"])

    def gradients() -> dict[str, Tensor]:
        model.zero_grad()
        model.train()
        torch.manual_seed(1)
        loss = model(**batch).loss
        # Another forward between: the recomputation must not see its levels.
        with torch.no_grad():
            model(**other)
        loss.backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        elif isinstance(module, InstructBlipQFormerMultiHeadAttention):
            module.attention_dropout = 0.0
    plain = gradients()
    model.gradient_checkpointing_enable()
    repeated = []
    handle = feed_forward(model, "encoder", 0).register_forward_pre_hook(lambda *_: repeated.append(1))
    checkpointed = gradients()
    handle.remove()
    assert len(repeated) == 3  # forward, the other forward, the recomputation
    assert plain.keys() == checkpointed.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(checkpointed[name], gradient, msg=name)
