"""Unaligned weights are copied, others are not, and outputs become bit-equal."""

import pytest
import torch
from torch import Tensor, nn

from models.alignment import ALIGNMENT, align_weights

OFFSETS = [4, 8, 16, 20, 52]


def at_offset(values: Tensor, offset: int) -> Tensor:
    """Return a copy of a float32 tensor at an address `offset` bytes after a multiple of `ALIGNMENT`."""
    room = torch.empty(values.numel() + 2 * ALIGNMENT // 4)
    start = (offset - room.data_ptr()) % ALIGNMENT // 4
    copy = room[start : start + values.numel()].view(values.shape).copy_(values)
    assert copy.data_ptr() % ALIGNMENT == offset
    return copy


class Tied(nn.Module):
    """A weight that two layers share, an aligned frozen bias, and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(7, 7), nn.Linear(7, 7, bias=False)
        self.second.weight = self.first.weight
        self.first.bias.requires_grad_(False)
        self.register_buffer("mean", torch.arange(5.0))


@pytest.mark.parametrize("offset", OFFSETS)
def test_unaligned_weights_are_copied_and_the_others_stay_where_they_are(offset: int) -> None:
    model = Tied()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    bias = model.first.bias.data_ptr()
    model.first.weight.data = at_offset(model.first.weight.data, offset)
    model.mean = at_offset(before["mean"], offset)
    assert align_weights(model) == 7 * 7 * 4 + 5 * 4
    assert not any(value.data_ptr() % ALIGNMENT for value in model.state_dict().values())
    assert model.first.bias.data_ptr() == bias
    assert model.second.weight is model.first.weight
    assert [parameter.requires_grad for parameter in model.parameters()] == [True, False]
    for name, value in model.state_dict().items():
        assert value.equal(before[name]), name
    assert align_weights(model) == 0


def test_weights_without_memory_are_left() -> None:
    model = nn.Linear(3, 4, device="meta")
    model.register_buffer("empty", torch.empty(0))
    assert align_weights(model) == 0
    assert model.weight.device.type == "meta"


@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize("threads", [1, 2])
def test_equal_weights_give_equal_outputs_at_any_address(offset: int, threads: int) -> None:
    """Compute one row, as in decoding without beams. Unaligned, only multiples of 16 give equal outputs."""
    torch.manual_seed(0)
    model, hidden, before = nn.Linear(37, 61), torch.randn(1, 37), torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        expected = model(hidden)
        for parameter in model.parameters():
            parameter.data = at_offset(parameter.data, offset)
        align_weights(model)
        assert model(hidden).equal(expected)
    finally:
        torch.set_num_threads(before)
