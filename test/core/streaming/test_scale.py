from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from da3_core.config import ScaleConfig
from da3_core.geometry.rigid import invert_rigid
from da3_core.streaming.log_scale import LogScale
from da3_core.streaming.predicted import Choice, PredictedWindow
from da3_core.streaming.scale import CAMERAS_BIAS, GIVEN_CAMERAS_BIAS, RunningScale, baselines_measured
from da3_core.types import Float64Array, Prediction

CONFIG = ScaleConfig()


def window_of(room, given_m: Float64Array, predicted: Float64Array) -> PredictedWindow:
    """Cameras that all look ahead, given and predicted at these centres (N, 3)."""
    views = [room.view(k, room.pose(*centre)) for k, centre in enumerate(given_m)]
    T_window_cam = torch.from_numpy(np.stack([room.pose(*centre) for centre in predicted]))
    return PredictedWindow(views, 1, [len(views) - 1], Choice("posed", ""), Prediction(T_cam_world=invert_rigid(T_window_cam)))


def measured(value: float, sigma: float = 0.05) -> dict[str, LogScale]:
    return {"baselines": LogScale(math.log(value), sigma**2)}


@pytest.mark.parametrize(
    ("centres", "tolerance"),
    [
        ([[0, 0, 0], [0.4, 0, 0]], 0.08),
        ([[0.2 * k, 0, 0] for k in range(4)], 0.03),
        ([[np.cos(a), 0, np.sin(a)] for a in np.linspace(0, 1, 4)], 0.02),
        ([[0, 0, 0], [0.07, 0, 0]], 0.4),
    ],
    ids=["two views", "straight line", "arc", "seven centimetres"],
)
def test_baselines_give_the_true_multiplier_with_an_honest_variance(room, centres: list[list[float]], tolerance: float) -> None:
    """The table of the specification: true multiplier 2, given centres with 1 cm of noise."""
    rng = np.random.default_rng(0)
    errors, sigmas = [], []
    for _ in range(100):
        given = np.array(centres) + rng.normal(0, 0.01, (len(centres), 3))
        scale = baselines_measured(window_of(room, given, np.array(centres) / 2), CONFIG).get("baselines")
        if scale is not None:
            errors.append(scale.value - math.log(2))
            sigmas.append(math.sqrt(scale.variance))
    assert len(errors) > 75
    assert abs(np.median(errors)) < tolerance / 4
    assert np.std(errors) < tolerance
    assert np.std(errors) < 1.5 * np.median(sigmas)


@pytest.mark.parametrize("centres", [[[0, 0, 0]], [[0, 0, 0]] * 4], ids=["one view", "rotation only or standing still"])
def test_no_motion_gives_no_scale_even_with_jitter(room, centres: list[list[float]]) -> None:
    rng = np.random.default_rng(0)
    for _ in range(100):
        given, predicted = (np.array(centres) + rng.normal(0, 0.002, (len(centres), 3)) for _ in range(2))
        assert baselines_measured(window_of(room, given, predicted), CONFIG) == {}


def test_cameras_that_the_network_was_given_are_believed_sooner(room) -> None:
    centres = np.array([[0, 0, 0], [0.4, 0, 0]])
    window = window_of(room, centres, centres / 2)
    chained = LogScale(math.log(2.3), 0.2**2)  # a chain that has drifted away, and says so
    for mode, source, misses in (("posed", "baselines", 0.02), ("unposed", "chained", 0.14)):
        scale = RunningScale(CONFIG)
        scale.step(baselines_measured(replace(window, choice=Choice(mode, "")), CONFIG), chained, unknown="none")
        assert scale.estimate.source == source
        assert scale.log.value - math.log(2) == pytest.approx(misses, abs=0.03)


def test_before_the_first_measurement_there_are_no_metres() -> None:
    scale = RunningScale(CONFIG)
    scale.step({}, None, unknown="none")
    assert (scale.estimate.value, scale.estimate.source, scale.estimate.is_metric) == (1.0, "none", False)
    scale.step({}, LogScale(0.3, math.inf), unknown="network")
    assert (scale.estimate.source, scale.estimate.is_metric) == ("network", False)
    scale.step(measured(2.0), None, unknown="none")
    assert scale.estimate.value == pytest.approx(2.0)
    assert scale.estimate.is_metric


def test_a_steady_unit_is_averaged_with_the_weight_that_memory_says() -> None:
    """Each measurement weighs 1 - memory of the step before: the variance of the mean is that of an exponential filter."""
    rng = np.random.default_rng(0)
    for memory in (0.0, 0.5, 0.9):
        scale, errors = RunningScale(ScaleConfig(memory=memory)), []
        for k in range(4000):
            scale.step(measured(2 * math.exp(rng.normal(0, 0.05))), None, unknown="none")
            errors += [math.log(scale.estimate.value / 2)] if k > 100 else []
        gain = 1 - memory
        assert np.std(errors) == pytest.approx(0.05 * math.sqrt(gain / (2 - gain)), rel=0.4)


def test_a_unit_that_jumps_is_followed_at_once_and_one_that_wanders_without_lag() -> None:
    scale = RunningScale(ScaleConfig(memory=0.9))
    for _ in range(50):
        scale.step(measured(2.0, 0.03), None, unknown="none")
    scale.step(measured(0.5, 0.03), None, unknown="none")
    assert scale.estimate.value == pytest.approx(0.5, rel=0.02)
    rng, errors = np.random.default_rng(1), []
    for _ in range(300):
        true = math.exp(rng.uniform(-1, 1))  # every window has its own
        scale.step(measured(true * math.exp(rng.normal(0, 0.03)), 0.03), None, unknown="none")
        errors.append(math.log(scale.estimate.value / true))
    assert np.std(errors) < 0.06


