"""What every reader gives: a recording is a sequence of posed images with depth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np

from da3_core.types import Float32Array, Float64Array, Uint8Array


@dataclass(frozen=True)
class RecordedFrame:
    """One rectified image with what was measured of it."""

    stamp_ns: int
    image: Uint8Array  # (H, W, 3) RGB
    depth_m: Float32Array  # (H, W) z-depth, 0 where unknown
    K: Float64Array  # (3, 3), pixel centres at +0.5
    T_world_cam: Float64Array  # (4, 4), metres


class Recording(Protocol):
    """Frames of one camera, in order of time."""

    def __len__(self) -> int:
        """Number of frames."""

    def __getitem__(self, index: int) -> RecordedFrame:
        """Read one frame."""


def fit_frame(frame: RecordedFrame, size: tuple[int, int]) -> RecordedFrame:
    """The frame at size (H, W): the largest window of that aspect around the principal point, resized, so that it ends up centred.

    Depth takes the nearest measurement. Raises ValueError when the principal point is not inside the image.
    """
    (H, W), (height, width) = size, frame.depth_m.shape
    cx, cy = frame.K[0, 2], frame.K[1, 2]
    half = min(cx, width - cx, min(cy, height - cy) * W / H)  # half the window's width
    if half <= 0:
        raise ValueError(f"the principal point ({cx:.1f}, {cy:.1f}) is outside the {width}x{height} image: check the calibration")
    left, top, scale = cx - half, cy - half * H / W, W / (2 * half)
    # warpAffine counts pixels from their centres: x_in + 0.5 = (x_out + 0.5) / scale + left
    out_to_in = np.array([[1 / scale, 0, 0.5 / scale + left - 0.5], [0, 1 / scale, 0.5 / scale + top - 0.5]])
    blurred = cv2.GaussianBlur(frame.image, (0, 0), 0.4 / scale) if scale < 1 else frame.image  # what the smaller image cannot show
    image = cv2.warpAffine(blurred, out_to_in, (W, H), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE)
    depth = cv2.warpAffine(frame.depth_m, out_to_in, (W, H), flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP)
    K = np.array([[frame.K[0, 0] * scale, 0, W / 2], [0, frame.K[1, 1] * scale, H / 2], [0, 0, 1]])
    return RecordedFrame(frame.stamp_ns, np.asarray(image, np.uint8), np.asarray(depth, np.float32), K, frame.T_world_cam)
