"""What is meant for a GPU, on the CPU and on a GPU where there is one, against OpenCV."""

from __future__ import annotations

import random
from itertools import pairwise

import cv2
import numpy as np
import pytest
import torch

from da3_core.config import PreprocessConfig
from da3_core.preprocess import Rectifier, Resize, Size, make_rectifier, plan_cover, plan_resize
from da3_core.preprocess.on_device import OnDevice
from da3_core.types import DistortionModel, Uint8Array

from .test_rectify import HEIGHT, LENSES, WIDTH, calibration

METHODS = ["upper_bound_resize", "upper_bound_crop", "lower_bound_resize", "lower_bound_crop"]
TIES = 0.03  # share of values that may be one level off: sums of sixths, as 6 pixels made 5 have them, are ties as often as that
USUAL_TIES = 0.002
FIXED_POINT = 0.06  # as many differ where OpenCV is built without IPP, and enlarges with weights of 11 bits


@pytest.fixture(
    params=["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")])]
)
def device(request: pytest.FixtureRequest) -> torch.device:
    return torch.device(request.param)


def picture(size: Size, seed: int) -> Uint8Array:
    """(H, W, 3): noise, of which every other one is blurred, and black and white parts, beside which the cubic filter overshoots."""
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    soft = cv2.GaussianBlur(noise, (0, 0), 2) if seed % 2 else noise
    soft[: size[1] // 3] = np.where(noise[: size[1] // 3] > 127, 255, 0)
    return np.asarray(soft, np.uint8)


def shares_of_levels(rectifier: Rectifier, device: torch.device, seed: int) -> list[float]:
    """Which share of the values is 0, 1, 2… levels away from those of the host."""
    image = picture(rectifier.plan.input, seed)
    found, expected = OnDevice(rectifier, device)(image).cpu(), rectifier.network_image(image)
    assert found.dtype == torch.uint8 and found.shape == expected.shape
    counts = np.bincount(np.abs(found.numpy().astype(int) - expected).ravel())
    return [float(share) for share in counts / counts.sum()]


def resizing(plan: Resize) -> Rectifier:
    return Rectifier(plan, plan, None, at_input_size=False)


def random_plan(rng: random.Random, kind: str) -> Resize:
    width, height = rng.randrange(56, 400), rng.randrange(56, 400)
    if kind == "cover":
        return plan_cover(width, height, (14 * rng.randrange(1, 20), 14 * rng.randrange(1, 20)))
    return plan_resize(width, height, rng.randrange(56, 400), kind)


def enlarges(plan: Resize) -> bool:
    sizes = plan.input, plan.first, plan.scaled
    return any(after[axis] > before[axis] for before, after in pairwise(sizes) for axis in (0, 1))


@pytest.mark.parametrize("kind", [*METHODS, "cover"])
def test_resized_images_are_opencvs(kind: str, device: torch.device) -> None:
    rng, off = random.Random(kind), []
    for seed in range(25):
        plan = random_plan(rng, kind)
        shares = shares_of_levels(resizing(plan), device, seed)
        assert sum(shares[2:]) < 1e-4, plan  # what enlarges after a tie
        assert 1 - shares[0] < (FIXED_POINT if enlarges(plan) else TIES), plan
        off += [] if enlarges(plan) else [1 - shares[0]]
    assert np.mean(off) < USUAL_TIES


@pytest.mark.parametrize("by", [(1, 2), (2, 1), (2, 2), (3, 2), (2, 3), (4, 4), (5, 4)])
def test_images_shrunk_by_whole_factors_are_exactly_opencvs(by: Size, device: torch.device) -> None:
    source = 56 * by[0], 42 * by[1]
    assert shares_of_levels(resizing(Resize(source, (56, 42), (56, 42), (56, 42))), device, seed=by[0]) == [1.0]


@pytest.mark.parametrize("coverage", ["inside", "all"])
@pytest.mark.parametrize(("size", "tied"), [(308, 0), (154, 0), (98, TIES)])  # about as large; half; shrunk before by what is no divisor
@pytest.mark.parametrize("model", LENSES)
def test_rectified_images_are_opencvs(model: DistortionModel, size: int, tied: float, coverage: str, device: torch.device) -> None:
    rectifier = make_rectifier(WIDTH, HEIGHT, calibration(model), PreprocessConfig(size=size, coverage=coverage))
    shares = shares_of_levels(rectifier, device, seed=size)
    assert len(shares) <= 2 and shares[0] >= 1 - tied


def test_images_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match="240x320x3 was expected"):
        OnDevice(make_rectifier(WIDTH, HEIGHT, None, PreprocessConfig(size=154)), torch.device("cpu"))(np.zeros((480, 640, 3), np.uint8))
