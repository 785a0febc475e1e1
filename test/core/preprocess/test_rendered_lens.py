"""A room seen through a lens and rectified is the room that a pinhole sees, in colours and in metres."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from da3_core.config import PreprocessConfig
from da3_core.preprocess import DepthRectifier, make_rectifier
from da3_core.scenes import make_worlds, render
from da3_core.scenes.path import PathSettings, RobotFrame, robot_path
from da3_core.scenes.splits import DEMO
from da3_core.types import Calibration, DistortionModel, Float32Array, Float64Array

ROOM = DEMO.start + 14
WIDTH, HEIGHT = 140, 112  # what the network takes, so that nothing is resized
LENSES: dict[DistortionModel, tuple[float, tuple[float, ...]]] = {  # focal length in widths, coefficients
    "plumb_bob": (0.6, (-0.28, 0.07, 0.01, -0.02, 0.01)),
    "equidistant": (0.45, (0.05, -0.02, 0.01, 0.0)),
}


def first_frame(focal: float, model: DistortionModel = "none", D: tuple[float, ...] = ()) -> tuple[RobotFrame, Calibration]:
    settings = PathSettings(duration_s=1.0, size=(HEIGHT, WIDTH), focal=focal, distortion_model=model, D=D)
    drive = robot_path(ROOM, settings)
    return next(drive.frames()), drive.calibration


def pinhole_depth_m(T_world_cam: Float64Array, K: Float64Array) -> Float32Array:
    """(H, W) of the room, as the renderer's own pinhole has it."""
    cameras = (torch.from_numpy(a).float()[None, None] for a in (T_world_cam, K))
    depth_m: Float32Array = render(make_worlds(torch.tensor([ROOM]), "room"), *cameras, (HEIGHT, WIDTH)).depth[0, 0].numpy()
    return depth_m


@pytest.mark.parametrize("model", LENSES)
def test_a_rectified_rendering_is_a_pinholes(model: DistortionModel) -> None:
    """They differ by noise, 3.7 to 4 levels on average. Half a pixel makes that 5.3, and sets 15 % of the depth more than 2 % wrong."""
    focal, D = LENSES[model]
    bent, calibration = first_frame(focal, model, D)
    rectifier = make_rectifier(WIDTH, HEIGHT, calibration, PreprocessConfig(size=WIDTH, max_fov_deg=100))
    assert rectifier.K is not None and rectifier.plan.network == (WIDTH, HEIGHT)
    straight, pinhole = first_frame(rectifier.K[0, 0] / WIDTH)
    np.testing.assert_allclose(pinhole.K + np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]]), rectifier.K)
    np.testing.assert_array_equal(bent.T_world_cam, straight.T_world_cam)

    rectified = rectifier.network_image(bent.image).astype(float)
    assert np.abs(rectified - straight.image).mean() < 4.5
    assert np.abs(bent.image.astype(float) - straight.image).mean() > 6
    depth_m = DepthRectifier(calibration)(bent.depth_m, pinhole.K, (WIDTH, HEIGHT))
    error = np.abs(depth_m / pinhole_depth_m(straight.T_world_cam, rectifier.K) - 1)
    assert np.isfinite(error).all() and np.median(error) < 0.006 and (error > 0.02).mean() < 0.08
