"""Programs on a GPU without the host's launches: recorded once as a CUDA graph, replayed from fixed buffers."""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from da3_core.engines.backend import Program, refused_where
from da3_core.engines.compiled import fast_attention

WARM_UP_RUNS = 3
ALGORITHMS = 4  # of a convolution that are timed; each costs a start some milliseconds
ALIGNMENT = 256  # bytes, of a tensor in a buffer


class Recorder:
    """Records what is called with tensors of fixed shapes. All recordings share a stream and their scratch memory: one runs at a time."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream, self._pool = torch.cuda.Stream(device), torch.cuda.graph_pool_handle()

    def record(self, run: Program, inputs: Sequence[Tensor]) -> Program:
        """See `sequences.Recorder`."""
        with (
            refused_where("the capture failed"),
            torch.no_grad(),
            torch.cuda.device(self._device),
            fastest_convolutions(),
            fast_attention(self._device),
        ):
            return Recording(run, inputs, self._device, self._stream, self._pool)


class Recording:
    """Kernels as one CUDA graph.

    Inputs go into fixed buffers: those of the host through pinned memory in one copy, those of the device where they are wanted. Outputs
    last until the next recording of the recorder has run: one that was recorded earlier may have its scratch memory where they lie.
    """

    def __init__(self, run: Program, inputs: Sequence[Tensor], device: torch.device, stream: torch.cuda.Stream, pool: Any) -> None:
        self._run = run  # holds constants that the graph reads
        self._ends = list(itertools.accumulate(-(-x.nbytes // ALIGNMENT) * ALIGNMENT for x in inputs))
        self._pinned_bytes = torch.empty(self._ends[-1], dtype=torch.uint8, pin_memory=True)
        self._fixed_bytes = torch.empty(self._ends[-1], dtype=torch.uint8, device=device)
        self._pinned, self._fixed = ([*_views(x, self._ends, inputs)] for x in (self._pinned_bytes, self._fixed_bytes))
        self._copied = torch.cuda.Event()
        self._take(inputs)
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP_RUNS):
                run(*self._fixed)
        torch.cuda.current_stream(device).wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        # Other threads of a robot's process may use the GPU meanwhile.
        with torch.cuda.graph(self._graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
            self._outputs = tuple(run(*self._fixed))

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        self._copied.synchronize()  # the pinned buffer may still be read from by the previous call's copy
        self._take(inputs)
        self._graph.replay()
        return self._outputs

    def _take(self, inputs: Sequence[Tensor]) -> None:
        end = 0
        for x, pinned, its_end in zip(inputs, self._pinned, self._ends, strict=True):
            if not x.is_cuda:
                pinned.copy_(x)
                end = its_end
        self._fixed_bytes[:end].copy_(self._pinned_bytes[:end], non_blocking=True)
        self._copied.record(torch.cuda.current_stream(self._fixed_bytes.device))
        for x, fixed in zip(inputs, self._fixed, strict=True):
            if x.is_cuda:
                fixed.copy_(x)


def side_by_side(
    device: torch.device, aside: Callable[[], tuple[Tensor, ...]], here: Callable[[], tuple[Tensor, ...]]
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """What two sequences give that do not depend on each other; a GPU runs them at the same time."""
    if device.type != "cuda":
        return aside(), here()
    stream, other = torch.cuda.current_stream(device), _side_stream(device)
    other.wait_stream(stream)
    with torch.cuda.stream(other):
        x = aside()
    y = here()
    stream.wait_stream(other)
    return x, y


@functools.cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # one for all: cuBLAS keeps working memory for every stream that it has seen


def _views(buffer: Tensor, ends: Sequence[int], like: Sequence[Tensor]) -> Iterator[Tensor]:
    """Tensors like these, one behind the other in a buffer of bytes."""
    for start, x in zip([0, *ends], like, strict=False):
        yield buffer[start : start + x.nbytes].view(x.dtype).view(x.shape)


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
