"""What a camera does to light: blur, exposure, vignette, noise, tone, compression. Levels differ by world, and slightly by view."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import cast

import torch
from torch import Tensor

from da3_core.scenes.rng import Draws, mix

PATCH = 8


def photograph(radiance: Tensor, seeds: Tensor, compiled: bool = False) -> Tensor:
    """Linear radiance (B, N, 3, H, W) -> images (B, N, 3, H, W) in 0..1 as a camera would have made them; seeds (B,) int64."""
    develop = _compiled() if compiled else _develop
    return develop(radiance, seeds, Draws(seeds, "effects", 256))


def _develop(radiance: Tensor, seeds: Tensor, draws: Draws) -> Tensor:
    n = radiance.shape[1]
    light = blur(radiance.clamp(0.0, 1e3), draws.uniform(1, low=0.2, high=0.6).expand(-1, n) + extra_blur(draws, n))
    light = expose(light, draws, n)
    light = light * vignette(draws, light.shape[-2:])
    light = add_noise(light, seeds, draws)
    return compress(tone(light, draws), _quality(draws, n))


@cache
def _compiled() -> Callable[[Tensor, Tensor, Draws], Tensor]:
    return cast(Callable[[Tensor, Tensor, Draws], Tensor], torch.compile(_develop, dynamic=False))


def expose(radiance: Tensor, draws: Draws, n: int) -> Tensor:
    """The geometric mean to a level near middle grey: by each view's own mean, or one gain for all views; with white balance."""
    own = torch.exp(torch.log(radiance + 1e-3).mean((-3, -2, -1)))  # (B, N)
    metered = torch.where(draws.chance(0.6, 1), own, own.mean(1, keepdim=True))
    level = draws.log_uniform(1, low=0.1, high=0.36) * torch.exp(draws.normal(n, std=0.08))
    balance = torch.exp(draws.normal(1, 3, std=0.06) + draws.normal(n, 3, std=0.01))
    return radiance * (level / metered.clamp_min(1e-4))[..., None, None, None] * balance[..., None, None]


def vignette(draws: Draws, size: tuple[int, ...]) -> Tensor:
    """(B, 1, 1, H, W) darkening towards the corners, up to one half."""
    h, w = size
    y = (torch.arange(h, device=draws.device) + 0.5) / h - 0.5
    x = (torch.arange(w, device=draws.device) + 0.5) / w - 0.5
    squared = 2.0 * (x * x + (y * y)[:, None])
    return 1.0 - draws.uniform(1, 1, 1, 1, high=0.5) * draws.chance(0.5, 1, 1, 1, 1) * squared


def extra_blur(draws: Draws, n: int) -> Tensor:
    """(B, N) pixels of defocus or shake that some worlds and some views have."""
    return draws.uniform(n, high=1.2) * draws.chance(0.15, n) + draws.uniform(1, high=0.8) * draws.chance(0.2, 1)


def blur(image: Tensor, sigma_px: Tensor) -> Tensor:
    """Gaussian, separable, sigma (B, N) up to about two pixels."""
    offsets = torch.arange(-4, 5, device=image.device)
    kernel = torch.exp(-0.5 * (offsets / sigma_px.clamp_min(0.2)[..., None]) ** 2)
    kernel = kernel / kernel.sum(-1, keepdim=True)  # (B, N, 9)
    return _filter(_filter(image, kernel, -1), kernel, -2)


def add_noise(light: Tensor, seeds: Tensor, draws: Draws) -> Tensor:
    """Shot noise that grows with the root of the signal, and read noise."""
    shot = draws.log_uniform(1, 1, 1, 1, low=0.002, high=0.05)
    read = draws.log_uniform(1, 1, 1, 1, low=0.0005, high=0.012)
    return light + torch.sqrt(light.clamp_min(0.0) * shot * shot + read * read) * white_noise(seeds, light.shape)


def white_noise(seeds: Tensor, shape: torch.Size) -> Tensor:
    """(B, ...) of unit variance, nearly normal: the sum of a hash's four bytes."""
    index = torch.arange(math.prod(shape[1:]), device=seeds.device)
    h = mix(mix(seeds ^ 0x5EED)[:, None] + index * 0x1E3779B9)
    total = (h & 0xFF) + ((h >> 8) & 0xFF) + ((h >> 16) & 0xFF) + ((h >> 24) & 0xFF)
    return ((total.float() - 510.0) / 147.8).view(shape)


def tone(light: Tensor, draws: Draws) -> Tensor:
    """A gamma with a shoulder that some cameras have."""
    soft = draws.uniform(1, 1, 1, 1) * draws.chance(0.7, 1, 1, 1, 1)
    shoulder = 1.0 - torch.exp(-1.6 * light.clamp_min(0.0))
    level = torch.lerp(light.clamp(0.0, 1.0), shoulder, soft)
    return level.clamp(1e-5, 1.0) ** (1.0 / draws.uniform(1, 1, 1, 1, low=1.8, high=2.5))


def compress(image: Tensor, step: Tensor) -> Tensor:
    """JPEG-like: 8x8 cosine transform of each channel, quantised more coarsely at high frequencies; step (B, N), 0 for none."""
    *_, h, w = image.shape
    padded = torch.nn.functional.pad(image.flatten(0, 1), (0, -w % PATCH, 0, -h % PATCH), mode="replicate").unflatten(0, image.shape[:2])
    blocks = padded.unflatten(-1, (-1, PATCH)).unflatten(-3, (-1, PATCH))  # (B, N, 3, h/8, 8, w/8, 8)
    basis = _cosines(image.device)
    i = torch.arange(PATCH, device=image.device)
    size = step[:, :, None, None, None, None, None] * (1.0 + 0.6 * (i[:, None, None] + i))
    spectrum = torch.einsum("ui,...iwj,vj->...uwv", basis, blocks, basis)
    quantised = torch.where(size > 1e-4, torch.round(spectrum / size.clamp_min(1e-4)) * size, spectrum)
    back = torch.einsum("ui,...uwv,vj->...iwj", basis, quantised, basis)
    return back.flatten(-2).flatten(-3, -2)[..., :h, :w].clamp(0.0, 1.0)


def _quality(draws: Draws, n: int) -> Tensor:
    return (draws.log_uniform(1, low=0.004, high=0.06) * draws.chance(0.6, 1)).expand(-1, n)


def _filter(image: Tensor, kernel: Tensor, dim: int) -> Tensor:
    reach = kernel.shape[-1] // 2
    pad = (reach, reach, 0, 0) if dim == -1 else (0, 0, reach, reach)
    padded = torch.nn.functional.pad(image.flatten(0, 1), pad, mode="replicate").unflatten(0, image.shape[:2])
    length = image.shape[dim]
    taps = [kernel[..., k, None, None, None] * padded.narrow(dim, k, length) for k in range(kernel.shape[-1])]
    return torch.stack(taps).sum(0)


def _cosines(device: torch.device) -> Tensor:
    """(8 frequencies, 8 samples), orthonormal."""
    k = torch.arange(PATCH, device=device)
    basis = torch.cos(math.pi / PATCH * (k + 0.5) * k[:, None]) * math.sqrt(2.0 / PATCH)
    return torch.where(k[:, None] == 0, basis / math.sqrt(2.0), basis)
