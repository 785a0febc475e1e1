"""How a part of a network with fixed shapes becomes something to call: what engines differ in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor, nn

Program = Callable[..., tuple[Tensor, ...]]  # takes tensors of the shapes it was built for
Key = tuple[object, ...]  # what runs, and shapes of its inputs


class ProgramError(Exception):
    """A backend cannot build a program, or refuses the one it has; the text says why and what helps."""


@contextmanager
def refused_where(what: str, remedy: str = "", but: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Raises ProgramError "what (the error)remedy" for whatever foreign code throws inside, `but` for such errors and its own kind."""
    try:
        yield
    except Exception as error:
        if isinstance(error, (ProgramError, *but)):
            raise
        raise ProgramError(f"{what} ({type(error).__name__}: {error}){remedy}") from error


class Backend(Protocol):
    """Builds programs."""

    @property
    def name(self) -> str: ...

    def build(self, part: nn.Module, inputs: Sequence[Tensor]) -> Program:
        """A program for inputs like these, on the engine's device. Raises ProgramError."""


class SlowToLoad(Backend, Protocol):
    """A backend whose programs take long to load even if they were built before."""

    def is_built(self, part: nn.Module, inputs: Sequence[Tensor]) -> bool: ...


class Eager:
    """Calls the part as it is, with inputs of the host or the device."""

    name = "eager"

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def build(self, part: Program, inputs: Sequence[Tensor]) -> Program:
        """Nothing needs building."""

        def run(*inputs: Tensor) -> tuple[Tensor, ...]:
            return part(*(x.to(self._device, non_blocking=True) for x in inputs))

        return run


def key_of(runs: object, inputs: Sequence[Tensor]) -> Key:
    """What a program is kept under."""
    return (runs, *(tuple(x.shape) for x in inputs))
