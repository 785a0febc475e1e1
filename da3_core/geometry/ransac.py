"""What every RANSAC here shares: minimal sets, drawn from a seed."""

from __future__ import annotations

import torch
from torch import Tensor


def draw_subsets(n: int, size: int, draws: int, generator: torch.Generator | None = None) -> Tensor:
    """(draws, size) indices below n, on the CPU, without repetition within a row: Floyd's sampling, all rows at once.

    Without a generator (a CPU one) the rows are those of seed 0, so that the same input always gives the same answer.
    Raises ValueError when there are fewer than `size` to draw from.
    """
    if n < size:
        raise ValueError(f"RANSAC needs at least {size} candidates per draw, there are {n}")
    generator = generator or torch.Generator().manual_seed(0)
    chosen = torch.empty(draws, 0, dtype=torch.long)
    for last in range(n - size, n):
        pick = torch.randint(last + 1, (draws, 1), generator=generator)
        taken = (chosen == pick).any(1, keepdim=True)
        chosen = torch.cat([chosen, torch.where(taken, last, pick)], 1)
    return chosen
