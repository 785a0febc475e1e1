"""A recording of twelve small frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from da3_core.datasets import TumRgbdWriter


def write_recording(folder: Path) -> None:
    """A camera that moves sideways along a textured wall."""
    K, rng = np.array([[30.0, 0, 19.5], [0, 30.0, 15.5], [0, 0, 1]]), np.random.default_rng(0)
    wall = rng.integers(0, 255, (32, 200, 3), dtype=np.uint8)
    with TumRgbdWriter(folder) as writer:
        for i in range(12):
            T_world_cam = np.eye(4)
            T_world_cam[0, 3] = 0.2 * i
            depth = np.full((32, 40), 2.0, np.float32) + 0.5 * rng.random((32, 40), dtype=np.float32)
            writer.write(i * 33_000_000, wall[:, 3 * i : 3 * i + 40].copy(), depth, K, T_world_cam)
