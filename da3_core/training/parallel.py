"""How a network is made fast and spread over processes, from outside: it does not know of any of this."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from da3_core.model.dpt import DPT, OutputStack, Resample
from da3_core.model.dual_dpt import DualDPT, RayOutput
from da3_core.model.layers import Block
from da3_core.training.config import RuntimeConfig
from da3_core.training.objective import Objective
from da3_core.training.processes import Processes
from da3_core.training.resampling import resample

HEADS = (DualDPT, DPT)


def parallelise(objective: Objective, runtime: RuntimeConfig, processes: Processes) -> nn.Module:
    """The module to call in place of `objective`, which is changed in place."""
    if runtime.bf16:
        keep_outputs_in_float32(objective)
    if runtime.compile and processes.device.type == "cuda":
        compile_parts(objective)
    if runtime.checkpoint_activations:
        for block in blocks_of(objective):
            replace_forward(block, partial(checkpoint, block.forward, use_reentrant=False))
    if runtime.parallel == "fsdp":
        return _shard(objective, processes)
    if processes.count == 1 or runtime.record:  # which averages by itself
        return objective
    # Steps with and without given cameras use different parameters.
    return DistributedDataParallel(objective, find_unused_parameters=True, gradient_as_bucket_view=True)


def blocks_of(objective: nn.Module) -> list[nn.Module]:
    """The transformer blocks in it."""
    return [m for m in objective.modules() if isinstance(m, Block)]


def keep_outputs_in_float32(objective: nn.Module) -> None:
    """Take the heads' last layers out of autocast: depth is the exponential of what they say, and bfloat16 would round it to 1 %."""
    for module in objective.modules():
        if isinstance(module, (OutputStack, RayOutput)):
            replace_forward(module.out, partial(_in_float32, module.out.forward))


def _in_float32(forward: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    with torch.autocast(x.device.type, enabled=False):
        return forward(x.float())


def compile_parts(objective: Objective) -> None:
    """Compile the backbone's blocks and the heads: much quicker to compile than whole networks, and nearly as fast to run.

    All blocks share what is compiled. Windows come in many sizes, so these become symbols; heads get one graph per image size.
    """
    torch._dynamo.config.cache_size_limit = 256  # image sizes x kinds of block
    torch._dynamo.config.optimize_ddp = False  # it would cut graphs at DDP's buckets, which are larger than these
    for name, module in objective.named_modules():
        if isinstance(module, Block) and "backbone." in name:
            replace_forward(module, torch.compile(module.forward, dynamic=None))
        elif isinstance(module, Resample):
            replace_forward(module, resample)
        elif isinstance(module, HEADS):
            replace_forward(module, partial(_as_one_scene, torch.compile(module.forward, dynamic=False)))


def _as_one_scene(forward: Callable[..., Any], features: Sequence[Tensor], *more: Any, **named: Any) -> Any:
    """A head sees views one by one: (B, N) as (1, B N), which is the same for every view count."""
    views = features[0].shape[:2]
    maps = forward([f.flatten(0, 1).unsqueeze(0) for f in features], *more, **named)
    apart = [m if m is None else m.squeeze(0).unflatten(0, views) for m in maps]
    return maps._make(apart) if hasattr(maps, "_make") else tuple(apart)


def replace_forward(module: nn.Module, forward: Any) -> None:
    """Give one module another forward; names of parameters stay as they are."""
    module.forward = forward


def _shard(objective: Objective, processes: Processes) -> nn.Module:
    if processes.count == 1:
        raise ValueError("runtime.parallel = fsdp shards over several processes: start with torchrun, or use ddp")
    mesh = init_device_mesh(processes.device.type, (processes.count,))
    for block in blocks_of(objective):
        fully_shard(block, mesh=mesh)
    fully_shard(objective, mesh=mesh, reshard_after_forward=True)  # else it keeps the averaged weights that it validated with
    for name in ("validate", "pictures"):
        register_fsdp_forward_method(objective, name)
    return objective


def clip_gradients(objective: nn.Module, largest: float) -> Tensor:
    """Scale the gradients down to this norm; returns the norm that they had."""
    norm = torch.nn.utils.clip_grad_norm_(objective.parameters(), largest)
    return full(norm)


def full(tensor: Tensor) -> Tensor:
    """A sharded tensor made whole, by all processes together; others as they are."""
    whole = getattr(tensor, "full_tensor", None)
    return tensor if whole is None else cast(Tensor, whole())
