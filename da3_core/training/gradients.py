"""Losses and gradients of a batch: as PyTorch computes them, or replayed from a CUDA graph, which spares the host thousands of launches."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import fields, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from da3_core.scenes.sample import Samples
from da3_core.training.config import RuntimeConfig
from da3_core.training.data import Draw
from da3_core.training.objective import Objective, Values
from da3_core.training.parallel import parallelise
from da3_core.training.processes import Processes

WARM_UP_RUNS = 3  # compile, choose kernels, and settle


class Gradients(Protocol):
    """What a step begins with."""

    def __call__(self, samples: Samples, draw: Draw) -> Values:
        """The values of a batch; the gradients of their "loss", averaged over processes, are left in the parameters."""


class PlainGradients:
    """By PyTorch, step by step. `trained` is the objective, or what spreads it over processes."""

    def __init__(self, trained: nn.Module) -> None:
        self.trained = trained

    def __call__(self, samples: Samples, draw: Draw) -> Values:
        """See `Gradients`."""
        self.trained.zero_grad(set_to_none=True)
        values: Values = self.trained(samples, draw)
        values["loss"].backward()
        return {name: value.detach() for name, value in values.items()}


def make_gradients(objective: Objective, runtime: RuntimeConfig, processes: Processes) -> Gradients:
    """As the settings say; `objective` is changed in place. Raises ValueError when steps are to be recorded where they cannot be."""
    trained = parallelise(objective, runtime, processes)
    if not runtime.record:
        return PlainGradients(trained)
    if processes.device.type != "cuda" or runtime.parallel != "ddp":
        raise ValueError("runtime.record needs a GPU and runtime.parallel = ddp: set it to false")
    return RecordedGradients(objective, processes)


class FlatGradients:
    """One tensor that holds the gradients of all parameters, so that it is cleared and averaged at once."""

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self.parameters = parameters
        self.flat = torch.zeros(sum(p.numel() for p in parameters), device=parameters[0].device)
        pieces = self.flat.split([p.numel() for p in parameters])
        self.views = [piece.view_as(p) for piece, p in zip(pieces, parameters, strict=True)]

    def give(self, used: Sequence[bool]) -> None:
        """Parameters that are used get their part, others none: an optimizer leaves those alone."""
        for parameter, view, is_used in zip(self.parameters, self.views, used, strict=True):
            parameter.grad = view if is_used else None


class RecordedGradients:
    """A recording for every shape of batch and every `Objective.variant`."""

    def __init__(self, objective: Objective, processes: Processes) -> None:
        self.objective, self.processes = objective, processes
        self.gradients = FlatGradients([p for p in objective.parameters() if p.requires_grad])
        self.pool = torch.cuda.graph_pool_handle()  # recordings share their scratch memory: one runs at a time
        self.recordings: dict[Hashable, _Recording] = {}

    def __call__(self, samples: Samples, draw: Draw) -> Values:
        """See `Gradients`. Raises ValueError for an objective that cannot be recorded."""
        variant = self.objective.variant(draw)
        if variant is None:
            raise ValueError(f"{type(self.objective).__name__} decides on the host what it does to a batch: set runtime.record = false")
        key = (tuple(samples.images.shape), variant)
        if key not in self.recordings:
            self.recordings[key] = _Recording(self.objective, self.gradients, samples, draw, self.pool)
        values = self.recordings[key](samples, draw)
        self.gradients.flat.copy_(self.processes.mean(self.gradients.flat))
        return values


class _Recording:
    """The kernels of a batch's forward and backward pass, on buffers of its own."""

    def __init__(self, objective: Objective, gradients: FlatGradients, samples: Samples, draw: Draw, pool: Any) -> None:
        self.gradients = gradients
        self.samples = Samples(**{f.name: getattr(samples, f.name).clone() for f in fields(samples)})
        self.draw = replace(draw, scene_chances=draw.scene_chances.to(samples.images.device))
        plain = PlainGradients(objective)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP_RUNS):
                plain(self.samples, self.draw)
        torch.cuda.current_stream().wait_stream(stream)
        self.used = [p.grad is not None for p in gradients.parameters]
        gradients.give(self.used)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, pool=pool, capture_error_mode="thread_local"):
            gradients.flat.zero_()
            values = objective(self.samples, self.draw)
            values["loss"].backward()
            self.values = {name: value.detach() for name, value in values.items()}

    def __call__(self, samples: Samples, draw: Draw) -> dict[str, Tensor]:
        for f in fields(samples):
            getattr(self.samples, f.name).copy_(getattr(samples, f.name))
        self.draw.scene_chances.copy_(draw.scene_chances, non_blocking=True)
        self.graph.replay()
        self.gradients.give(self.used)
        return {name: value.clone() for name, value in self.values.items()}
