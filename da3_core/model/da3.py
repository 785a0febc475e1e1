"""Depth Anything 3: any number of views in; depth, rays and cameras out (paper figure 2).

images -> encode_views -> decode_window -> read_out
             each view      all views        heads
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Literal, get_args

from torch import Tensor, nn

from da3_core.geometry.camera_from_rays import camera_from_rays
from da3_core.geometry.rigid import invert_rigid
from da3_core.model.backbone import Backbone, DecodedWindow
from da3_core.model.camera import CameraDecoder, CameraEncoder, cameras_from_encoding
from da3_core.model.dpt import DPT, Size
from da3_core.model.dual_dpt import DenseMaps, DualDPT
from da3_core.model.gaussians import GaussianDPT, gaussians_from_raw
from da3_core.model.presets import AnyViewConfig, MonoConfig
from da3_core.model.reference_view import ReferenceView
from da3_core.model.sky import fill_sky
from da3_core.types import CANONICAL_FOCAL_PX, Gaussians, Prediction

Want = Literal["depth", "rays", "cameras", "cameras_from_rays", "gaussians"]
DEPTH_AND_CAMERAS: frozenset[Want] = frozenset({"depth", "cameras"})


class AnyView(nn.Module):
    """One transformer, a Dual-DPT head, and a small camera encoder and decoder."""

    def __init__(self, config: AnyViewConfig) -> None:
        super().__init__()
        self.config = config
        backbone, dim = config.backbone, config.backbone.feature_dim
        self.backbone = Backbone(backbone)
        self.camera_encoder = CameraEncoder(
            backbone.embed_dim, config.camera_encoder_heads, config.camera_encoder_depth, backbone.layer_scale_init
        )
        self.camera_decoder = CameraDecoder(dim)
        self.head = DualDPT(dim, config.head)
        self.gaussian_head = GaussianDPT(dim, config.gaussian_head) if config.gaussian_head else None

    def forward(
        self,
        images: Tensor,
        T_cam_world: Tensor | None = None,
        K: Tensor | None = None,
        reference_view: ReferenceView = "saddle_balanced",
        want: Collection[Want] = DEPTH_AND_CAMERAS,
        features: Collection[int] = (),
    ) -> Prediction:
        """Predicts, in the network's own scale, what `want` asks for and nothing else.

        images: (B, N, 3, H, W), normalised, sides multiples of 14. T_cam_world (B, N, 4, 4), see `normalise_cameras`, and K (B, N, 3, 3)
        in pixels of the images are given together or not at all; without them `reference_view` says whose frame the cameras are in.
        `features` asks for the tokens (B, N, 1 + P, D) after these blocks, returned as "block_00" and so on.
        """
        size = (images.shape[-2], images.shape[-1])
        camera_tokens = self.camera_tokens(T_cam_world, K, size)
        views = self.backbone.encode_views(images, keep=features)
        window = self.backbone.decode_window(views, self.backbone.grid_of(size), camera_tokens, reference_view, keep=features)
        if "gaussians" not in want:
            return self.read_out(window, size, want)
        prediction = self.read_out(window, size, {*want, "depth", "cameras"})
        return replace(prediction, gaussians=self.gaussians(window, images, prediction, T_cam_world))

    def gaussians(
        self, window: DecodedWindow, images: Tensor, prediction: Prediction, T_cam_world_given: Tensor | None = None
    ) -> Gaussians:
        """World Gaussians of images (B, N, 3, H, W), placed by what was predicted for them. Raises ValueError without a head."""
        if self.gaussian_head is None:
            raise ValueError("this network has no Gaussian head: da3-giant and da3nested-giant-large have")
        if prediction.depth is None or prediction.T_cam_world is None or prediction.K is None:
            raise ValueError("Gaussians are placed by depth and cameras: predict these too")
        grid = self.backbone.grid_of((images.shape[-2], images.shape[-1]))
        raw = self.gaussian_head([f.patches for f in window.features], images, grid)
        return gaussians_from_raw(raw, prediction.depth, prediction.T_cam_world, prediction.K, T_cam_world_given)

    def camera_tokens(self, T_cam_world: Tensor | None, K: Tensor | None, size: Size) -> Tensor | None:
        """(B, N, D) of given cameras, None of none. Raises ValueError when half of a camera is given."""
        if T_cam_world is None and K is None:
            return None
        if T_cam_world is None or K is None:
            raise ValueError("give T_cam_world and K together: a camera token is made of both")
        tokens: Tensor = self.camera_encoder(T_cam_world, K, size)
        return tokens

    def read_out(self, window: DecodedWindow, size: Size, want: Collection[Want] = DEPTH_AND_CAMERAS) -> Prediction:
        """The heads. Each sees one view at a time: slice the features along the views to read out some of them only.

        "cameras" come from the decoder; "cameras_from_rays" take their place in T_cam_world and K where both are asked for.
        """
        _check(want)
        ask_rays = not {"rays", "cameras_from_rays"}.isdisjoint(want)
        patches = [f.patches for f in window.features]
        dense: DenseMaps = self.head(patches, self.backbone.grid_of(size), size, depth="depth" in want, rays=ask_rays)
        encoding = T_cam_world = K = None
        if "cameras" in want:
            encoding = self.camera_decoder(window.features[-1].camera)
            T_cam_world, K = cameras_from_encoding(encoding, size)
        if "cameras_from_rays" in want and dense.rays is not None and dense.ray_confidence is not None:
            T_world_cam, K = camera_from_rays(dense.rays, dense.ray_confidence, size)
            T_cam_world = invert_rigid(T_world_cam)
        return Prediction(
            depth=dense.depth,
            confidence=dense.confidence,
            rays=dense.rays if "rays" in want else None,
            ray_confidence=dense.ray_confidence if "rays" in want else None,
            camera_encoding=encoding,
            T_cam_world=T_cam_world,
            K=K,
            features=_named(window),
        )


class Mono(nn.Module):
    """The same transformer without cross-view attention, and a DPT head: depth and sky, each view for itself."""

    def __init__(self, config: MonoConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = Backbone(config.backbone)
        self.head = DPT(config.backbone.feature_dim, config.head)

    def forward(self, images: Tensor, features: Collection[int] = ()) -> Prediction:
        """images: (B, N, 3, H, W), normalised, sides multiples of 14. Depth is relative, or canonical: see `metres_from_canonical`.

        Sky pixels are put behind all others, see `fill_sky`.
        """
        size = (images.shape[-2], images.shape[-1])
        grid = self.backbone.grid_of(size)
        views = self.backbone.encode_views(images, keep=features)
        window = self.backbone.decode_window(views, grid, keep=features)
        depth, sky = self.head([f.patches for f in window.features], grid, size)
        return Prediction(depth=fill_sky(depth, sky), sky=sky, features=_named(window))

    def depth_and_sky(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Both (B, N, H, W), as the head has them: the sky's depth is not filled in, views do not touch each other."""
        size = (images.shape[-2], images.shape[-1])
        maps: tuple[Tensor, Tensor] = self.head([f.patches for f in self.backbone(images).features], self.backbone.grid_of(size), size)
        return maps


def metres_from_canonical(depth: Tensor, K: Tensor) -> Tensor:
    """Metres from the depth (..., H, W) of a metric network, which is that of a 300-pixel focal length, and K (..., 3, 3) of its images."""
    f_px = (K[..., 0, 0] + K[..., 1, 1]) / 2
    return depth * (f_px / CANONICAL_FOCAL_PX)[..., None, None]


def _named(window: DecodedWindow) -> dict[str, Tensor]:
    return {f"block_{i:02d}": tokens for i, tokens in window.kept.items()}


def _check(want: Collection[Want]) -> None:
    unknown = set(want) - set(get_args(Want))
    if unknown:
        raise ValueError(f"cannot predict {', '.join(sorted(unknown))}: ask for some of {', '.join(get_args(Want))}")
