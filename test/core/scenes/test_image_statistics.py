"""Images have the statistics of real ones before any camera effect is put on them."""

import itertools

import pytest
import torch
from torch import Tensor

from da3_core.scenes import Samples, make_samples, seeds

SIZE = (70, 98)
BAND = (1 / 20, 0.35)  # cycles per pixel


@pytest.fixture(scope="module")
def clean() -> Samples:
    return make_samples(seeds("train", 40, 16), 2, SIZE, effects=False)


def spectral_slope(images: Tensor) -> Tensor:
    """(..., H, W) -> (...,) exponent of the power spectrum's fall with frequency, of all directions together."""
    h, w = images.shape[-2:]
    window = torch.hann_window(h)[:, None] * torch.hann_window(w)
    power = torch.fft.fft2((images - images.mean((-2, -1), keepdim=True)) * window).abs().square()
    frequency = torch.hypot(torch.fft.fftfreq(h)[:, None], torch.fft.fftfreq(w))
    edges = torch.logspace(*torch.tensor(BAND).log10().tolist(), 9)
    rings = [(frequency >= low) & (frequency < high) for low, high in itertools.pairwise(edges)]
    level = torch.stack([power[..., ring].mean(-1) for ring in rings], -1).log()
    x = torch.stack([frequency[ring].mean() for ring in rings]).log()
    x = x - x.mean()
    return (level * x).sum(-1) / (x * x).sum()


@pytest.mark.parametrize("exponent", [0.0, -2.0, -3.0])
def test_the_slope_is_that_of_noise_of_known_spectrum(exponent: float) -> None:
    white = torch.fft.fft2(torch.randn(32, *SIZE, generator=torch.Generator().manual_seed(0)))
    frequency = torch.hypot(torch.fft.fftfreq(SIZE[0])[:, None], torch.fft.fftfreq(SIZE[1])).clamp_min(1e-2)
    assert abs(spectral_slope(torch.fft.ifft2(white * frequency ** (exponent / 2)).real).mean() - exponent) < 0.2


def test_power_falls_with_frequency_as_in_natural_images(clean: Samples) -> None:
    """Photographs of nature have -1.9 with a spread of 0.4 (van der Schaaf and van Hateren, 1996); built places are steeper."""
    slopes = spectral_slope(clean.images.mean(2)).flatten()
    assert -2.9 < slopes.mean() < -2.1
    assert ((slopes > -3.6) & (slopes < -1.4)).float().mean() > 0.9


def test_flat_surfaces_have_texture(clean: Samples) -> None:
    """Along a plane, light alone bends an image by less than two percent a pixel."""
    level = clean.images.mean(2).clamp_min(1e-3).log()
    inverse, normal = torch.where(clean.valid, 1 / clean.depth_m.clamp_min(1e-3), 0.0), clean.normal_world
    is_plane = (bend(inverse) < 1e-3 * inverse[..., 1:-1]) & ((normal[..., 2:] * normal[..., :-2]).sum(2) > 0.9999) & clean.valid[..., 1:-1]
    assert is_plane.float().mean() > 0.5
    textured = ((bend(level) > 0.02) & is_plane).flatten(1).sum(1) / is_plane.flatten(1).sum(1)
    assert textured.median() > 0.1


def bend(image: Tensor) -> Tensor:
    """(..., W) -> (..., W - 2) second differences along rows."""
    return (image[..., 2:] - 2 * image[..., 1:-1] + image[..., :-2]).abs()
