"""Two-dimensional rotary position embedding. Tables are float32 and need the size of the grid, no more."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class RotaryTable(NamedTuple):
    cos: Tensor  # (L, head_dim) float32
    sin: Tensor  # (L, head_dim) float32


def table_within_view(grid: tuple[int, int], head_dim: int, base: float, device: torch.device) -> RotaryTable:
    """For 1 + h*w tokens: a patch at row r, column c is at (r + 1, c + 1), the class or camera token at (0, 0)."""
    h, w = grid
    y = torch.arange(1, h + 1, device=device).unsqueeze(1).expand(h, w)
    x = torch.arange(1, w + 1, device=device).expand(h, w)
    return _table(torch.stack([y, x], -1).reshape(h * w, 2), head_dim, base)


def table_across_views(patches: int, views: int, head_dim: int, base: float, device: torch.device) -> RotaryTable:
    """For N * (1 + P) tokens: every patch is at (1, 1), so that rotation only tells camera tokens from patches."""
    one_view = _table(torch.ones(patches, 2, device=device), head_dim, base)
    return RotaryTable(one_view.cos.repeat(views, 1), one_view.sin.repeat(views, 1))


def _table(patch_positions: Tensor, head_dim: int, base: float) -> RotaryTable:
    """Table of one view from its patches' positions (P, 2); the first half of a head turns with y, the second with x."""
    positions = torch.cat([torch.zeros_like(patch_positions[:1]), patch_positions]).float()  # (1 + P, 2)
    half = head_dim // 2
    exponents = torch.arange(0, half, 2, device=positions.device, dtype=torch.float32) / half
    angles = positions.unsqueeze(-1) * base**-exponents  # (1 + P, 2, half / 2)
    angles = angles.repeat(1, 1, 2).flatten(1)
    return RotaryTable(angles.cos(), angles.sin())


def rotate(x: Tensor, table: RotaryTable) -> Tensor:
    """Turn queries or keys (..., L, head_dim) in float32."""
    x1, x2 = x.unflatten(-1, (2, 2, -1)).unbind(-2)  # each (..., L, 2, head_dim / 4)
    turned = torch.stack([-x2, x1], -2).flatten(-3)
    return x * table.cos + turned * table.sin
