"""An estimate of a training's memory on each GPU, from shapes alone, before the training starts.

Weights, gradients and optimizer states are counted from their shapes, their precision, and what DeepSpeed shards at the
ZeRO stage. For activations, one forward and backward pass of the longest samples runs on PyTorch's meta device, which
allocates and computes nothing; the storages that live at the peak are added up. The estimate leaves out the CUDA
context, workspaces of kernels, and fragmentation, together about a tenth.
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
# The rest is for the CUDA context, workspaces and fragmentation.
_USABLE = 0.9
BUCKET = 500_000_000
"""Most elements that DeepSpeed reduces in one bucket: DeepSpeed's default."""
_LIVE = 1_000_000_000
"""Most elements of gathered weights that ZeRO 3 keeps at the same time: DeepSpeed's default."""


class Outlined(Protocol):
    """A task whose memory can be estimated."""

    def outline(self) -> nn.Module:
        """Return the model of `build` on the meta device, in the precision of the training: shapes without weights."""

    def longest(self, model: Any, samples: int) -> Tensor:
        """Return the loss of `outline`'s model for `samples` samples of the greatest possible length."""


@dataclasses.dataclass(frozen=True)
class MemoryEstimate:
    """The estimated memory of one worker, in bytes.

    Attributes:
        state: GPU memory that stays from step to step, by part.
        activations: peak of the additional GPU memory within a step.
        host: CPU memory of offloaded state, by part.
    """

    state: Mapping[str, int]
    activations: int
    host: Mapping[str, int] = dataclasses.field(default_factory=dict)

    @property
    def total(self) -> int:
        """GPU memory in bytes."""
        return sum(self.state.values()) + self.activations

    def __str__(self) -> str:
        parts = [f"{name} {_gib(size)}" for name, size in {**self.state, "activations": self.activations}.items()]
        host = "".join(f"; in CPU memory {name} {_gib(size)}" for name, size in self.host.items())
        return f"{_gib(self.total)} ({', '.join(parts)}{host})"

    def require(self, available: int) -> None:
        """Compare the estimate with the memory of a GPU; warn if the training may not fit.

        Args:
            available: the GPU's memory in bytes.

        Raises:
            UserError: the state alone, which is counted exactly, does not fit.
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
                "the training takes an estimated %s GiB of the %s GiB of each GPU, of which other uses take about a "
                "tenth; it may run out of memory: %s", _gib(self.total), _gib(available), advice,
            )  # fmt: skip


def estimate(task: Outlined, loop: LoopConfig, launch: LaunchConfig) -> MemoryEstimate:
    """Return the estimated memory of each worker; log it, and compare it with `launch.gpu_memory` if that is set.

    Raises:
        UserError: the training cannot fit into `launch.gpu_memory`.
    """
    model = task.outline()
    samples = loop.micro_batch_size or math.ceil(loop.batch_size / launch.fewest)
    state, host = state_bytes(model, loop, launch.fewest)
    memory = MemoryEstimate(state, peak_bytes(model, lambda: task.longest(model, samples)), host)
    log.info("estimated memory of each worker, in GiB, with %d of the longest samples: %s", samples, memory)
    if launch.gpu_memory is not None:
        memory.require(int(launch.gpu_memory * GIB))
    return memory


def state_bytes(model: nn.Module, loop: LoopConfig, workers: int) -> tuple[dict[str, int], dict[str, int]]:
    """Return the bytes that stay from step to step, by part: on the GPU, and in CPU memory.

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
    """Return the peak of the bytes of a forward and backward pass, without the model and its gradients."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    # `state_bytes` counts the gradients: each is dropped here as soon as it is complete.
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
    """Return the parameters without duplicates, which are parameters that several modules share."""
    return list({id(parameter): parameter for parameter in parameters}.values())


class _LiveBytes(TorchDispatchMode):
    """The bytes of all storages that operations allocate, until the storage is freed, and their peak.

    Args:
        ignored: tensors whose storages do not count: the model's.
    """

    def __init__(self, ignored: Iterable[Tensor]) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._counted: weakref.WeakSet[Any] = weakref.WeakSet()
        for tensor in ignored:
            self._counted.add(tensor.untyped_storage())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default and args[0].is_meta:
            return 0  # a check of values, which meta tensors do not have
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._hold(leaf.untyped_storage())
        return result

    def _hold(self, storage: Any) -> None:
        if storage in self._counted:
            return
        size = storage.nbytes()
        self._counted.add(storage)
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
