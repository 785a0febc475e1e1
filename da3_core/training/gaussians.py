"""Training the Gaussian head (paper section 5): photometric and depth losses on rendered views, everything but the head frozen."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from da3_core.geometry.rigid import invert_rigid, rigid_from_rt
from da3_core.model import AnyView, normalise_cameras
from da3_core.model.camera import relative_cameras
from da3_core.model.images import normalise_images
from da3_core.scenes.sample import Samples
from da3_core.training import affine_losses
from da3_core.training.config import LossConfig
from da3_core.training.data import Draw
from da3_core.training.objective import Labels, Objective, Values, autocast, given
from da3_core.training.scores import median_factor
from da3_core.training.teacher import unit_depth
from da3_core.types import Gaussians

SH_DEGREE = 2
WINDOW = 11  # pixels, of the structural similarity
C1, C2 = 0.01**2, 0.03**2  # Wang et al. 2004

Rasteriser = Callable[[Gaussians, Tensor, Tensor, tuple[int, int]], tuple[Tensor, Tensor]]


class GaussianTraining(Objective):
    """Gaussians from every other view, rendered in all of them.

    Rendered in the network's own scale, to which the true depth of the views that they were made from brings the cameras: `AnyView.forward`
    would bring Gaussians to the given cameras, whose unit is often further from the network's than it corrects.

    Colours are compared by their squared error and structural similarity; the paper's perceptual loss needs a network that is not ours
    to ship. Depth is compared up to scale and shift, in the views that the Gaussians were made from, with the labels' (section 5.1).
    """

    network: AnyView

    def __init__(self, network: AnyView, config: LossConfig, bf16: bool, labels: Labels, rasterise: Rasteriser | None = None) -> None:
        """Raises ValueError when the network has no Gaussian head and when there is no GPU, ImportError when there is no gsplat."""
        super().__init__()
        if network.gaussian_head is None:
            raise ValueError("this network has no Gaussian head: choose da3-giant, or a preset with gaussian_head")
        self.network, self.config, self.labels = network.requires_grad_(False), config, labels
        network.gaussian_head.requires_grad_(True)
        self.autocast = partial(autocast, bf16)
        self.rasterise = rasterise or load_rasteriser()

    def forward(self, samples: Samples, draw: Draw) -> Values:
        """The losses of a batch; "loss" is their weighted sum."""
        samples, _ = self.labels(samples, draw)
        return measure(*self.render(samples), samples, self.config)

    def render(self, samples: Samples) -> tuple[Tensor, Tensor, slice]:
        """Images (B, N, 3, H, W) and depth (B, N, H, W) of all views, and which views the Gaussians were made from."""
        context = slice(0, None, 2)
        T_cam_world = invert_rigid(samples.T_world_cam)
        with self.autocast(samples.images.device):
            gaussians, placed_by = self.gaussians(samples.images[:, context], T_cam_world[:, context], samples.K[:, context])
        T_cam_first, _ = relative_cameras(T_cam_world)
        unit_m = median_factor(placed_by, samples.depth_m[:, context], samples.valid[:, context])
        T_cam_first = rigid_from_rt(T_cam_first[..., :3, :3], T_cam_first[..., :3, 3] / unit_m[:, None, None])
        H, W = samples.images.shape[-2:]
        image, depth = self.rasterise(gaussians, T_cam_first, samples.K, (H, W))
        return image, depth, context

    def gaussians(self, images: Tensor, T_cam_world: Tensor, K: Tensor) -> tuple[Gaussians, Tensor]:
        """Gaussians of posed images (B, N, 3, H, W) in 0..1, and the depth (B, N, H, W) that places them, in the network's own scale."""
        network, images, size = self.network, normalise_images(images), (images.shape[-2], images.shape[-1])
        camera_tokens = network.camera_tokens(normalise_cameras(T_cam_world), K, size)
        views = network.backbone.encode_views(images)
        window = network.backbone.decode_window(views, network.backbone.grid_of(size), camera_tokens)
        prediction = network.read_out(window, size)
        return network.gaussians(window, images, prediction), given(prediction.depth)

    def validate(self, samples: Samples, draw: Draw) -> Values:
        """Peak signal-to-noise ratio of views that the Gaussians were not made from, or of all where there is one."""
        image, _, _ = self.render(samples)
        unseen = slice(1, None, 2) if draw.n_views > 1 else slice(None)
        error = (image - samples.images)[:, unseen].square().flatten(1).mean(1)
        return {f"{draw.n_views}_views/psnr": (-10 * error.clamp(min=1e-10).log10()).mean()}

    def pictures(self, samples: Samples, draw: Draw) -> Values:
        """Pictures (3, H, W) in 0..1 of the first scene's last view."""
        image, _, _ = self.render(samples)
        return {"image": samples.images[0, -1], "rendered": image[0, -1]}


