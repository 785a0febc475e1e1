"""A camera's image to the network's on a GPU, with the pixels that OpenCV makes on the host, but for single grey levels where it rounds.

Every pixel is a weighted sum of a few of its source, whatever the filter: first of rows, then of columns, or of the four around a point.
Which ones, and how much of each, is worked out once, on the host.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from da3_core.preprocess.rectify import Rectifier, Remapped, RemapTable
from da3_core.preprocess.resize import Size
from da3_core.types import Float32Array, Uint8Array

CUBIC = np.float32(-0.75)  # parameter of the cubic kernel
NEGLIGIBLE = 1e-3  # what the area filter leaves out, as a share of a source pixel
REMAP_STEPS = 32  # positions from one pixel to the next that a map tells apart

Indices = npt.NDArray[np.int64]


class OnDevice:
    """`Rectifier.network_image` by PyTorch. The host does not wait for it: all is queued on the current stream."""

    def __init__(self, rectifier: Rectifier, device: torch.device) -> None:
        self._rectifier, self._device = rectifier, device
        self._steps, self._offset = _steps(rectifier, device)

    def __call__(self, image: Uint8Array) -> Tensor:
        """(h, w, 3) uint8 from (H, W, 3). Raises ValueError as `Rectifier.check` does."""
        self._rectifier.check(image)
        pixels = uploaded(image, self._device)
        for step in self._steps:
            pixels = step(pixels.float())
        (left, top), (width, height) = self._offset, self._rectifier.plan.network
        return pixels[top : top + height, left : left + width].to(torch.uint8)


def uploaded(image: Uint8Array, device: torch.device) -> Tensor:
    """To a GPU through pinned memory, which PyTorch's allocator gives to no other while the copy reads it."""
    if device.type != "cuda":
        return torch.from_numpy(image)
    pinned = torch.empty(image.shape, dtype=torch.uint8, pin_memory=True)
    np.copyto(pinned.numpy(), image)
    return pinned.to(device, non_blocking=True)


class WeightedSums:
    """N sums of T rows of a table."""

    def __init__(self, rows: Indices, weights: Float32Array, device: torch.device) -> None:
        self._rows, self._weights = torch.from_numpy(rows).to(device), torch.from_numpy(weights).to(device)  # (N, T)

    def __call__(self, table: Tensor) -> Tensor:
        """(N, ...) of (R, ...), float32: unlike a matrix product, in full precision whatever the settings are."""
        sums = F.embedding_bag(self._rows, table.reshape(len(table), -1), per_sample_weights=self._weights, mode="sum")
        return sums.reshape(-1, *table.shape[1:])


class Scaling:
    """`cv2.resize` as `resize` uses it: cubic to enlarge, the area filter to shrink."""

    def __init__(self, source: Size, target: Size, device: torch.device) -> None:
        (W, H), (w, h) = source, target
        whole = W % w == 0 and H % h == 0
        taps = cubic_taps if w > W or h > H else whole_taps if whole else area_taps
        self._rows, self._columns = (WeightedSums(*taps(n, m), device) for n, m in ((H, h), (W, w)))
        self._share = w * h / (W * H) if taps is whole_taps else 1.0
        self._rounded = _half_up if (2 * w, 2 * h) == (W, H) else torch.round  # its loop for this case rounds as no other

    def __call__(self, image: Tensor) -> Tensor:
        """(h, w, 3) whole numbers from (H, W, 3), float32."""
        columns = self._rows(image).transpose(0, 1)  # (W, h, 3)
        return self._rounded(self._columns(columns).transpose(0, 1) * self._share).clamp(0, 255)


class Lookup:
    """`cv2.remap`, black where there is no source. Its weights are whole numbers of 1 / REMAP_STEPS^2, and their sums exact."""

    def __init__(self, table: RemapTable, device: torch.device) -> None:
        h, w = table.fraction.shape
        (width, height), (dy, dx) = table.shrunk, np.divmod(table.fraction.reshape(-1, 1), REMAP_STEPS)
        x, y = table.xy.reshape(-1, 2).T[..., None].astype(np.int64) + np.array([[[0, 1, 0, 1]], [[0, 0, 1, 1]]])  # (h * w, 4) each
        right, down = np.concatenate([REMAP_STEPS - dx, dx], 1), np.concatenate([REMAP_STEPS - dy, dy], 1)
        weights = (down[:, :, None] * right[:, None]).reshape(-1, 4) / np.float32(REMAP_STEPS**2)
        if table.valid is not None:
            weights[~table.valid.reshape(-1)] = 0
        self._shape = h, w, 3
        self._sums = WeightedSums(y.clip(0, height - 1) * width + x.clip(0, width - 1), weights, device)

    def __call__(self, image: Tensor) -> Tensor:
        """(h, w, 3) whole numbers from (H, W, 3), float32."""
        return _half_up(self._sums(image.flatten(0, 1))).reshape(self._shape)


def area_taps(source: int, target: int) -> tuple[Indices, Float32Array]:
    """Pixels (target, T) of one axis, and their shares of what a pixel of the target covers."""
    scale = 1 / (target / source)
    start = np.arange(target)[:, None] * scale
    pixels = np.floor(start).astype(np.int64) + np.arange(int(np.ceil(scale)) + 1)
    covered = np.minimum(pixels + 1, start + scale) - np.maximum(pixels, start)
    covered[(covered <= NEGLIGIBLE) | (pixels >= source)] = 0
    return pixels.clip(max=source - 1), (covered / np.minimum(scale, source - start)).astype(np.float32)


def whole_taps(source: int, target: int) -> tuple[Indices, Float32Array]:
    """As `area_taps` where the scale is a whole number, but weighing 1: sums are exact, and their share is taken once, at the end."""
    pixels = np.arange(source).reshape(target, -1)
    return pixels, np.ones(pixels.shape, np.float32)


def cubic_taps(source: int, target: int) -> tuple[Indices, Float32Array]:
    """Pixels (target, 4) of one axis, those at its ends repeated, and their weights."""
    centre = ((np.arange(target) + 0.5) / (target / source) - 0.5).astype(np.float32)
    first = np.floor(centre)
    beyond = (centre - first)[:, None]
    near, far = np.concatenate([beyond, 1 - beyond], 1), np.concatenate([1 + beyond, 2 - beyond], 1)
    inner = ((CUBIC + 2) * near - (CUBIC + 3)) * near**2 + 1
    outer = ((CUBIC * far - 5 * CUBIC) * far + 8 * CUBIC) * far - 4 * CUBIC
    pixels = first.astype(np.int64)[:, None] + np.arange(-1, 3)
    return pixels.clip(0, source - 1), np.stack([outer[:, 0], inner[:, 0], inner[:, 1], outer[:, 1]], 1)


def _steps(rectifier: Rectifier, device: torch.device) -> tuple[list[Scaling | Lookup], Size]:
    """What is done to an image, one after the other, and what is cropped on the left and at the top of what comes out."""
    plan, images = rectifier.plan, rectifier.images
    if isinstance(images, Remapped):
        table = images.to_network
        return [*_scalings([plan.input, table.shrunk], device), Lookup(table, device)], (0, 0)
    return [*_scalings([plan.input, plan.first, plan.scaled], device)], plan.offset


def _scalings(sizes: list[Size], device: torch.device) -> list[Scaling]:
    return [Scaling(source, target, device) for source, target in pairwise(sizes) if source != target]


def _half_up(x: Tensor) -> Tensor:
    return (x + 0.5).floor()
