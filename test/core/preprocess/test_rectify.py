from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from da3_core.config import PreprocessConfig
from da3_core.geometry.pinhole import unproject
from da3_core.preprocess import make_rectifier
from da3_core.preprocess.lens import lens_from_calibration
from da3_core.types import Calibration, DistortionModel, Float64Array, Uint8Array

WIDTH, HEIGHT = 320, 240
LENSES: dict[DistortionModel, tuple[float, ...]] = {
    "none": (),
    "plumb_bob": (-0.28, 0.07, 0.002, -0.001, 0.01),
    "rational_polynomial": (0.5, 0.1, 0.001, -0.002, 0.02, 0.8, 0.2, 0.03),
    "equidistant": (-0.02, 0.01, -0.005, 0.001),
}


def calibration(model: DistortionModel, focal: float = 200.0, cx: float = 148.0, cy: float = 125.0) -> Calibration:
    return Calibration(WIDTH, HEIGHT, np.array([[focal, 0, cx], [0, 1.02 * focal, cy], [0, 0, 1]]), model, LENSES[model])


def colour_of(rays: Float64Array) -> Float64Array:
    """(..., 3) smooth grey levels of directions (..., 2): what a lens sees there, whatever lens it is."""
    x, y = rays[..., 0], rays[..., 1]
    return 128 + 100 * np.stack([np.sin(6 * x), np.cos(5 * y), np.sin(4 * x + 3 * y)], -1)


def photograph(camera: Calibration, scale: int = 1) -> Uint8Array:
    """What the camera takes of `colour_of`: OpenCV says, pixel by pixel, which ray it sees."""
    x, y = np.meshgrid(np.arange(camera.width_px, dtype=np.float64), np.arange(camera.height_px, dtype=np.float64))
    pixels = np.stack([x, y], -1).reshape(-1, 1, 2)
    D = np.array(camera.D or (0.0,) * 4)
    criteria = (cv2.TERM_CRITERIA_MAX_ITER | cv2.TERM_CRITERIA_EPS, 200, 1e-12)
    if camera.distortion_model == "equidistant":
        rays = cv2.fisheye.undistortPoints(pixels, camera.K, D, criteria=criteria)
    else:
        rays = cv2.undistortPointsIter(pixels, camera.K, D, None, None, criteria)
    return colour_of(rays.reshape(camera.height_px, camera.width_px, 2)).round().astype(np.uint8)


def pinhole_image(K: Float64Array, width: int, height: int) -> Float64Array:
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    return colour_of(np.stack([(x - K[0, 2]) / K[0, 0], (y - K[1, 2]) / K[1, 1]], -1))


@pytest.mark.parametrize("model", LENSES)
@settings(max_examples=20, deadline=None)
@given(x=st.floats(-0.6, 0.6), y=st.floats(-0.5, 0.5))
def test_lenses_are_opencvs(model: DistortionModel, x: float, y: float) -> None:
    camera = calibration(model)
    point, D = np.array([[[x, y, 1.0]]]), np.array(camera.D or (0.0,) * 4)
    project = cv2.fisheye.projectPoints if model == "equidistant" else cv2.projectPoints
    expected = project(point, np.zeros(3), np.zeros(3), camera.K, D)[0].reshape(2) + 0.5  # OpenCV counts from the first pixel's centre
    np.testing.assert_allclose(lens_from_calibration(camera).pixels(np.array([x, y])), expected, atol=1e-6)


def test_skewed_pixels_are_straightened() -> None:
    camera = Calibration(WIDTH, HEIGHT, np.array([[200.0, 9, 159.5], [0, 200, 119.5], [0, 0, 1]]))
    pixel = lens_from_calibration(camera).pixels(np.array([0.1, 0.2]))
    np.testing.assert_allclose(pixel, (camera.K @ [0.1, 0.2, 1])[:2] + 0.5)
    rectifier = make_rectifier(WIDTH, HEIGHT, camera, PreprocessConfig(size=154))
    assert rectifier.K is not None and rectifier.K[0, 1] == 0


@pytest.mark.parametrize("size", [98, 154, 308], ids=["shrunk twice", "shrunk once", "about as it is"])
@pytest.mark.parametrize("model", LENSES)
def test_the_rectified_image_is_what_a_centred_pinhole_with_its_K_sees(model: DistortionModel, size: int) -> None:
    camera = calibration(model)
    rectifier = make_rectifier(WIDTH, HEIGHT, camera, PreprocessConfig(size=size))
    image = rectifier.network_image(photograph(camera))
    w, h = rectifier.plan.network
    assert rectifier.K is not None
    assert tuple(rectifier.K[:2, 2]) == (w / 2, h / 2)
    assert image.shape == (h, w, 3)
    assert rectifier.valid is None
    # half a pixel's shift would change the picture by 2 to 6 levels on average
    assert np.abs(image - pinhole_image(rectifier.K, w, h)).mean() < 0.8