def test_it_holds_when_it_cannot_see_and_grows_less_certain() -> None:
    scale = RunningScale(CONFIG)
    scale.step(measured(2.0), None, unknown="none")
    before = scale.estimate
    for _ in range(10):
        scale.step({}, None, unknown="none")
    assert scale.estimate.value == before.value
    assert scale.estimate.source == "held"
    assert scale.estimate.log_variance == pytest.approx(before.log_variance + 10 * 0.05**2)


def test_poses_that_jump_once_do_not_move_a_chained_scale_and_a_chain_that_was_wrong_gives_way() -> None:
    scale = RunningScale(CONFIG)
    scale.step(measured(2.0, 0.03), None, unknown="none")
    for _ in range(29):
        scale.step(measured(9.0, 0.03), LogScale(math.log(2.0), 0.001), unknown="none")
        assert scale.estimate.value == pytest.approx(2.0)
        assert scale.estimate.source == "chained"
    scale.step(measured(9.0, 0.03), LogScale(math.log(2.0), 0.001), unknown="none")
    assert scale.estimate.value == pytest.approx(9.0, rel=0.01)
    assert scale.estimate.source == "baselines"
    # and that it was wrong once is not how much it drifts from step to step
    scale.step({}, LogScale(math.log(9.0), 0.001), unknown="none")
    assert scale.estimate.log_variance == pytest.approx(0.001)


def test_a_chain_that_parallax_overruled_is_contradicted_anew() -> None:
    scale, cameras = RunningScale(CONFIG), measured(9.0, 0.03)
    scale.step(measured(2.0, 0.03), None, unknown="none")
    for _ in range(29):
        scale.step(cameras, LogScale(math.log(2.0), 0.001), unknown="none")
    scale.step({"parallax": LogScale(math.log(4.0), 0.001)}, LogScale(math.log(2.0), 0.001), unknown="none")
    assert scale.estimate.value == pytest.approx(4.0, rel=0.01)
    scale.step(cameras, LogScale(math.log(4.0), 0.001), unknown="none")
    assert scale.estimate.value == pytest.approx(4.0, rel=0.01)
    assert scale.estimate.source == "chained"


def test_the_chain_carries_the_unit_over() -> None:
    scale = RunningScale(CONFIG)
    scale.step(measured(2.0), None, unknown="none")
    scale.step({}, LogScale(math.log(6.0), 0.004), unknown="none")
    assert scale.estimate.value == pytest.approx(6.0)
    assert scale.estimate.source == "chained"
    # and is averaged with a measurement by inverse variance
    scale.step(measured(5.5, math.sqrt(0.004)), LogScale(math.log(6.0), 0.004), unknown="none")
    assert scale.estimate.value == pytest.approx(math.sqrt(33.0))
    assert scale.estimate.log_variance == pytest.approx(0.002)
    assert scale.estimate.source == "baselines"


@pytest.mark.parametrize("sigma", [0.0, 0.15])
def test_how_much_the_chain_drifts_is_learnt_from_what_is_measured(sigma: float) -> None:
    """A chain that claims to be certain, and errs by sigma at every step."""
    rng, scale = np.random.default_rng(0), RunningScale(CONFIG)
    scale.step(measured(1.0, 0.03), None, unknown="none")
    errors = []
    for k in range(200):
        chained = LogScale(math.log(scale.estimate.value) + rng.normal(0, sigma), scale.log.variance + 1e-4)
        scale.step(measured(math.exp(rng.normal(0, 0.03)), 0.03), chained, unknown="none")
        errors += [math.log(scale.estimate.value)] if k > 30 else []
    assert np.std(errors) < (0.02 if sigma == 0 else 0.04)
    scale.step({}, LogScale(math.log(scale.estimate.value), scale.log.variance), unknown="none")
    assert math.sqrt(scale.estimate.log_variance) == pytest.approx(max(sigma, 0.02), rel=0.5)


@pytest.mark.parametrize("bias", [CAMERAS_BIAS, GIVEN_CAMERAS_BIAS])
def test_a_scale_by_the_networks_cameras_is_replaced_by_parallax_at_once_and_not_the_other_way_round(bias: float) -> None:
    scale, cameras, parallax = (
        RunningScale(CONFIG),
        {"baselines": LogScale(math.log(6.0), 0.002, bias**2)},
        LogScale(math.log(2.0), 0.003, 0.001),
    )
    for _ in range(10):
        scale.step(cameras, None, unknown="none")
    scale.step({"parallax": parallax}, scale.log, unknown="none")
    assert scale.estimate.value == pytest.approx(2.0, rel=0.02)
    for _ in range(10):
        scale.step(cameras, scale.log, unknown="none")
    assert scale.estimate.value == pytest.approx(2.0, rel=0.02)
    assert scale.estimate.source == "chained"
    scale.step({"parallax": replace(parallax, value=math.log(6.0))}, scale.log, unknown="none")  # of a pose that jumped
    assert scale.estimate.value == pytest.approx(2.0, rel=0.02)
    scale.reset()
    scale.step(cameras, None, unknown="none")
    scale.step({"parallax": parallax}, scale.log, unknown="none")
    assert scale.estimate.value == pytest.approx(2.0, rel=0.02)
