"""Programs on a GPU without the host's launches: recorded once as CUDA graphs, replayed from fixed buffers."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from da3_core.engines.compiled import fast_attention
from da3_core.engines.programs import Backend, Program, ProgramError

WARM_UP_RUNS = 3
ALGORITHMS = 4  # of a convolution that are timed; each costs a start some milliseconds

logger = logging.getLogger(__name__)


class Recording:
    """A program's kernels as one CUDA graph.

    Inputs of the host go through pinned memory into fixed buffers. An input that lies on the device when recorded (what is kept of the
    views, another recording's output) is read where it lies; a different one is copied there. Outputs last until the next recording of the
    backend has run: one that was recorded earlier may have its scratch memory where they lie.
    """

    def __init__(self, program: Program, inputs: Sequence[Tensor], device: torch.device, stream: Any, pool: Any) -> None:
        self._program = program  # holds constants that the graph reads
        self._inputs = [x.to(device) for x in inputs]
        self._pinned = [None if x.is_cuda else torch.empty(x.shape, dtype=x.dtype, pin_memory=True) for x in inputs]
        self._copied = torch.cuda.Event()
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP_RUNS):
                program(*self._inputs)
        torch.cuda.current_stream(device).wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        # Other threads of a robot's process may use the GPU meanwhile.
        with torch.cuda.graph(self._graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
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

    def __init__(self, backend: Backend, device: torch.device, must: bool = True) -> None:
        """must: refuse a program that does not record; otherwise it runs as it is, which the log says."""
        self.name = backend.name
        self._backend, self._device, self._must = backend, device, must
        self._stream, self._pool = torch.cuda.Stream(device), torch.cuda.graph_pool_handle()

    def build(self, part: nn.Module, inputs: Sequence[Tensor]) -> Program:
        """See `Backend`. All recordings of a backend share a stream and their scratch memory: one runs at a time."""
        program = self._backend.build(part, inputs)
        try:
            with torch.no_grad(), torch.cuda.device(self._device), fastest_convolutions(), fast_attention(self._device):
                return Recording(program, inputs, self._device, self._stream, self._pool)
        except Exception as error:  # whatever compiled code and the driver throw
            reason = f"it does not record as a CUDA graph ({type(error).__name__}: {error})"
            if self._must:
                raise ProgramError(reason) from error
            logger.warning("%s, %s: %s", self.name, type(part).__name__, reason)
            return program


@contextlib.contextmanager
def fastest_convolutions() -> Iterator[None]:
    """What runs first in this context times cuDNN's algorithms and keeps the fastest."""
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark, cudnn.benchmark_limit
    cudnn.benchmark, cudnn.benchmark_limit = True, ALGORITHMS
    try:
        yield
    finally:
        cudnn.benchmark, cudnn.benchmark_limit = before
