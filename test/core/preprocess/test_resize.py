from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from da3_core.preprocess import Resize, plan_cover, plan_resize

PARITY = Path(__file__).resolve().parents[3] / ".." / "shared" / "parity" / "preprocess"
needs_parity = pytest.mark.skipif(not PARITY.exists(), reason=f"the shared parity cases are not at {PARITY}")


@needs_parity
def test_sizes_and_K_are_those_of_the_reference() -> None:
    for case in json.loads((PARITY / "sizes.json").read_text()):
        plan = plan_resize(case["width"], case["height"], case["process_res"], case["method"])
        assert plan.network == (case["out_width"], case["out_height"])
        np.testing.assert_allclose(plan.network_K(np.array(case["K"])), case["out_K"], rtol=1e-5)


@needs_parity
@pytest.mark.parametrize("method", ["upper_bound_resize", "lower_bound_crop"])
@pytest.mark.parametrize("size", [98, 266])
def test_pixels_are_those_of_the_reference(method: str, size: int) -> None:
    images = load_file(PARITY / "images.safetensors")
    source = images["image_rgb_uint8"]
    image = plan_resize(source.shape[1], source.shape[0], size, method).network_image(source)
    mean, std = (np.array(x)[:, None, None] for x in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    expected = 255 * (images[f"{method}_{size}"] * std + mean)
    # one grey level, for OpenCV's filters differ in rounding from version to version
    np.testing.assert_allclose(image.transpose(2, 0, 1), expected, atol=1.01)


def test_ties_between_multiples_of_14_go_up() -> None:
    assert plan_resize(504, 35, 504).network == (504, 42)
    assert plan_resize(504, 34, 504).network == (504, 28)
    assert plan_resize(504, 3, 504).network == (504, 14)


def test_no_patch_left_by_a_crop_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(ValueError, match="take a larger size"):
        plan_resize(1000, 20, 504, "upper_bound_crop")


@pytest.mark.parametrize(("width", "height"), [(640, 480), (480, 640), (1280, 720), (84, 56)])
def test_another_camera_fills_the_first_ones_size_and_keeps_its_aspect(width: int, height: int) -> None:
    plan = plan_cover(width, height, (168, 126))
    sx, sy = plan.per_axis
    assert plan.network == (168, 126)
    assert sx == pytest.approx(sy, rel=0.02)
    image = np.zeros((height, width, 3), np.uint8)
    assert plan.network_image(image).shape == (126, 168, 3)
    assert plan.output_image(image).shape == (plan.output[1], plan.output[0], 3)
    assert min(width - plan.output[0], height - plan.output[1]) == pytest.approx(0, abs=1)


@pytest.mark.parametrize(
    "plan", [plan_resize(62, 47, 80, "upper_bound_crop"), plan_resize(47, 62, 30, "lower_bound_crop"), plan_cover(62, 47, (56, 28))]
)
def test_what_a_crop_leaves_is_at_the_inputs_size_where_it_is_at_the_networks(plan: Resize) -> None:
    (width, height), (w, h) = plan.input, plan.output
    assert plan.output != plan.input
    column, row = np.meshgrid(4 * np.arange(width), 4 * np.arange(height))  # four levels from pixel to pixel
    output = plan.output_image(np.stack([column, row, row], -1).astype(np.uint8))
    assert output.shape == (h, w, 3)
    input_from_network = np.linalg.inv(plan.network_K(np.eye(3)))
    network_from_output = np.diag([plan.network[0] / w, plan.network[1] / h, 1])
    x, y = np.meshgrid(np.arange(w) + 0.5, np.arange(h) + 0.5)
    expected = np.stack([x, y, np.ones_like(x)], -1) @ (input_from_network @ network_from_output).T
    np.testing.assert_allclose(output[..., :2], 4 * (expected[..., :2] - 0.5), atol=0.75)
