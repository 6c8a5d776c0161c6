"""How much memory a training takes on each GPU, reckoned before it starts, from shapes alone.

Weights, gradients and optimizer states are counted: numbers of elements, their precision, and what DeepSpeed shards at
the ZeRO stage. Activations are counted, too: one forward and backward pass of the longest samples runs on PyTorch's
meta device, which computes nothing and holds nothing, and the bytes that would live at its peak are added up. Not in
it: the CUDA context, workspaces of kernels, and fragmentation, together about a tenth.
"""

import dataclasses
import logging
import math
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pipelines.core.errors import UserError
from pipelines.core.resources import LaunchConfig
from pipelines.training.config import LoopConfig
from pipelines.training.precision import effective_stage

log = logging.getLogger("lion.training")
GIB = 2**30
# What is left for the CUDA context, workspaces and fragmentation.
_USABLE = 0.9
BUCKET = 500_000_000
"""Elements that DeepSpeed reduces at once, at most: its own default."""
_LIVE = 1_000_000_000
"""Elements of gathered weights that ZeRO 3 keeps at once, at most: its own default."""


class Outlined(Protocol):
    """A task whose memory can be reckoned."""

    def outline(self) -> nn.Module:
        """The model of `build` on the meta device, in the precision that it is trained in: shapes without weights."""

    def longest(self, model: Any, samples: int) -> Tensor:
        """Return the loss of `outline`'s model on as many of the longest samples that there can be."""


@dataclasses.dataclass(frozen=True)
class MemoryEstimate:
    """Bytes of one worker by what they are for.

    Attributes:
        state: what stays on the GPU from step to step.
        activations: the most that lives there besides, within a step.
        host: what offloading puts in CPU memory.
    """

    state: Mapping[str, int]
    activations: int
    host: Mapping[str, int] = dataclasses.field(default_factory=dict)

    @property
    def total(self) -> int:
        """Bytes on the GPU."""
        return sum(self.state.values()) + self.activations

    def __str__(self) -> str:
        parts = [f"{name} {_gib(size)}" for name, size in {**self.state, "activations": self.activations}.items()]
        host = "".join(f"; in CPU memory {name} {_gib(size)}" for name, size in self.host.items())
        return f"{_gib(self.total)} ({', '.join(parts)}{host})"

    def require(self, available: int) -> None:
        """Hold it against a GPU.

        Args:
            available: the GPU's memory in bytes.

        Raises:
            UserError: what is counted for certain does not fit. What only may not fit is a warning.
        """
        state = sum(self.state.values())
        advice = (
            "lower loop.micro_batch_size, raise loop.zero_stage (with more workers), set loop.offload or, for a stage, "
            "gradient_checkpointing"
        )
        if state > available:
            raise UserError(
                f"The training needs {_gib(state)} GiB on each GPU for weights, gradients and optimizer alone, and a "
                f"GPU has {_gib(available)} GiB; {advice}."
            )
        if self.total > _USABLE * available:
            log.warning(
                "the training is reckoned at %s GiB on each GPU, and of its %s GiB about a tenth is needed besides; "
                "it may run out of memory: %s", _gib(self.total), _gib(available), advice,
            )  # fmt: skip


def estimate(task: Outlined, loop: LoopConfig, launch: LaunchConfig) -> MemoryEstimate:
    """Return the memory of each worker of a training, which is logged and held against `launch.gpu_memory`.

    Raises:
        UserError: it cannot fit.
    """
    model = task.outline()
    samples = loop.micro_batch_size or math.ceil(loop.batch_size / launch.fewest)
    state, host = state_bytes(model, loop, launch.fewest)
    found = MemoryEstimate(state, peak_bytes(model, lambda: task.longest(model, samples)), host)
    log.info("memory of each worker, GiB, with %d of the longest samples at once: %s", samples, found)
    if launch.gpu_memory is not None:
        found.require(int(launch.gpu_memory * GIB))
    return found


def state_bytes(model: nn.Module, loop: LoopConfig, workers: int) -> tuple[dict[str, int], dict[str, int]]:
    """What stays: bytes by part, on the GPU and in CPU memory.

    ZeRO shards the optimizer's states and fp32 master weights from stage 1 on, gradients from 2, weights at 3.
    """
    stage = effective_stage(loop)
    state: dict[str, int] = {}
    for parameter in unique(model.parameters()):
        name = f"{'trained' if parameter.requires_grad else 'frozen'} weights in {_short(parameter.dtype)}"
        state[name] = state.get(name, 0) + _share(parameter.nbytes, workers if stage == 3 else 1)
    trained = [parameter for parameter in unique(model.parameters()) if parameter.requires_grad]
    elements = sum(parameter.numel() for parameter in trained)
    gradients = sum(parameter.nbytes for parameter in trained)
    state["gradients"] = _share(gradients, workers if stage >= 2 else 1)
    optimizer = {"AdamW's moments": _share(8 * elements, workers if stage else 1)}
    if stage:
        optimizer["fp32 master weights"] = _share(4 * elements, workers)
        bytes_each = 4 if loop.precision == "fp32" else 2
        state["reduce bucket"] = min(BUCKET, elements) * bytes_each
        if stage == 3:
            every = sum(parameter.numel() for parameter in unique(model.parameters()))
            state["gathered weights"] = min(_LIVE, every) * bytes_each
    if loop.offload:
        return state, optimizer
    return state | optimizer, {}


def peak_bytes(model: nn.Module, loss: Callable[[], Tensor]) -> int:
    """Return the most bytes that live at once in a forward and backward pass besides the model and its gradients."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    # Gradients are counted by themselves: each is dropped as soon as it is whole.
    hooks = [parameter.register_post_accumulate_grad_hook(_drop) for parameter in trained]
    live = _LiveBytes([*model.parameters(), *model.buffers()])
    try:
        with live:
            loss().backward()
    finally:
        for hook in hooks:
            hook.remove()
    return live.peak


def unique(parameters: Iterable[nn.Parameter]) -> list[nn.Parameter]:
    """Return each parameter once, however many modules share it."""
    return list({id(parameter): parameter for parameter in parameters}.values())


class _LiveBytes(TorchDispatchMode):
    """Adds up the storages that operations make, and takes each off when nobody holds it any more."""

    def __init__(self, known: Iterable[Tensor]) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known: weakref.WeakSet[Any] = weakref.WeakSet()
        for tensor in known:
            self._known.add(tensor.untyped_storage())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default and args[0].is_meta:
            return 0  # some check of values, of which there are none
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._hold(leaf.untyped_storage())
        return result

    def _hold(self, storage: Any) -> None:
        if storage in self._known:
            return
        size = storage.nbytes()
        self._known.add(storage)
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._release, size)

    def _release(self, size: int) -> None:
        self.live -= size


def _drop(parameter: Tensor) -> None:
    parameter.grad = None


def _share(size: int, workers: int) -> int:
    return -(-size // workers)


def _short(dtype: torch.dtype) -> str:
    return {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}.get(dtype, str(dtype))


def _gib(size: float) -> str:
    return f"{size / GIB:.3g}"
