"""Align weights in memory, so that equal weights give bit-equal outputs whatever file they were loaded from."""

import itertools

import torch
from torch import nn

ALIGNMENT = 64
"""In bytes: a cache line, and the widest vector register of x86. PyTorch allocates CPU memory at multiples of it."""


@torch.no_grad()
def align_weights(model: nn.Module) -> int:
    """Copy each CPU parameter and buffer whose address is not a multiple of `ALIGNMENT`.

    Matrix libraries choose a kernel by the address of its operands, and each kernel adds numbers in its own order.
    Weights of a safetensors file are used inside the memory-mapped file, at any address. So the outputs of a model
    that was saved and loaded differ from the outputs before in the last digit (seen with AVX-512 and two threads).
    After this call the outputs do not depend on where the weights came from.

    Call it after the model is moved to its device: GPU memory is always aligned and is not changed. Tied parameters
    stay tied.

    Args:
        model: changed in place.

    Returns:
        The number of copied bytes. They use memory of this process, while a mapped file is shared between processes.
    """
    copied = 0
    for tensor in itertools.chain(model.parameters(), model.buffers()):
        if tensor.device.type == "cpu" and tensor.numel() and tensor.data_ptr() % ALIGNMENT:
            tensor.data = tensor.data.clone()
            copied += tensor.nbytes
    return copied
