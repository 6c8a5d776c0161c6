"""The rank and device of a worker, and the collectives that the loop needs."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist


@dataclass(frozen=True)
class Context:
    """The worker that this process is.

    Attributes:
        rank: number of this worker, from 0.
        world: number of workers.
        device: the device on which this worker computes.
    """

    rank: int
    world: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this worker writes checkpoints, progress lines and metrics."""
        return self.rank == 0

    @property
    def device_memory(self) -> int:
        """Memory of this worker's GPU in bytes."""
        return int(torch.cuda.get_device_properties(self.device).total_memory)

    @property
    def device_name(self) -> str:
        """Product name of the GPU, or `cpu`."""
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu"

    def sum(self, *values: float | torch.Tensor) -> list[float]:
        """Return each value summed over the workers."""
        total = torch.stack([torch.as_tensor(value, dtype=torch.float64).to(self.device) for value in values])
        if self.world > 1:
            dist.all_reduce(total)
        return total.tolist()

    def sum_named(self, values: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return tensors summed over the workers, by name, on CPU; a worker may lack some of the names."""
        mine = {name: value.detach().cpu() for name, value in values.items()}
        if self.world == 1:
            return mine
        gathered: list[Any] = [None] * self.world
        dist.all_gather_object(gathered, mine)
        total: dict[str, torch.Tensor] = {}
        for part in gathered:
            for name, value in part.items():
                total[name] = total[name] + value if name in total else value
        return dict(sorted(total.items()))

    def barrier(self) -> None:
        """Wait until every worker has called this."""
        if self.world > 1:
            dist.barrier()


def current() -> Context:
    """Return the context of this process, from the process group of Ray Train or torchrun.

    A single process without a launcher gets a process group of one, because DeepSpeed needs a group.
    """
    local_rank = int(os.environ.setdefault("LOCAL_RANK", "0"))  # DeepSpeed requires it
    device = torch.device("cuda", local_rank % torch.cuda.device_count()) if torch.cuda.is_available() else None
    if device is not None:
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        backend = "nccl" if device is not None else "gloo"
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            dist.init_process_group(backend)
        else:
            dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    return Context(dist.get_rank(), dist.get_world_size(), device or torch.device("cpu"))


@contextlib.contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Temporarily set the number of PyTorch's threads, which is 1 in Ray's workers; None leaves it unchanged."""
    before = torch.get_num_threads()
    if count:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
