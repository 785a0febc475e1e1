"""The processes of one training: alone, or started by torchrun."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist


@dataclass(frozen=True)
class Processes:
    """This process among all."""

    rank: int
    count: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and reports."""
        return self.rank == 0

    def largest(self, *values: float) -> list[float]:
        """The largest of each value over all processes; every process must call it."""
        if self.count == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor, dist.ReduceOp.MAX)
        return list(tensor.tolist())

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """The mean of each value over all processes; every process must call it."""
        if self.count > 1:
            dist.all_reduce(values)
        return values / self.count

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.count > 1:
            dist.barrier()


@contextmanager
def join_processes(device: str) -> Iterator[Processes]:
    """Join the group that torchrun's environment describes (NCCL on GPUs, gloo on CPUs), or be alone without one."""
    cuda = torch.cuda.is_available() if device == "auto" else device == "cuda"
    torch_device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(torch_device)
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.benchmark = True
    if "WORLD_SIZE" not in os.environ:
        yield Processes(0, 1, torch_device)
        return
    dist.init_process_group("nccl" if cuda else "gloo", device_id=torch_device if cuda else None)
    try:
        yield Processes(dist.get_rank(), dist.get_world_size(), torch_device)
    finally:
        dist.destroy_process_group()
