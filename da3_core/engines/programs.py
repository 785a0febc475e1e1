"""What engines differ in: how a part of a network with fixed shapes becomes something to call."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import torch
from torch import Tensor, nn

Program = Callable[..., tuple[Tensor, ...]]  # takes tensors of the host or the device, of the shapes it was built for

logger = logging.getLogger(__name__)


class ProgramError(Exception):
    """A backend cannot build a program, or refuses the one it has; the text says why and what helps."""


class Recorder(Protocol):
    """Makes what is called again and again quicker."""

    def record(self, run: Program, inputs: Sequence[Tensor]) -> Program:
        """What does on inputs of such shapes what `run` does on these; to find out it is run a few times. Raises ProgramError."""

    def unrecorded(self, run: Program) -> Program:
        """`run`, for inputs of the host or the device."""


class Backend(Protocol):
    """Builds programs."""

    @property
    def name(self) -> str: ...

    def build(self, part: nn.Module, inputs: Sequence[Tensor]) -> Program:
        """A program for inputs like these. Raises ProgramError."""


class Eager:
    """Calls the part as it is."""

    name = "eager"

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def build(self, part: Program, inputs: Sequence[Tensor]) -> Program:
        """Nothing needs building."""

        def run(*inputs: Tensor) -> tuple[Tensor, ...]:
            outputs: tuple[Tensor, ...] = part(*(x.to(self._device, non_blocking=True) for x in inputs))
            return outputs

        return run


class SlowToLoad(Backend, Protocol):
    """A backend whose programs take long to load even if they were built before."""

    def is_built(self, part: nn.Module, inputs: Sequence[Tensor]) -> bool: ...


class Programs:
    """Runs parts: with the best backend for the shapes it was prepared for, with the plain one for all others. And sequences of parts."""

    def __init__(
        self,
        backends: Sequence[Backend],
        plain: Backend,
        reason: str = "asked for",
        recorder: Recorder | None = None,
        later: SlowToLoad | None = None,
    ) -> None:
        """recorder: makes sequences quicker where it can, which takes them running a few times. later: one of the backends; what it has
        built runs plainly at first, and is loaded beside that once there has been a result."""
        self._backends = backends
        self.reason = reason  # for the choice of the first backend
        self._plain = plain
        self._recorder = recorder
        self._programs: dict[tuple[object, ...], Program] = {}
        self._later = later
        self._left: list[tuple[nn.Module, tuple[Tensor, ...]]] = []  # to be loaded
        self._loading: Future[dict[tuple[object, ...], Program]] | None = None
        self._has_run = False
        self._sequences: dict[tuple[object, ...], Program | None] = {}  # None: has come once
        self.runs: dict[str, str] = {}  # part -> backend, of the prepared ones
        self.refusals: list[str] = []  # what went wrong, for the log and the diagnostics

    def prepare(self, part: nn.Module, *inputs: Tensor) -> None:
        """Builds a fast program for these shapes; a backend that cannot is reported and the next one taken."""
        inputs = tuple(x.contiguous() for x in inputs)  # compiled code has strides built in
        if self._later is not None and self._later.is_built(part, inputs):
            self._left.append((part, inputs))
            self._programs[_key(part, inputs)] = self._plain.build(part, inputs)
        else:
            self._programs[_key(part, inputs)] = self._best(part, inputs)

    @property
    def description(self) -> str:
        """What runs what, for the log and the diagnostics."""
        fast = ", ".join(f"{part} by {backend}" for part, backend in self.runs.items())
        loading = ["the others are loading"] if self.is_loading else []
        return "; ".join([self.reason, fast or f"all by {self._plain.name}", *loading, *self.refusals])

    @property
    def is_loading(self) -> bool:
        """Whether there are programs that were left for later."""
        return bool(self._left or self._loading)

    def _best(self, part: nn.Module, inputs: Sequence[Tensor]) -> Program:
        tried = (self._try(backend, part, inputs) for backend in self._backends)
        return next(filter(None, tried), None) or self._plain.build(part, inputs)

    def _try(self, backend: Backend, part: nn.Module, inputs: Sequence[Tensor]) -> Program | None:
        name = type(part).__name__
        try:
            program = backend.build(part, inputs)
        except ProgramError as error:
            self.refusals.append(f"{backend.name} cannot run {name}: {error}")
            logger.warning("%s", self.refusals[-1])
            return None
        self.runs[name] = backend.name
        return program

    def __call__(self, part: nn.Module, *inputs: Tensor) -> tuple[Tensor, ...]:
        inputs = tuple(x.contiguous() for x in inputs)
        key = _key(part, inputs)
        if key not in self._programs:
            self._programs[key] = self._plain.build(part, inputs)
        return self._programs[key](*inputs)

    def run(self, sequence: Program, *inputs: Tensor) -> tuple[Tensor, ...]:
        """What `sequence` gives, which runs parts. It changes no more than a second run with the same inputs would, and does whenever
        inputs have such shapes what it does now. The result may be gone once another sequence has run.

        A sequence that comes a second time is recorded, if there is a recorder: windows that are filling never do.
        """
        self._catch_up()
        if self._recorder is None:
            return sequence(*inputs)
        key = _key(sequence, inputs)
        if key not in self._sequences:
            self._sequences[key] = None
            return self._recorder.unrecorded(sequence)(*inputs)
        program = self._sequences[key] or self._recorded(self._recorder, sequence, inputs)
        self._sequences[key] = program
        return program(*inputs)

    def forget(self) -> None:
        """Sequences will do something else from now on."""
        self._sequences.clear()

    def _catch_up(self) -> None:
        """Loads what was left for later in another thread, and takes it over when all of it is there."""
        if self._loading is not None and self._loading.done():
            self._programs |= self._loading.result()
            self._loading = None
            self.forget()
            logger.info("%s", self.description)
        if self._left and self._has_run and self._loading is None:
            left, self._left = self._left, []
            self._loading = ThreadPoolExecutor(1).submit(lambda: {_key(part, inputs): self._best(part, inputs) for part, inputs in left})
        self._has_run = True

    def _recorded(self, recorder: Recorder, sequence: Program, inputs: Sequence[Tensor]) -> Program:
        try:
            return recorder.record(sequence, inputs)
        except ProgramError as error:
            self.refusals.append(f"windows are not recorded as CUDA graphs: {error}")
            logger.warning("%s", self.refusals[-1])
            return recorder.unrecorded(sequence)


def side_by_side(
    device: torch.device, aside: Callable[[], tuple[Tensor, ...]], here: Callable[[], tuple[Tensor, ...]]
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """What two sequences give that do not depend on each other; a GPU runs them at the same time."""
    if device.type != "cuda":
        return aside(), here()
    stream, other = torch.cuda.current_stream(device), torch.cuda.Stream(device)
    other.wait_stream(stream)
    with torch.cuda.stream(other):
        x = aside()
    y = here()
    stream.wait_stream(other)
    return x, y


def _key(part: object, inputs: Sequence[Tensor]) -> tuple[object, ...]:
    return (part, *(tuple(x.shape) for x in inputs))
