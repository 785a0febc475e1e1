"""AdamW, Muon, and the learning rate over a training."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from da3_core.training.config import OptimizerConfig, ScheduleConfig

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # quintic whose iteration drives singular values to about 1 (Jordan et al., Muon, 2024)


def orthogonalise(matrices: Tensor, steps: int = 5) -> Tensor:
    """U V^T, roughly, of G = U S V^T for a stack of matrices (M, rows, columns): Newton-Schulz, in bfloat16 on GPUs."""
    a, b, c = NEWTON_SCHULZ
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = (matrices.mT if tall else matrices).to(torch.bfloat16 if matrices.is_cuda else torch.float32)
    x = x / torch.linalg.matrix_norm(x, keepdim=True).clamp(min=1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    flat: Tensor = x.mT if tall else x
    return flat


class Muon(Optimizer):
    """Momentum, orthogonalised, for 2-D parameters; all matrices of one shape go through Newton-Schulz together.

    Updates are scaled by 0.2 sqrt(max(rows, columns)), which gives them AdamW's usual RMS (Liu et al., Muon is scalable, 2025).
    """

    def __init__(self, params: Iterable[nn.Parameter], lr: float, momentum: float = 0.95, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = defaultdict(list)
            for p in group["params"]:
                if p.grad is not None:
                    by_shape[p.shape].append(p)
            for shape, params in by_shape.items():
                self._step_shape(params, shape, group)

    def _step_shape(self, params: list[Tensor], shape: torch.Size, group: dict[str, Any]) -> None:
        gradients = [p.grad for p in params if p.grad is not None]
        buffers = [self.state[p].setdefault("momentum", torch.zeros_like(p)) for p in params]
        torch._foreach_lerp_(buffers, gradients, 1 - group["momentum"])
        nesterov = torch._foreach_lerp(gradients, buffers, group["momentum"])
        updates = orthogonalise(torch.stack(list(nesterov))).to(params[0].dtype)
        torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(params, list(updates.unbind()), alpha=-0.2 * math.sqrt(max(shape)) * group["lr"])


def make_optimizers(network: nn.Module, config: OptimizerConfig) -> list[Optimizer]:
    """The optimizers of `network`'s trainable parameters; each group remembers its peak rate in "peak_lr"."""
    named = [(name, p) for name, p in network.named_parameters() if p.requires_grad]
    muon = [(n, p) for n, p in named if config.name == "muon" and is_hidden_matrix(n, p)]
    taken = {n for n, _ in muon}
    fused = all(p.is_cuda for _, p in named)
    adam = torch.optim.AdamW(
        _groups([(n, p) for n, p in named if n not in taken], config, config.lr),
        betas=(config.beta1, config.beta2),
        fused=fused,
    )
    if not muon:
        return [adam]
    return [adam, Muon(_groups(muon, config, config.muon_lr), lr=config.muon_lr)]  # type: ignore[arg-type]


def is_hidden_matrix(name: str, parameter: Tensor) -> bool:
    """Whether Muon takes it: the matrices of transformer blocks. Embeddings, heads' convolutions and output layers are AdamW's."""
    return parameter.ndim == 2 and min(parameter.shape) >= 32 and ("blocks." in name or "trunk." in name)


def _groups(named: Sequence[tuple[str, nn.Parameter]], config: OptimizerConfig, lr: float) -> list[dict[str, Any]]:
    groups: dict[tuple[float, float], list[nn.Parameter]] = defaultdict(list)
    for name, p in named:
        factor = config.backbone_lr_factor if "backbone." in name else 1.0
        groups[lr * factor, config.weight_decay if p.ndim >= 2 else 0.0].append(p)
    return [{"params": ps, "lr": rate, "peak_lr": rate, "weight_decay": decay} for (rate, decay), ps in groups.items()]


def learning_rate_factor(step: int, progress: float, config: ScheduleConfig) -> float:
    """Share of the peak rate at `step`, `progress` in [0, 1] being the share of the training that is done.

    Warm-up counts steps, so that the time which compiling takes is not taken from it; the decay follows `progress`.
    """
    warmup = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
    done = (progress - config.decay_from) / (1 - config.decay_from) if config.decay_from < 1 else 0.0
    done = min(max(done, 0.0), 1.0)
    decay = {"cosine": 0.5 * (1 + math.cos(math.pi * done)), "linear": 1 - done, "constant": 1.0}[config.decay]
    return warmup * decay


def set_learning_rate(optimizers: Sequence[Optimizer], factor: float) -> None:
    """Every group's rate to `factor` of its peak."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = factor * group["peak_lr"]


class AveragedWeights:
    """Exponential moving average of a network's floating-point parameters and buffers, warming up over the first steps."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.live = {name: t for name, t in network.state_dict().items() if t.is_floating_point()}  # the network's own storage
        self.averaged = {name: t.detach().clone() for name, t in self.live.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Average in the weights that `step` made."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.averaged.values()), list(self.live.values()), 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the average and the network's weights in place; a second call puts both back."""
        kept = {name: t.clone() for name, t in self.live.items()}  # all of them first: some names may share storage
        for name, live in self.live.items():
            live.copy_(self.averaged[name])
            self.averaged[name].copy_(kept[name])
