"""Where points of one view are seen in another: sparse optical flow, checked there and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from da3_core.types import BoolArray, Float32Array, Float64Array, Uint8Array, View

CELLS = (8, 10)  # rows and columns of an image, of each of which one point is tracked, so that no part speaks for all of it
MOST_CORNERS = 400  # to choose from
MIN_TRACKS = 12  # fewer say nothing
MAX_RETURN_PX = 0.5  # how far from its start a point may come back
CRITERIA = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 10, 0.05)


@dataclass(frozen=True)
class Tracks:
    """The same points in two views, in pixels counted from the images' corners."""

    now: Float64Array  # (P, 2)
    before: Float64Array  # (P, 2)


def track(now: View, before: View, K: Float64Array, T_before_now: Float64Array) -> Tracks | None:
    """Corners of the view `now`, found in the view `before` (Lucas and Kanade, on pyramids); None when too few are.

    The search begins where the rotation alone would have them, K (3, 3) being that of both.
    """
    turned = K @ T_before_now[:3, :3] @ np.linalg.inv(K)
    image, other = _green(now), _green(before)
    gain = float(image.mean()) / max(1.0, float(other.mean()))  # exposure changes
    other = np.asarray(cv2.convertScaleAbs(other, alpha=gain), np.uint8)
    points = _corners(image)
    if len(points) < MIN_TRACKS:
        return None
    found, there = _flow(image, other, points, turned)
    back, again = _flow(other, image, found, np.linalg.inv(turned))
    good = there & again & (np.linalg.norm(back - points, axis=-1) < MAX_RETURN_PX)
    if np.count_nonzero(good) < MIN_TRACKS:
        return None
    return Tracks(points[good].astype(np.float64), found[good].astype(np.float64))


def _corners(image: Uint8Array) -> Float32Array:
    """(P, 2), the best of every cell."""
    found: Any = cv2.goodFeaturesToTrack(image, maxCorners=MOST_CORNERS, qualityLevel=0.005, minDistance=5, blockSize=5)
    if found is None:
        return np.empty((0, 2), np.float32)
    points = np.asarray(found, np.float32)[:, 0] + np.float32(0.5)  # best first
    column, row = (points * np.array(CELLS[::-1]) / image.shape[::-1]).astype(int).T
    cell = row * CELLS[1] + column
    _, best = np.unique(cell, return_index=True)
    return np.asarray(points[best], np.float32)


def _flow(image: Uint8Array, other: Uint8Array, points: Float32Array, turned: Float64Array) -> tuple[Float32Array, BoolArray]:
    """Where the points (P, 2) are in the other image, and whether (P,) they were found."""
    side = min(max(image.shape[1] // 15 | 1, 7), 15)  # a window must see little enough for one motion, and enough of it
    start = cv2.perspectiveTransform(points[:, None].astype(np.float64), turned).astype(np.float32)
    found, status, _ = cv2.calcOpticalFlowPyrLK(
        image, other, points - 0.5, start - 0.5, winSize=(side, side), maxLevel=3, criteria=CRITERIA, flags=cv2.OPTFLOW_USE_INITIAL_FLOW
    )
    return np.asarray(found, np.float32)[:, 0] + np.float32(0.5), np.asarray(status)[:, 0] > 0


def _green(view: View) -> Uint8Array:
    """Most of what is seen, and no work."""
    return np.ascontiguousarray(view.image[1].cpu().numpy())