@pytest.mark.parametrize("model", LENSES)
def test_what_a_smaller_image_cannot_show_does_not_alias(model: DistortionModel) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)  # its standard deviation is 74 levels
    small = make_rectifier(WIDTH, HEIGHT, calibration(model), PreprocessConfig(size=98)).network_image(noise)
    assert small.std() < 25  # the mean of three by three pixels


@pytest.mark.parametrize("model", LENSES)
def test_the_image_at_the_inputs_size_goes_with_its_K(model: DistortionModel) -> None:
    camera = calibration(model)
    rectifier = make_rectifier(WIDTH, HEIGHT, camera, PreprocessConfig(size=154, output_size="input"))
    photo = photograph(camera)
    assert rectifier.K is not None
    K = rectifier.output_K(rectifier.K)
    assert K[0, 0] == pytest.approx(K[1, 1])  # square pixels
    output = rectifier.output_image(photo, rectifier.network_image(photo))
    assert output.shape == (HEIGHT, WIDTH, 3)
    assert np.abs(output - pinhole_image(K, WIDTH, HEIGHT)).mean() < 0.8


def test_depth_at_the_inputs_size_lies_on_the_plane_that_it_lies_on_at_the_networks() -> None:
    """A slanted plane, unprojected at either size: a shift of half a pixel would leave it by a few millimetres."""
    rectifier = make_rectifier(WIDTH, HEIGHT, calibration("plumb_bob"), PreprocessConfig(size=154, output_size="input"))
    w, h = rectifier.plan.network
    assert rectifier.K is not None
    normal = np.array([0.3, -0.2, 1.0])  # n . p = 2
    x, y = np.meshgrid((np.arange(w) + 0.5 - w / 2) / rectifier.K[0, 0], (np.arange(h) + 0.5 - h / 2) / rectifier.K[1, 1])
    depth = (2 / (normal[0] * x + normal[1] * y + normal[2])).astype(np.float32)
    enlarged = torch.from_numpy(rectifier.output_depth(depth)).double()
    points = unproject(enlarged, torch.from_numpy(rectifier.output_K(rectifier.K))).numpy()
    inner = points[4:-4, 4:-4] @ normal
    assert np.abs(inner - 2).max() < 2e-3


