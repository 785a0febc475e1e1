"""Lights and skies of worlds."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from da3_core.scenes.materials import hsv_to_rgb
from da3_core.scenes.rng import Draws
from da3_core.scenes.vec import xyz
from da3_core.scenes.worlds import Light, Sky

SUN_M = 2000.0


def sun_position(draws: Draws) -> Tensor:
    """(B, 3), 8 to 75 degrees above the horizon."""
    azimuth, height = draws.uniform(high=2 * math.pi), torch.deg2rad(draws.uniform(low=8.0, high=75.0))
    return SUN_M * xyz(torch.cos(azimuth) * torch.cos(height), torch.sin(azimuth) * torch.cos(height), torch.sin(height))


def warm_or_cold(draws: Draws) -> Tensor:
    """(B, 3) the colour of a light of 2700 to 8000 kelvin or so."""
    warmth = draws.uniform(low=-0.5, high=1.0)[:, None]
    return 1.0 + warmth * torch.tensor([0.25, 0.0, -0.4], device=draws.device)


def lamp_and_sun(draws: Draws, lamp: Tensor, lamp_reach_m: Tensor, daylight: Tensor, lamplight: Tensor) -> Light:
    """A lamp at `lamp` (B, 3) and the sun, with strengths (B,); ambient light follows both."""
    colours = torch.stack((warm_or_cold(draws) * lamplight[:, None], warm_or_cold(draws) * daylight[:, None]), 1)
    fill = draws.log_uniform(low=0.1, high=0.6)[:, None] * (0.5 * lamplight + 0.25 * daylight + 0.1)[:, None]
    tone = 1.0 + 0.15 * draws.normal(3).clamp(-2, 2)
    up = fill * tone
    return Light(
        position=torch.stack((lamp, sun_position(draws)), 1), colour=colours,
        reach_m=torch.stack((lamp_reach_m, torch.full_like(lamp_reach_m, 1e6)), 1),
        ambient_up=up, ambient_down=up * draws.uniform(1, low=0.35, high=1.0),
    )  # fmt: skip


def draw_sky(draws: Draws, daylight: Tensor, haze_m: Tensor) -> Sky:
    """From clear to overcast; `daylight` (B,) scales it."""
    blue = hsv_to_rgb(draws.uniform(low=0.53, high=0.63), draws.uniform(low=0.1, high=0.85), draws.uniform(low=0.35, high=1.0)) ** 2.2
    pale = hsv_to_rgb(draws.uniform(low=0.0, high=0.7), draws.uniform(low=0.0, high=0.22), draws.uniform(low=0.6, high=1.0)) ** 2.2
    level = (0.4 + 0.5 * daylight)[:, None]
    grey = draws.uniform(1, low=0.4, high=1.2)
    return Sky(
        zenith=blue * level, horizon=pale * level, cloud=grey * level * torch.ones_like(pale), cover=draws.uniform() * draws.chance(0.8),
        cloud_scale=draws.log_uniform(low=0.4, high=4.0), haze_m=haze_m, is_sky=torch.ones_like(haze_m, dtype=torch.bool),
        seed=draws.integers(1 << 24).int(),
    )  # fmt: skip
