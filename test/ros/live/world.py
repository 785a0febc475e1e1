"""A world with a closed form: a camera on a circle in a box-shaped room, images that carry their number, and an engine that sees truly.

Depth is the distance to the walls, so that whatever arrives at a subscriber can be compared with the truth, whoever handled it between.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from da3_core import Prediction, View

Array = npt.NDArray[np.float64]
PERIOD_NS = 100_000_000
WIDTH_PX, HEIGHT_PX, FOCAL_PX = 140, 112, 100.0
ROOM_MIN, ROOM_MAX = np.array([-3.0, -4.0, -1.0]), np.array([3.0, 4.0, 2.0])
GRID = 4  # bits per side of a number in an image
METRES_PER_NETWORK_UNIT = 2.5
HALF_PIXEL = np.array([[0.0, 0.0, 0.5], [0.0, 0.0, 0.5], [0.0, 0.0, 0.0]])
# Optical axes (x right, y down, z forward) on a body that looks along x with z up.
T_BODY_CAM = np.array([[0.0, 0.0, 1.0, 0.2], [-1.0, 0.0, 0.0, 0.0], [0.0, -1.0, 0.0, 0.1], [0.0, 0.0, 0.0, 1.0]])


def T_world_body(number: float) -> Array:
    """On a circle of half a metre, looking outwards and around."""
    angle = 0.15 * number
    c, s = np.cos(angle), np.sin(angle)
    T = np.eye(4)
    T[:3, :3] = [[c, -s, 0], [s, c, 0], [0, 0, 1]]
    T[:3, 3] = 0.5 * c, 0.5 * s, 0.1 * np.sin(2 * angle)
    return T


def K_px() -> Array:
    """As ROS has it: the first pixel's centre at (0, 0)."""
    return np.array([[FOCAL_PX, 0.0, WIDTH_PX / 2 - 0.5], [0.0, FOCAL_PX, HEIGHT_PX / 2 - 0.5], [0.0, 0.0, 1.0]])


def image(number: int) -> npt.NDArray[np.uint8]:
    """(H, W, 3): a grid of black and white blocks that spells the number."""
    bits = np.array([number >> i & 1 for i in range(GRID * GRID)], np.uint8).reshape(GRID, GRID)
    blocks = np.kron(bits, np.ones((HEIGHT_PX // GRID, WIDTH_PX // GRID), np.uint8))
    return np.repeat(200 * blocks[..., None] + 20, 3, axis=-1).astype(np.uint8)


def number_in(image: npt.NDArray[np.uint8]) -> int:
    """What `image` spelled, at any size."""
    h, w = image.shape[:2]
    centres = np.ix_(((np.arange(GRID) + 0.5) * h / GRID).astype(int), ((np.arange(GRID) + 0.5) * w / GRID).astype(int))
    bits = image[..., 0][centres].reshape(-1) > 120
    return int(sum(1 << i for i in np.flatnonzero(bits)))


def depth_m(T_world_cam: Array, K: Array, height: int, width: int) -> Array:
    """(H, W): z-depth of the walls. K has the first pixel's centre at (0, 0)."""
    u, v = np.meshgrid(np.arange(width), np.arange(height))
    rays = np.linalg.inv(K) @ np.stack([u, v, np.ones_like(u)]).reshape(3, -1)  # z = 1: lengths along a ray are depths
    directions = T_world_cam[:3, :3] @ rays
    origin = T_world_cam[:3, 3:4]
    with np.errstate(divide="ignore"):
        to_walls = np.maximum((ROOM_MIN[:, None] - origin) / directions, (ROOM_MAX[:, None] - origin) / directions)
    return to_walls.min(axis=0).reshape(height, width)


class TruthfulEngine:
    """Reads the number off each image and answers with the room's true geometry, in a unit of its own."""

    kind = "any_view"
    device = torch.device("cpu")
    description = "sees the room as it is"
    refusals: Sequence[str] = ()

    def infer(self, views: Sequence[View], wanted: Sequence[int], posed: bool) -> Prediction:
        poses = [T_world_body(number_in(view.image.permute(1, 2, 0).numpy())) @ T_BODY_CAM for view in views]
        T_cam_first = [np.linalg.inv(T) @ poses[0] for T in poses]
        for T in T_cam_first:
            T[:3, 3] /= METRES_PER_NETWORK_UNIT
        K = [_network_K(view) for view in views]
        depth = [
            depth_m(poses[i], K[i] - [[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]], *views[i].image.shape[1:]) / METRES_PER_NETWORK_UNIT
            for i in wanted
        ]
        found = torch.tensor(np.array(depth), dtype=torch.float32) if depth else None
        return Prediction(
            depth=found,
            confidence=None if found is None else torch.full_like(found, 2.0),
            T_cam_world=torch.tensor(np.array(T_cam_first), dtype=torch.float32),
            K=torch.tensor(np.array(K), dtype=torch.float32),
        )

    def reset(self) -> None:
        """Nothing is kept."""


def _network_K(view: View) -> Array:
    """Of the resized image, its pixel centres at + 0.5."""
    h, w = view.image.shape[1:]
    focal_px = FOCAL_PX * w / WIDTH_PX
    return np.array([[focal_px, 0, w / 2], [0, focal_px, h / 2], [0, 0, 1]])
