"""What engines differ in: how a part of a network with fixed shapes becomes something to call."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

Program = Callable[..., tuple[Tensor, ...]]  # takes tensors of the host or the device, of the shapes it was built for

logger = logging.getLogger(__name__)


class ProgramError(Exception):
    """A backend cannot build a program, or refuses the one it has; the text says why and what helps."""


class Backend(Protocol):
    """Builds programs."""

    @property
    def name(self) -> str: ...

    def build(self, part: nn.Module, inputs: Sequence[Tensor]) -> Program:
        """A program for inputs like these. What it gives may be gone once any program of the backend has run again. Raises ProgramError."""


class Eager:
    """Calls the part as it is."""

    name = "eager"

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def build(self, part: nn.Module, inputs: Sequence[Tensor]) -> Program:
        """Nothing needs building."""

        def run(*inputs: Tensor) -> tuple[Tensor, ...]:
            outputs: tuple[Tensor, ...] = part(*(x.to(self._device, non_blocking=True) for x in inputs))
            return outputs

        return run


class Programs:
    """Runs parts: with the best backend for the shapes it was prepared for, with the plain one for all others."""

    def __init__(self, backends: Sequence[Backend], plain: Backend, reason: str = "asked for") -> None:
        self._backends = backends
        self.reason = reason  # for the choice of the first backend
        self._plain = plain
        self._programs: dict[tuple[object, ...], Program] = {}
        self.runs: dict[str, str] = {}  # part -> backend, of the prepared ones
        self.refusals: list[str] = []  # what went wrong, for the log and the diagnostics

    def prepare(self, part: nn.Module, *inputs: Tensor) -> None:
        """Builds a fast program for these shapes; a backend that cannot is reported and the next one taken."""
        inputs = tuple(x.contiguous() for x in inputs)  # compiled code has strides built in
        tried = (self._try(backend, part, inputs) for backend in self._backends)
        self._programs[_key(part, inputs)] = next(filter(None, tried), None) or self._plain.build(part, inputs)

    @property
    def description(self) -> str:
        """What runs what, for the log and the diagnostics."""
        fast = ", ".join(f"{part} by {backend}" for part, backend in self.runs.items())
        return "; ".join([self.reason, fast or f"all by {self._plain.name}", *self.refusals])

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


def _key(part: nn.Module, inputs: Sequence[Tensor]) -> tuple[object, ...]:
    return (part, *(tuple(x.shape) for x in inputs))
