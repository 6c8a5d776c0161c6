"""Weights at addresses that do not depend on where they came from, so that equal weights give equal outputs."""

import itertools

import torch
from torch import nn

ALIGNMENT = 64
"""Bytes: a cache line, and the widest vector register of x86. PyTorch's own CPU memory starts at multiples of it."""


@torch.no_grad()
def align_weights(model: nn.Module) -> int:
    """Copy each parameter and buffer that lies on a CPU at an address which is no multiple of `ALIGNMENT`.

    Matrix libraries choose their kernels by the address of an operand, too, and another kernel adds in another order.
    Weights of a safetensors file are used where they lie in the mapped file, so that a model that was saved and loaded
    gives outputs that differ in the last digit from those before (seen with AVX-512 and two threads). After this call
    a model computes the same, whether its weights were trained in this process or read from whatever file.

    Call it after the model is on its device: GPU memory is aligned and not touched. Tied parameters stay tied.

    Args:
        model: changed in place.

    Returns:
        The number of bytes that were copied: memory of this process, where a mapped file's is shared with others.
    """
    copied = 0
    for tensor in itertools.chain(model.parameters(), model.buffers()):
        if tensor.device.type == "cpu" and tensor.numel() and tensor.data_ptr() % ALIGNMENT:
            tensor.data = tensor.data.clone()
            copied += tensor.nbytes
    return copied
