"""A teacher's depth in place of measured depth (paper section 4.2)."""

from __future__ import annotations

import logging
import math
from dataclasses import replace

import torch
from torch import Tensor

from da3_core.geometry.scale_shift import ransac_scale_shift
from da3_core.model import Mono
from da3_core.model.images import normalise_images
from da3_core.scenes.sample import Samples
from da3_core.training.data import Draw
from da3_core.training.objective import autocast, ground_truth, masks_known
from da3_core.training.parallel import keep_outputs_in_float32
from da3_core.types import SKY_THRESHOLD

log = logging.getLogger(__name__)

POINTS = 2000  # at most, of a view, that its scale and shift are found with


class TeacherLabels:
    """Samples whose depth and sky are a teacher's: dense, and sharp at edges.

    aligned: brought to the measured depth by equation 8, per view; else relative, for students that are. from_step: samples stay as they
    are before it. ground_truth: share of scenes that keep the measured depth. The teacher is no part of what is trained.
    """

    def __init__(self, teacher: Mono, bf16: bool, *, aligned: bool, from_step: int = 0, ground_truth: float = 0.0) -> None:
        self.teacher, self.bf16 = teacher.eval().requires_grad_(False), bf16
        self.aligned, self.from_step, self.ground_truth = aligned, from_step, ground_truth
        self.told = False
        if bf16:
            keep_outputs_in_float32(teacher)

    @torch.no_grad()
    def __call__(self, samples: Samples, draw: Draw) -> tuple[Samples, Tensor]:
        if draw.step < self.from_step:
            return ground_truth(samples, draw)
        with autocast(self.bf16, samples.images.device):
            depth, sky = self.teacher.depth_and_sky(normalise_images(samples.images))
        is_sky = sky >= SKY_THRESHOLD
        found = torch.ones_like(depth[..., 0, 0], dtype=torch.bool)
        if self.aligned:
            depth, found = self._aligned(depth, samples)
        keep = (draw.scene_chances[:, 0] < self.ground_truth).to(depth.device)[:, None] | ~found  # (B, N)
        sky_known = masks_known(samples) | ~keep
        keep = keep[..., None, None]
        labelled = replace(
            samples,
            depth_m=torch.where(keep, samples.depth_m, depth),
            valid=torch.where(keep, samples.valid, ~is_sky & (depth > 0)),
            sky=torch.where(keep, samples.sky, is_sky),
        )
        return labelled, sky_known

    def _aligned(self, depth: Tensor, samples: Samples) -> tuple[Tensor, Tensor]:
        """Aligned depth (B, N, H, W), and which views (B, N) could be aligned."""
        views = zip(*(x.flatten(0, 1) for x in (depth, samples.depth_m, samples.valid)), strict=True)
        fits = [self._fit(*view) for view in views]
        s, t = (torch.tensor(x, device=depth.device).unflatten(0, depth.shape[:2])[..., None, None] for x in zip(*fits, strict=True))
        return torch.nan_to_num(s * depth + t), s[..., 0, 0].isfinite()

    def _fit(self, depth: Tensor, measured: Tensor, valid: Tensor) -> tuple[float, float]:
        try:
            s, t = align_view(depth, measured, valid)
        except ValueError as error:
            self._tell(error)
            return torch.nan, torch.nan
        return s.item(), t.item()

    def _tell(self, error: ValueError) -> None:
        if not self.told:
            log.warning("a view keeps its measured depth, as others may: the teacher's cannot be aligned to it (%s)", error)
        self.told = True


def align_view(depth: Tensor, measured: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """(s, t) of equation 8 that bring depth (H, W) to the measured; raises ValueError when too little is valid."""
    rank = valid.flatten().cumsum(0)  # every n-th of the valid pixels, not of all: sparse depth has none to lose
    used = valid.flatten() & (rank % max(1, math.ceil(int(rank[-1]) / POINTS)) == 0)
    return ransac_scale_shift(depth.flatten(), measured.flatten(), used)
