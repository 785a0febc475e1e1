"""A batch whose pictures show its depth, and networks small enough to learn it in a few steps."""

from __future__ import annotations

import dataclasses

import torch

from da3_core.geometry.pinhole import K_from_parameters
from da3_core.geometry.rigid import rigid_from_rt, rotation_from_quaternion
from da3_core.model.presets import AnyViewConfig, BackboneConfig, DPTConfig, MonoConfig
from da3_core.scenes.sample import Samples
from da3_core.training.data import Draw
from da3_core.training.objective import Objective

ALTERNATING = BackboneConfig(32, 4, 2, (0, 1, 2, 3), alt_start=2, qknorm_start=2, rope_start=2, position_grid=2)
PLAIN = BackboneConfig(32, 4, 2, (0, 1, 2, 3), position_grid=2)
HEAD = DPTConfig(8, (4, 8, 8, 8))
ANY_VIEW = AnyViewConfig(ALTERNATING, HEAD, camera_encoder_heads=2, camera_encoder_depth=1)
WITH_GAUSSIANS = AnyViewConfig(ALTERNATING, HEAD, camera_encoder_heads=2, camera_encoder_depth=1, gaussian_head=HEAD)
MONO = MonoConfig(PLAIN, HEAD)
METRIC = MonoConfig(PLAIN, HEAD, metric=True)


def fixed_samples(b: int = 2, n: int = 2, h: int = 28, w: int = 42, seed: int = 0) -> Samples:
    """Smooth depth from 1 to 4 m with sky in the uppermost rows."""
    g = torch.Generator().manual_seed(seed)
    coarse = torch.rand(b * n, 1, 4, 5, generator=g)
    depth = 1 + 3 * torch.nn.functional.interpolate(coarse, (h, w), mode="bilinear").view(b, n, h, w)
    sky = torch.zeros(b, n, h, w, dtype=torch.bool)
    sky[..., :5, :] = True
    images = torch.stack([depth / 4, 1 / depth, sky.float()], 2)
    q = 0.1 * torch.randn(b, n, 4, generator=g) + torch.tensor([0.0, 0, 0, 1])
    f = torch.tensor(float(w))
    return Samples(
        images=images,
        depth_m=torch.where(sky, 0, depth),
        valid=~sky,
        sky=sky,
        object=depth < 2,
        normal_world=torch.zeros_like(images),
        T_world_cam=rigid_from_rt(rotation_from_quaternion(q), torch.randn(b, n, 3, generator=g)),
        K=K_from_parameters(f, f, torch.tensor(w / 2), torch.tensor(h / 2)).expand(b, n, 3, 3).clone(),
        kind=torch.zeros(b, dtype=torch.long),
    )


def fixed_draw(samples: Samples, step: int = 0, chances: tuple[float, float] = (0.9, 0.9), scene_chance: float = 0.9) -> Draw:
    """The draw that the samples could have come from."""
    b, n, _, h, w = samples.images.shape
    return Draw(
        step=step,
        image_size=(h, w),
        n_views=n,
        world_views=n,
        seeds=torch.arange(b),
        chances=chances,
        view_order=torch.arange(n).expand(b, n),
        scene_chances=torch.full((b, 2), scene_chance),
    )


def on_gpu(samples: Samples) -> Samples:
    """The same on the current GPU."""
    return Samples(**{f.name: getattr(samples, f.name).cuda() for f in dataclasses.fields(samples)})


def values_over_steps(objective: Objective, samples: Samples, draw: Draw, steps: int, lr: float, name: str = "loss") -> list[float]:
    """The value `name` of one batch, while the objective is trained on it."""
    optimizer = torch.optim.AdamW([p for p in objective.parameters() if p.requires_grad], lr=lr)
    found = []
    for _ in range(steps):
        values = objective(samples, draw)
        values["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
        found.append(values[name].item())
    return found
