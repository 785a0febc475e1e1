"""Training for relative depth of single views: the teacher on ground truth, the mono student on its labels (sections 4.1, 4.3)."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from da3_core.model import Mono
from da3_core.model.dpt import OutputStack
from da3_core.model.images import normalise_images
from da3_core.scenes.sample import Samples
from da3_core.training import affine_losses, losses
from da3_core.training.config import LossConfig
from da3_core.training.data import Draw
from da3_core.training.objective import Labels, Objective, Values, autocast, depth_picture, masks_known
from da3_core.training.scores import depth_scores, sky_scores
from da3_core.types import SKY_THRESHOLD


class TeacherTraining(Objective):
    """The network with equation 7. `objects` adds the object mask, an output that serves training only and is not saved with the model."""

    network: Mono

    def __init__(self, network: Mono, config: LossConfig, bf16: bool, labels: Labels, objects: bool) -> None:
        super().__init__()
        self.network, self.config, self.labels = network, config, labels
        self.object_output = OutputStack(network.config.head.features // 2, 1) if objects else None
        self.autocast = partial(autocast, bf16)

    def forward(self, samples: Samples, draw: Draw) -> Values:
        """The losses of a batch; "loss" is their weighted sum."""
        samples, sky_known = self.labels(samples, draw)
        return measure(*self.predict(samples.images), samples, sky_known, self.config)

    def predict(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Depth, sky and objects (B, N, H, W) of images (B, N, 3, H, W) in 0..1."""
        with self.autocast(images.device):
            features = [f.patches for f in self.network.backbone(normalise_images(images)).features]
            size = (images.shape[-2], images.shape[-1])
            grid = self.network.backbone.grid_of(size)
            more = [] if self.object_output is None else [self.object_output]
            depth, sky, *objects = self.network.head(features, grid, size, more)
            return depth, sky, objects[0] if objects else None

    def validate(self, samples: Samples, draw: Draw) -> Values:
        """Depth after alignment and sky, against ground truth."""
        depth, sky, _ = self.predict(samples.images)
        aligned = affine_losses.align_views(depth, unit_depth(samples.depth_m, samples.valid), samples.valid)
        scores = depth_scores(aligned, unit_depth(samples.depth_m, samples.valid), samples.valid)
        return scores | sky_scores(sky, samples.sky, masks_known(samples), SKY_THRESHOLD)

    def pictures(self, samples: Samples, draw: Draw) -> Values:
        """Pictures (3, H, W) in 0..1 of the first view."""
        depth, sky, _ = self.predict(samples.images[:1])
        valid = samples.valid[0, 0]
        return {
            "image": samples.images[0, 0],
            "depth": depth_picture(depth[0, 0], sky[0, 0] < SKY_THRESHOLD),
            "truth": depth_picture(samples.depth_m[0, 0], valid),
        }


def measure(depth: Tensor, sky: Tensor, objects: Tensor | None, samples: Samples, sky_known: Tensor, config: LossConfig) -> Values:
    """Means of the losses (eq. 7) and scores of a batch, whose sky is known in views (B, N)."""
    truth = unit_depth(samples.depth_m, samples.valid)
    aligned = affine_losses.align_views(depth, truth, samples.valid)
    parts = {
        "gradient": losses.gradient_loss(aligned, truth, samples.valid),
        "global_local": affine_losses.global_local_loss(aligned, truth, samples.valid, samples.K),
        "normal": affine_losses.normal_loss(aligned, truth, samples.valid, samples.K),
        "sky": affine_losses.mask_loss(sky, samples.sky, sky_known),
    }
    if objects is not None:
        parts["object"] = affine_losses.mask_loss(objects, samples.object, masks_known(samples))
    weights = {"gradient": config.teacher_gradient}
    total = torch.stack([weights.get(name, 1.0) * value for name, value in parts.items()]).sum(0)
    means = {name: value.mean() for name, value in (parts | {"loss": total}).items()}
    return means | depth_scores(aligned, truth, samples.valid)


def unit_depth(depth_m: Tensor, valid: Tensor) -> Tensor:
    """Depth (B, N, H, W) divided by each view's mean, 1 where not valid: losses do not depend on how large a scene is."""
    depth = torch.where(valid, depth_m, 0)
    mean = depth.sum((-2, -1), keepdim=True) / valid.sum((-2, -1), keepdim=True).clamp(min=1)
    return torch.where(valid, depth / mean.clamp(min=1e-6), 1)
