"""Metres per network unit from camera centres alone, where a similarity would not be determined."""

from __future__ import annotations

import math

import torch
from torch import Tensor

CENTRE_NOISE = 0.2  # expected error of a given centre, as a share of the smallest baseline that is trusted
RATIO_NOISE = 0.05  # expected error of the logarithm of a predicted baseline


def scale_from_baselines(centres_given: Tensor, centres_predicted: Tensor, min_baseline: float) -> tuple[float, float] | None:
    """(scale, variance of its logarithm): what multiplies predicted units to give those of `centres_given`, both (N, 3).

    The median ratio of the longer pairwise baselines. Unlike a similarity it needs no orientation, so two cameras or a straight
    line are enough, and rotation does not enter. None where no given baseline reaches `min_baseline`: standing still, turning on
    the spot and jitter tell nothing; nor does a network that saw no motion. Waits for the device.
    """
    i, j = torch.triu_indices(len(centres_given), len(centres_given), offset=1, device=centres_given.device)
    given = (centres_given[i] - centres_given[j]).double().norm(dim=-1)
    predicted = (centres_predicted[i] - centres_predicted[j]).double().norm(dim=-1)
    moved = (given >= min_baseline) & (predicted > 0) & predicted.isfinite()
    if not bool(moved.any()):
        return None
    rough_scale = (given[moved] / predicted[moved]).quantile(0.5)
    length = torch.minimum(given, rough_scale * predicted)
    longer = length >= 0.5 * length.nan_to_num().max()
    log_ratio = (given[longer] / predicted[longer]).log()
    centre = log_ratio.quantile(0.5)
    spread = 1.4826 * (log_ratio - centre).abs().quantile(0.5)
    return math.exp(centre), _log_variance(float(spread), min_baseline / float(length[longer].quantile(0.5)), len(centres_given))


def _log_variance(spread: float, gate_over_baseline: float, n: int) -> float:
    """Of the median of n - 1 independent ratios: each has the spread seen, or the one expected where that is larger."""
    expected = 2 * (CENTRE_NOISE * gate_over_baseline) ** 2 + RATIO_NOISE**2
    return 0.5 * math.pi * max(spread**2, expected) / (n - 1)
