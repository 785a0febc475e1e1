"""Functions over the tensors of nested dataclasses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar, cast

from torch import Tensor

T = TypeVar("T")


def map_tensors(function: Callable[..., Tensor], first: T, *others: T) -> T:
    """A structure like `first` whose tensors are function(first's, *others')."""
    return cast(T, _map(function, first, others))


def _map(function: Callable[..., Tensor], first: Any, others: tuple[Any, ...]) -> Any:
    if isinstance(first, Tensor):
        return function(first, *others)
    if not is_dataclass(first) or isinstance(first, type):
        raise TypeError(f"{type(first).__name__} is neither a tensor nor a dataclass of tensors")
    return replace(
        first, **{f.name: _map(function, getattr(first, f.name), tuple(getattr(o, f.name) for o in others)) for f in fields(first)}
    )
