"""The nested network: an any-view network that a metric one gives its scale (paper section 4.3)."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import torch
from torch import Tensor, nn

from da3_core.geometry.rigid import rigid_from_rt
from da3_core.model.da3 import DEPTH_AND_CAMERAS, AnyView, Mono, Want, metres_from_canonical
from da3_core.model.presets import NestedConfig
from da3_core.model.reference_view import ReferenceView
from da3_core.model.sky import FAR_QUANTILE, MIN_PIXELS, quantile
from da3_core.types import SKY_THRESHOLD, Gaussians, Prediction

MIN_DEPTH, MIN_METRES = 1e-3, 1e-2  # below which a pixel says nothing of the scale
SKY_METRES = 200.0  # sky is never put farther than this


class Nested(nn.Module):
    """Both networks see the same images; the result is in metres."""

    def __init__(self, config: NestedConfig) -> None:
        super().__init__()
        self.config = config
        self.any_view = AnyView(config.any_view)
        self.metric = Mono(config.metric)

    def forward(
        self,
        images: Tensor,
        T_cam_world: Tensor | None = None,
        K: Tensor | None = None,
        reference_view: ReferenceView = "saddle_balanced",
        want: Collection[Want] = DEPTH_AND_CAMERAS,
        features: Collection[int] = (),
    ) -> Prediction:
        """As `AnyView`, in metres, with sky. Depth and cameras are always there, since the scale is made from them.

        `scale_factor` (B,) is NaN, and so are depth and cameras, when 10 pixels or fewer are not sky. Rays stay in the any-view
        network's own scale, and so do Gaussians with given cameras.
        """
        relative = self.any_view(images, T_cam_world, K, reference_view, {*want, "depth", "cameras"}, features)
        depth, sky = self.metric.depth_and_sky(images)
        nested = in_metres(relative, depth, sky)
        if T_cam_world is None and relative.gaussians is not None and nested.scale_factor is not None:
            return replace(nested, gaussians=_scaled(relative.gaussians, nested.scale_factor))
        return nested


def in_metres(relative: Prediction, canonical_depth: Tensor, sky: Tensor) -> Prediction:
    """An any-view network's depth, confidence and cameras in metres, by the depth and sky (B, N, H, W) of a metric one for the same views.

    Raises ValueError when any of the three is missing.
    """
    depth, confidence, T_cam_world, K = relative.depth, relative.confidence, relative.T_cam_world, relative.K
    if depth is None or confidence is None or T_cam_world is None or K is None:
        raise ValueError("the scale is made from depth, confidence and cameras: predict all three")
    scale = scale_to_metres(depth, confidence, metres_from_canonical(canonical_depth, K), sky)
    depth, confidence = _with_far_sky(depth * scale[:, None, None, None], confidence, sky)
    T_cam_world = rigid_from_rt(T_cam_world[..., :3, :3], T_cam_world[..., :3, 3] * scale[:, None, None])
    return replace(relative, depth=depth, confidence=confidence, sky=sky, T_cam_world=T_cam_world, is_metric=True, scale_factor=scale)


def scale_to_metres(depth: Tensor, confidence: Tensor, metres: Tensor, sky: Tensor) -> Tensor:
    """(B,): what multiplies depth to give metres, by least squares over the surer half of the pixels that are not sky.

    depth, confidence, metres, sky: (B, N, H, W). NaN where 10 pixels or fewer are not sky.
    """
    solid = sky < SKY_THRESHOLD
    sure = confidence >= quantile(confidence, solid, 0.5)
    weight = (solid & sure & (depth > MIN_DEPTH) & (metres > MIN_METRES)).to(depth.dtype)
    scale = (weight * metres * depth).sum((1, 2, 3)) / (weight * depth * depth).sum((1, 2, 3))
    return torch.where(solid.sum((1, 2, 3)) > MIN_PIXELS, scale, torch.nan)


def _with_far_sky(depth_m: Tensor, confidence: Tensor, sky: Tensor) -> tuple[Tensor, Tensor]:
    is_sky = sky >= SKY_THRESHOLD
    far = quantile(depth_m, ~is_sky, FAR_QUANTILE).clamp(max=SKY_METRES)
    return torch.where(is_sky, far, depth_m), torch.where(is_sky, 1.0, confidence)


def _scaled(gaussians: Gaussians, scale: Tensor) -> Gaussians:
    return replace(gaussians, mean=gaussians.mean * scale[:, None, None], scale=gaussians.scale * scale[:, None, None])
