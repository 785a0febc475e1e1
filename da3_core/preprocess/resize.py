"""To the network's size: both sides multiples of 14, the aspect kept, K scaled per axis. Sizes are (width, height), as OpenCV has them."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from da3_core.types import Float64Array, Uint8Array

PATCH = 14
Size = tuple[int, int]  # (width, height)


@dataclass(frozen=True)
class Resize:
    """One size's way to the network: the input is scaled to `scaled`, over `first` where that is another, then cropped at its centre.

    The first pixel's corner is (0, 0), so scaling is multiplication and cropping subtracts the offset.
    """

    input: Size
    first: Size
    scaled: Size
    network: Size

    @property
    def offset(self) -> Size:
        """What the crop takes away on the left and at the top, in pixels of `scaled`."""
        return (self.scaled[0] - self.network[0]) // 2, (self.scaled[1] - self.network[1]) // 2

    @property
    def output(self) -> Size:
        """Size of the network's field of view at the input's resolution: the input's size, unless something is cropped."""
        return _round(self.network[0] * self.input[0] / self.scaled[0]), _round(self.network[1] * self.input[1] / self.scaled[1])

    @property
    def per_axis(self) -> tuple[float, float]:
        """Network pixels per input pixel, along x and y."""
        return self.scaled[0] / self.input[0], self.scaled[1] / self.input[1]

    def network_K(self, K: Float64Array) -> Float64Array:
        """K (3, 3) in pixels of the network's image from one in pixels of the input."""
        (sx, sy), (left, top) = self.per_axis, self.offset
        return np.array([[sx, 0, -left], [0, sy, -top], [0, 0, 1]]) @ K

    def network_image(self, image: Uint8Array) -> Uint8Array:
        """(h, w, 3) from (H, W, 3): area filter to shrink, cubic to enlarge."""
        scaled = _scaled(_scaled(image, self.first), self.scaled)
        (left, top), (width, height) = self.offset, self.network
        return np.ascontiguousarray(scaled[top : top + height, left : left + width])

    def output_image(self, image: Uint8Array) -> Uint8Array:
        """The network's field of view at the input's resolution."""
        if self.output == self.input:
            return image
        (w, h), (network_w, network_h) = self.output, self.network
        output_to_input = np.linalg.inv(self.network_K(np.eye(3))) @ np.diag([network_w / w, network_h / h, 1.0])
        output_to_input[:2, 2] += output_to_input[[0, 1], [0, 1]] / 2 - 0.5  # warpAffine counts from the first pixel's centre
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        warped = cv2.warpAffine(image, output_to_input[:2], self.output, flags=flags, borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(warped, np.uint8)


def plan_resize(width: int, height: int, size: int, method: str = "upper_bound_resize") -> Resize:
    """The published networks' four ways (spec section 1).

    upper_bound: the longest side becomes `size`; lower_bound: the shortest. Then each side goes to the nearest multiple of 14 by a second
    small resize (`_resize`, ties go up), or down to one by a centre crop (`_crop`). Raises ValueError for images too small for a patch.
    """
    bound = max if method.startswith("upper") else min
    scale = size / bound(width, height)
    first = round(width * scale), round(height * scale)
    if method.endswith("crop"):
        network = first[0] // PATCH * PATCH, first[1] // PATCH * PATCH
        if not all(network):
            raise ValueError(
                f"a {width}x{height} image cropped at size {size} leaves no 14-pixel patch: take a larger size, or a _resize method"
            )
        return Resize((width, height), first, first, network)
    network = _nearest_multiple(first[0]), _nearest_multiple(first[1])
    return Resize((width, height), first, network, network)


def plan_cover(width: int, height: int, network: Size) -> Resize:
    """Fill a given network size, cropping what its aspect does not show: how a rig's other cameras follow its first one."""
    scale = max(network[0] / width, network[1] / height)
    scaled = max(round(width * scale), network[0]), max(round(height * scale), network[1])
    return Resize((width, height), scaled, scaled, network)


def _nearest_multiple(side: int) -> int:
    return max(PATCH, (2 * side + PATCH) // (2 * PATCH) * PATCH)


def _scaled(image: Uint8Array, size: Size) -> Uint8Array:
    height, width = image.shape[:2]
    if (width, height) == size:
        return image
    if size[0] > width or size[1] > height:
        return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_CUBIC), np.uint8)
    if width % size[0] == 0 and height % size[1] == 0:
        return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    shrunk = cv2.resize(image.astype(np.float32), size, interpolation=cv2.INTER_AREA)  # OpenCV is faster on floats, with the same result
    return np.asarray(cv2.convertScaleAbs(shrunk), np.uint8)


def _round(value: float) -> int:
    return int(value + 0.5)
