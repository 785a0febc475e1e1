"""Programs on a GPU without the host's launches: recorded once as CUDA graphs, replayed from fixed buffers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from da3_core.engines.compiled import fast_attention
from da3_core.engines.programs import Backend, Program, ProgramError

WARM_UP_RUNS = 3


class Recording:
    """A program's kernels as one CUDA graph.

    Inputs of the host go through pinned memory into fixed buffers. An input that lies on the device when recorded (what is kept of the
    views, another recording's output) is read where it lies; a different one is copied there. Outputs are overwritten by the next call.
    """

    def __init__(self, program: Program, inputs: Sequence[Tensor], device: torch.device, pool: Any) -> None:
        self._inputs = [x.to(device) for x in inputs]
        self._pinned = [None if x.is_cuda else torch.empty(x.shape, dtype=x.dtype, pin_memory=True) for x in inputs]
        self._copied = torch.cuda.Event()
        stream = torch.cuda.Stream(device)
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP_RUNS):
                program(*self._inputs)
        torch.cuda.current_stream(device).wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, pool=pool):
            self._outputs = tuple(program(*self._inputs))

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        self._copied.synchronize()  # the pinned buffers may still be read from by the previous call's copies
        for x, pinned, fixed in zip(inputs, self._pinned, self._inputs, strict=True):
            if pinned is not None:
                fixed.copy_(pinned.copy_(x), non_blocking=True)
            elif x.data_ptr() != fixed.data_ptr():
                fixed.copy_(x)
        self._copied.record()
        self._graph.replay()
        return self._outputs


class Recorded:
    """Another backend's programs, recorded."""

    def __init__(self, backend: Backend, device: torch.device) -> None:
        self.name = backend.name
        self._backend, self._device = backend, device
        self._pool = torch.cuda.graph_pool_handle()

    def build(self, part: nn.Module, inputs: Sequence[Tensor]) -> Program:
        """See `Backend`. All recordings of a backend share their scratch memory: one runs at a time."""
        program = self._backend.build(part, inputs)
        flags = torch.backends.cudnn.flags(enabled=True, benchmark=True)
        try:
            with torch.no_grad(), torch.cuda.device(self._device), flags, fast_attention(self._device):
                return Recording(program, inputs, self._device, self._pool)
        except RuntimeError as error:
            raise ProgramError(f"it does not record as a CUDA graph ({error})") from error