def measure(image: Tensor, depth: Tensor, context: slice, samples: Samples, config: LossConfig) -> Values:
    """Means of the losses of a batch."""
    truth, valid = unit_depth(samples.depth_m, samples.valid)[:, context], samples.valid[:, context]
    aligned = affine_losses.align_views(depth[:, context], truth, valid)
    parts = {
        "colour": (image - samples.images).square().flatten(1).mean(1),
        "structure": 1 - structural_similarity(image, samples.images),
        "depth": affine_losses.global_local_loss(aligned, truth, valid, samples.K[:, context]),
    }
    total = parts["colour"] + config.photometric_ssim * parts["structure"] + config.gaussian_depth * parts["depth"]
    return {name: value.mean() for name, value in (parts | {"loss": total}).items()}


def load_rasteriser() -> Rasteriser:
    """gsplat's rasteriser. Raises ImportError without it, ValueError without a GPU."""
    try:
        from gsplat import rasterization
    except ImportError as error:
        raise ImportError("objective gaussians renders with gsplat: pip install gsplat, on a machine with an NVIDIA GPU") from error
    if not torch.cuda.is_available():
        raise ValueError("objective gaussians renders with gsplat, which needs an NVIDIA GPU: there is none here")
    return partial(_rasterise_with_gsplat, rasterization)


def _rasterise_with_gsplat(
    rasterization: Callable[..., tuple[Tensor, ...]], gaussians: Gaussians, T_cam_world: Tensor, K: Tensor, size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Images (B, N, 3, H, W) in 0..1 and expected depth (B, N, H, W)."""
    H, W = size
    rendered = []
    for b in range(len(T_cam_world)):
        maps, *_ = rasterization(
            means=gaussians.mean[b],
            quats=gaussians.quaternion[b],
            scales=gaussians.scale[b],
            opacities=gaussians.opacity[b],
            colors=gaussians.sh[b].mT,  # (G, 9, 3)
            viewmats=T_cam_world[b],
            Ks=K[b],
            width=W,
            height=H,
            sh_degree=SH_DEGREE,
            render_mode="RGB+ED",
        )
        rendered.append(maps)  # (N, H, W, 4)
    colour, depth = torch.stack(rendered).split((3, 1), -1)
    return colour.movedim(-1, -3), depth.squeeze(-1)


def structural_similarity(a: Tensor, b: Tensor) -> Tensor:
    """Mean SSIM (Wang et al. 2004, 11x11 Gaussian window) of images (B, N, 3, H, W) in 0..1 -> (B,)."""
    x = torch.arange(WINDOW, device=a.device, dtype=a.dtype) - WINDOW // 2
    line = torch.exp(-(x**2) / (2 * 1.5**2))
    kernel = torch.outer(line, line)[None, None] / line.sum() ** 2

    def blur(image: Tensor) -> Tensor:
        return F.conv2d(image, kernel)

    p, q = (i.flatten(0, 2).unsqueeze(1) for i in (a, b))
    mean_p, mean_q = blur(p), blur(q)
    var_p, var_q, cov = blur(p * p) - mean_p**2, blur(q * q) - mean_q**2, blur(p * q) - mean_p * mean_q
    luminance = (2 * mean_p * mean_q + C1) / (mean_p**2 + mean_q**2 + C1)
    structure = (2 * cov + C2) / (var_p + var_q + C2)
    similarity: Tensor = (luminance * structure).unflatten(0, a.shape[:3]).flatten(1).mean(1)
    return similarity