def test_depth_is_not_averaged_across_an_edge_and_NaN_does_not_spread() -> None:
    rectifier = make_rectifier(WIDTH, HEIGHT, None, PreprocessConfig(size=154, output_size="input"))
    w, h = rectifier.plan.network
    depth = np.where(np.arange(w) < w // 2, 1.0, 3.0) * np.ones((h, 1))
    depth[:10] = np.nan
    enlarged = rectifier.output_depth(depth.astype(np.float32))
    assert set(np.unique(enlarged[~np.isnan(enlarged)])) == {1.0, 3.0}
    assert np.isnan(enlarged).mean() == pytest.approx(10 / h, abs=0.01)


@pytest.mark.parametrize("model", ["plumb_bob", "equidistant"])
def test_the_whole_view_is_kept_when_asked_for_and_is_NaN_where_the_lens_saw_nothing(model: DistortionModel) -> None:
    camera = calibration(model)
    inside = make_rectifier(WIDTH, HEIGHT, camera, PreprocessConfig(size=154))
    everything = make_rectifier(WIDTH, HEIGHT, camera, PreprocessConfig(size=154, coverage="all"))
    assert inside.K is not None and everything.K is not None and everything.valid is not None
    assert everything.K[0, 0] < inside.K[0, 0]
    w, h = everything.plan.network
    depth = everything.output_depth(np.ones((h, w), np.float32))
    assert np.array_equal(np.isnan(depth), ~everything.valid)
    assert 0.005 < np.isnan(depth).mean() < 0.5
    # independent: white everywhere comes out black where there is no source
    white = everything.network_image(np.full((HEIGHT, WIDTH, 3), 255, np.uint8))
    assert np.array_equal(white[..., 0] > 0, everything.valid)


def test_a_fisheye_beyond_any_pinhole_is_cut_at_the_widest_view_allowed() -> None:
    camera = Calibration(640, 480, np.array([[160.0, 0, 319.5], [0, 160.0, 239.5], [0, 0, 1]]), "equidistant", (0.0,) * 4)  # 229 degrees
    for coverage in ("inside", "all"):
        rectifier = make_rectifier(640, 480, camera, PreprocessConfig(size=154, max_fov_deg=100, coverage=coverage))
        assert rectifier.K is not None
        assert 2 * np.rad2deg(np.arctan(rectifier.plan.network[0] / 2 / rectifier.K[0, 0])) == pytest.approx(100)
        assert rectifier.valid is None


def test_a_polynomial_that_folds_back_is_not_followed() -> None:
    """Beyond 40 degrees this lens' radius shrinks again: rays from there would land in the image a second time."""
    camera = Calibration(WIDTH, HEIGHT, np.array([[150.0, 0, 159.5], [0, 150.0, 119.5], [0, 0, 1]]), "plumb_bob", (-0.45, 0.0, 0, 0, 0))
    lens = lens_from_calibration(camera)
    assert np.rad2deg(np.arctan(lens.max_radius)) == pytest.approx(np.rad2deg(np.arctan(1 / np.sqrt(3 * 0.45))), abs=0.1)
    assert not np.isnan(lens.pixels(np.array([0.8, 0.0]))).any()
    assert np.isnan(lens.pixels(np.array([0.95, 0.0]))).all()


def test_centred_pinholes_and_images_without_calibration_are_only_resized() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    centred = Calibration(WIDTH, HEIGHT, np.array([[200.0, 0, 159.7], [0, 205.0, 119.5], [0, 0, 1]]), "plumb_bob", (0.0,) * 5)
    config = PreprocessConfig(size=154, output_size="input")
    with_calibration, without = (make_rectifier(WIDTH, HEIGHT, c, config) for c in (centred, None))
    resized = with_calibration.plan.network_image(image)
    for rectifier in (with_calibration, without):
        assert np.array_equal(rectifier.network_image(image), resized)
        assert rectifier.output_image(image, resized) is image
    assert without.K is None
    assert with_calibration.K is not None
    # what was calibrated is kept, to the tenth of a pixel that it is off the centre
    np.testing.assert_allclose(with_calibration.output_K(with_calibration.K), [[200, 0, 160.2], [0, 205, 120], [0, 0, 1]])


def test_a_rigs_other_cameras_fill_the_first_ones_size() -> None:
    upright = Calibration(480, 640, np.array([[400.0, 0, 235.0], [0, 400.0, 322.0], [0, 0, 1]]), "plumb_bob", (-0.1, 0, 0, 0, 0))
    rectifier = make_rectifier(480, 640, upright, PreprocessConfig(size=154), network=(154, 112))
    image = rectifier.network_image(photograph(upright))
    assert rectifier.K is not None
    assert rectifier.K[0, 0] == pytest.approx(rectifier.K[1, 1], rel=0.01)
    assert np.abs(image - pinhole_image(rectifier.K, 154, 112)).mean() < 0.8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width_px": 640}, "its calibration is for 640x240"),
        ({"K": np.zeros((3, 3))}, "no focal length"),
        ({"D": (0.1,) * 9}, "takes 5 finite coefficients"),
        ({"D": (np.nan,)}, "takes 5 finite coefficients"),
        ({"distortion_model": "thin_prism"}, "rectify these images before"),
        ({"K": np.array([[200.0, 0, -300], [0, 200, 100], [0, 0, 1]])}, "principal point"),
    ],
)
def test_calibrations_that_cannot_be_used_are_refused_with_the_reason(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_rectifier(WIDTH, HEIGHT, dataclasses.replace(calibration("plumb_bob"), **change), PreprocessConfig(size=154))


def test_an_image_of_another_size_is_refused() -> None:
    rectifier = make_rectifier(WIDTH, HEIGHT, None, PreprocessConfig(size=154))
    with pytest.raises(ValueError, match="240x320x3"):
        rectifier.network_image(np.zeros((480, 640, 3), np.uint8))


@pytest.mark.parametrize(("dtype", "remedy"), [(np.float32, r"\(255 \* image\)"), (np.uint16, r"\(image >> 8\)")])
def test_an_image_of_other_numbers_is_refused_with_the_conversion(dtype: type[np.generic], remedy: str) -> None:
    rectifier = make_rectifier(WIDTH, HEIGHT, None, PreprocessConfig(size=154))
    with pytest.raises(ValueError, match=f"image of {np.dtype(dtype)} came where uint8 .* was expected: .*{remedy}"):
        rectifier.network_image(np.ones((HEIGHT, WIDTH, 3), dtype))
