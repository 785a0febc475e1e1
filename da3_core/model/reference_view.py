"""Which view the others are expressed in, when no cameras are given (chosen in float32: a near tie flips in half precision)."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

Strategy = Literal["saddle_balanced", "saddle_sim_range", "middle", "first"]
ReferenceView = Strategy | int | Tensor

MIN_VIEWS = 3  # with fewer, the strategies take the first view


def choose_reference_view(class_tokens: Tensor, reference_view: ReferenceView) -> Tensor:
    """Index of the reference view (B,) from class tokens (B, N, D).

    `reference_view` is a strategy, an index, or a tensor of indices (B,). Strategies:
    `saddle_balanced` takes the view whose similarity to the others, norm and variance are the least extreme, `saddle_sim_range` the
    one with the widest range of similarities. Raises ValueError on an unknown strategy or an index that is not there.
    """
    b, n, _ = class_tokens.shape
    if isinstance(reference_view, Tensor):
        return reference_view.to(class_tokens.device)
    if isinstance(reference_view, int):
        return class_tokens.new_full((b,), _checked_index(reference_view, n), dtype=torch.long)
    if reference_view not in get_args(Strategy):
        raise ValueError(f"unknown reference view {reference_view!r}: give an index or one of {', '.join(get_args(Strategy))}")
    if n < MIN_VIEWS or reference_view == "first":
        return class_tokens.new_zeros(b, dtype=torch.long)
    if reference_view == "middle":
        return class_tokens.new_full((b,), n // 2, dtype=torch.long)
    strategy = _saddle_balanced if reference_view == "saddle_balanced" else _saddle_sim_range
    return strategy(class_tokens.float())


def _checked_index(index: int, views: int) -> int:
    if not 0 <= index < views:
        raise ValueError(f"reference view {index} does not exist: there are {views} views, counted from 0")
    return index


def _saddle_balanced(tokens: Tensor) -> Tensor:
    n = tokens.shape[1]
    norm = torch.linalg.vector_norm(tokens, dim=-1)  # (B, N)
    unit = tokens / norm.unsqueeze(-1)
    similarity = ((unit * unit.sum(1, keepdim=True)).sum(-1) - 1) / (n - 1)  # mean cosine with the others
    variance = unit.var(-1)
    metrics = torch.stack([similarity, norm, variance], -1)  # (B, N, 3)
    low, high = metrics.amin(1, keepdim=True), metrics.amax(1, keepdim=True)
    balanced = (metrics - low) / (high - low + 1e-8)
    distance: Tensor = (balanced - 0.5).abs().sum(-1)
    return distance.argmin(1)


def _saddle_sim_range(tokens: Tensor) -> Tensor:
    tokens = tokens.double()  # which neither autocast nor TF32 rounds
    n = tokens.shape[1]
    unit = tokens / torch.linalg.vector_norm(tokens, dim=-1, keepdim=True)
    cosines = unit @ unit.mT
    similarity = (cosines + cosines.mT) / 2 * (1 - torch.eye(n, device=tokens.device))
    similarity_range = similarity.amax(-1) - similarity.amin(-1)
    # The two most similar views share their maximum, and mostly the minimum of zero: of equals, the last is taken.
    last: Tensor = n - 1 - similarity_range.flip(1).argmax(1)
    return last
