"""A stream whose images are made on a GPU gives what one on the CPU does."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from da3_core.config import FilterConfig, PreprocessConfig, ScaleConfig, StreamConfig, WindowConfig
from da3_core.engines import make_engine
from da3_core.model import load_model
from da3_core.preprocess import make_rectifier
from da3_core.streaming import Stream
from da3_core.streaming.cameras import Cameras
from da3_core.types import Calibration, Frame, FrameResult

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]
SIZE = 84
PINHOLE = Calibration(168, 112, np.array([[120.0, 0, 83.5], [0, 120.0, 55.5], [0, 0, 1]]))
DISTORTED = dataclasses.replace(PINHOLE, distortion_model="plumb_bob", D=(-0.28, 0.07, 0.002, -0.001, 0.01))
CONFIG = StreamConfig(filter=FilterConfig(edge_ratio=0), scale=ScaleConfig(unknown="relative"), window=WindowConfig(views=3))


@pytest.fixture(autouse=True)
def full_precision() -> Iterator[None]:
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = True


def drive(device: str, frames: list[Frame], config: StreamConfig) -> list[FrameResult]:
    engine = make_engine("eager", load_model("da3-nano"), device, views=3, precision="fp32")
    assert engine.device.type == device
    stream = Stream(engine, config)
    return [stream.register([frame])[0] for frame in frames]


def frames_of(room, calibration: Calibration, posed: bool) -> list[Frame]:
    """Along the room's window, every pixel of which is four of the image's."""
    path = [room.pose(x=0.1 * k, z=-1 + 0.05 * k, yaw_deg=k) for k in range(6)]
    images = [np.repeat(np.repeat(room.image(T), 2, 0), 2, 1) for T in path]
    stamped = zip(path, images, strict=True)
    return [Frame("front", "optical", 10**8 * (k + 1), image, calibration, T if posed else None) for k, (T, image) in enumerate(stamped)]


@pytest.mark.parametrize("posed", [True, False])
@pytest.mark.parametrize("output_size", ["network", "input"])
@pytest.mark.parametrize("calibration", [PINHOLE, DISTORTED], ids=["pinhole", "distorted"])
def test_results_are_those_of_the_cpu(room, calibration: Calibration, output_size: str, posed: bool) -> None:
    config = dataclasses.replace(CONFIG, preprocess=PreprocessConfig(size=SIZE, output_size=output_size))
    frames = frames_of(room, calibration, posed)
    for found, expected in zip(drive("cuda", frames, config), drive("cpu", frames, config), strict=True):
        np.testing.assert_array_equal(found.image, expected.image)
        assert (found.mode, found.scale.source) == (expected.mode, expected.scale.source)
        assert np.isfinite(expected.depth_m).all()
        assert np.linalg.norm(found.depth_m - expected.depth_m) < 1e-2 * np.linalg.norm(expected.depth_m)


@pytest.mark.parametrize("calibration", [PINHOLE, DISTORTED], ids=["pinhole", "distorted"])
def test_images_are_taken_while_the_device_is_busy_and_none_overtakes_another(calibration: Calibration) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (12, 112, 168, 3), dtype=np.uint8)
    frames = [Frame("front", "optical", k, image, calibration) for k, image in enumerate(noise)]
    config = PreprocessConfig(size=SIZE)
    cameras, rectifier = Cameras(config, torch.device("cuda")), make_rectifier(168, 112, calibration, config)
    cameras.adopt(frames)
    cameras.see(frames[0])
    torch.cuda.set_sync_debug_mode("error")
    try:
        torch.cuda._sleep(10**8)
        seen = [cameras.see(frame) for frame in frames]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for each, image in zip(seen, noise, strict=True):
        expected = rectifier.network_image(image)
        assert each.view.image.is_cuda
        np.testing.assert_array_equal(each.view.image.cpu(), expected.transpose(2, 0, 1))
        np.testing.assert_array_equal(each.output_image, expected)
