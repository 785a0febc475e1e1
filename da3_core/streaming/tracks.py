"""Where points of one view are seen in another: sparse optical flow, checked there and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from da3_core.types import BoolArray, Float32Array, Float64Array, Uint8Array, View

MOST_TRACKS = 150
MIN_TRACKS = 20  # fewer say nothing
MAX_RETURN_PX = 0.5  # how far from its start a point may come back
CRITERIA = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 20, 0.01)


@dataclass(frozen=True)
class Tracks:
    """The same points in two views, in pixels counted from the images' corners."""

    now: Float64Array  # (P, 2)
    before: Float64Array  # (P, 2)


def track(now: View, before: View) -> Tracks | None:
    """Corners of the view `now`, found in the view `before` (Lucas and Kanade, on pyramids); None when too few are."""
    image, other = _grey(now), _grey(before)
    gain = float(image.mean()) / max(1.0, float(other.mean()))  # exposure changes
    other = np.asarray(cv2.convertScaleAbs(other, alpha=gain), np.uint8)
    corners: Any = cv2.goodFeaturesToTrack(image, maxCorners=MOST_TRACKS, qualityLevel=0.005, minDistance=5, blockSize=5)
    if corners is None:
        return None
    points = np.asarray(corners, np.float32)  # (P, 1, 2)
    found, there = _flow(image, other, points)
    back, again = _flow(other, image, found)
    good = there & again & (np.linalg.norm(back - points, axis=-1)[:, 0] < MAX_RETURN_PX)
    if np.count_nonzero(good) < MIN_TRACKS:
        return None
    return Tracks(points[good, 0].astype(np.float64) + 0.5, found[good, 0].astype(np.float64) + 0.5)


def _flow(image: Uint8Array, other: Uint8Array, points: Float32Array) -> tuple[Float32Array, BoolArray]:
    """Where the points (P, 1, 2) are in the other image, and whether (P,) they were found."""
    side = min(max(image.shape[1] // 15 | 1, 7), 21)  # a window must see little enough for one motion, and enough of it
    found, status, _ = cv2.calcOpticalFlowPyrLK(
        image, other, points, np.empty_like(points), winSize=(side, side), maxLevel=3, criteria=CRITERIA
    )
    return np.asarray(found, np.float32), np.asarray(status)[:, 0] > 0


def _grey(view: View) -> Uint8Array:
    image = np.ascontiguousarray(view.image.permute(1, 2, 0).numpy())
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)
