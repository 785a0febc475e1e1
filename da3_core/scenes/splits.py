"""Disjoint ranges of seeds, so that training, validation and demonstration never share a world."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

TRAIN = range(0, 1 << 40)
VALIDATION = range(1 << 40, (1 << 40) + (1 << 20))
DEMO = range(1 << 41, (1 << 41) + (1 << 20))
SPLITS: dict[str, range] = {"train": TRAIN, "validation": VALIDATION, "demo": DEMO}


def seeds(split: str, start: int, count: int) -> Tensor:
    """(count,) int64 consecutive seeds of a split, from its `start`-th.

    Raises ValueError when they leave the split's range.
    """
    allowed = SPLITS[split]
    if start < 0 or start + count > len(allowed):
        raise ValueError(f"split {split!r} has {len(allowed)} seeds; [{start}, {start + count}) leaves it: start lower or ask for fewer")
    return torch.arange(allowed.start + start, allowed.start + start + count)


def split_of(worlds: Iterable[int]) -> str:
    """The split that all seeds lie in.

    Raises ValueError when one lies in none, or when they lie in different ones.
    """
    names = {next((name for name, allowed in SPLITS.items() if seed in allowed), None) for seed in worlds}
    if len(names) != 1 or None in names:
        raise ValueError(f"seeds must lie in one split, these lie in {sorted(str(n) for n in names)}: take them from `splits.seeds`")
    return str(names.pop())
