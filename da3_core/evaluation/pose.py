"""Pose accuracy as the paper's section 6.2 has it: RRA, RTA and AUC over all pairs of views.

The protocol is that of PoseDiffusion and VGGT. What it leaves open, or its codes do differently from its words, is done so:

- A pair (i, j), i < j, is compared by its relative pose T_i_j. It does not change with the frame that either side is given in, nor its
  translation's direction with the scale.
- The sign of a relative translation does not count (as in both codes): the translation error lies in [0, 90] degrees.
- Accuracy at a threshold is the share of pairs with an error below it. The thresholds are 1, 2, ... max degrees (as in VGGT's code), and
  AUC, "the integral of the accuracy-threshold curve", is the mean over them.
- The curve is "the smaller of RRA and RTA at each threshold", to the letter of the paper. Both codes instead count the pairs of which
  both errors are below the threshold, which can only be fewer. `curve="joint"` gives that number.
- A pair without a true baseline has no direction: it counts in RRA alone. (The codes score the noise.)
- A pair of which a pose is not finite is as wrong as can be.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from da3_core.geometry.rigid import invert_rigid, matrix_product, rotation_angle

NO_BASELINE = 1e-6  # of the longest true baseline: shorter ones are standing still

Curve = Literal["min", "joint"]


@dataclass(frozen=True)
class PoseErrors:
    """Of every pair of a scene's views."""

    rotation_deg: Tensor  # (P,)
    translation_deg: Tensor  # (P,), NaN where the true baseline is zero


def pose_errors(T_world_cam: Tensor, truth: Tensor) -> PoseErrors:
    """Errors of predicted against true camera-to-world poses (N, 4, 4), each in a frame and a scale of its own; N >= 2.

    Computed in float64. Raises ValueError for a single view, which has no relative pose.
    """
    if len(truth) < 2:
        raise ValueError("relative poses need two views at least")
    i, j = torch.triu_indices(len(truth), len(truth), offset=1, device=truth.device)
    found, true = (matrix_product(invert_rigid(T[i]), T[j]) for T in (T_world_cam.double(), truth.double()))
    is_finite = found.isfinite().flatten(1).all(1)
    rotation = torch.where(is_finite, rotation_angle(matrix_product(found[:, :3, :3].mT, true[:, :3, :3])), torch.pi)
    direction = torch.where(is_finite, _angle_between_lines(found[:, :3, 3], true[:, :3, 3]), torch.pi / 2)
    baseline = true[:, :3, 3].norm(dim=-1)
    translation = torch.where(baseline > NO_BASELINE * baseline.max(), direction, torch.nan)
    return PoseErrors(rotation.rad2deg(), translation.rad2deg())


def _angle_between_lines(a: Tensor, b: Tensor) -> Tensor:
    """[0, pi / 2]; a right angle where one of the vectors is zero."""
    sine = torch.linalg.cross(a, b).norm(dim=-1)
    cosine = (a * b).sum(-1).abs()
    angle = torch.atan2(sine, cosine)
    return torch.where((sine == 0) & (cosine == 0), torch.pi / 2, angle)


def rra(errors: PoseErrors, threshold_deg: float) -> float:
    """Relative rotation accuracy: the share of pairs whose rotation error is below the threshold."""
    return _share_below(errors.rotation_deg, threshold_deg)


def rta(errors: PoseErrors, threshold_deg: float) -> float:
    """Relative translation accuracy: the share of pairs, among those with a baseline, whose translation error is below the threshold."""
    return _share_below(errors.translation_deg, threshold_deg)


def auc(errors: PoseErrors, max_deg: int, curve: Curve = "min") -> float:
    """Area under the accuracy-threshold curve up to `max_deg` degrees, from 0 to 1; see the top of this file. NaN without any baseline."""
    rotation, translation = errors.rotation_deg, errors.translation_deg
    curves = (torch.maximum(rotation, translation),) if curve == "joint" else (rotation, translation)
    accuracy = [torch.tensor([_share_below(e, t) for t in range(1, max_deg + 1)], dtype=torch.float64) for e in curves]
    return float(torch.stack(accuracy).amin(0).mean())


def _share_below(errors: Tensor, threshold: float) -> float:
    """Among the errors that are defined; NaN when none is."""
    return float((errors[~errors.isnan()] < threshold).double().mean())
