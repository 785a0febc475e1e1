"""Metres per network unit: what a window's given camera motion says of it, and the running estimate.

A network that was trained as the paper's divides every scene by the mean distance of its points, so its unit follows what the window
sees: neither metres per unit nor metres per unit of the given cameras' normalisation is a constant of a run. What does carry over,
in whatever unit, is the depth of a view that two windows share. So a window whose cameras moved measures its own
scale, a window that cannot see one is chained to the depth that its shared view was given before, and only a window
without either holds the last value, with a variance that says so. All of it in the logarithm, where errors of scale are symmetric.

Motion shows the scale in two ways. By parallax (`parallax_measured`): how points move in the images, given how the camera moved, against
their predicted depth. Or by the camera centres (`baselines_measured`), which trusts the network's own cameras: a small network may predict
motion too short, by a half and more, and depth then comes out too large. So parallax is asked first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import torch

from da3_core.config import ScaleConfig
from da3_core.geometry.baselines import scale_from_baselines
from da3_core.geometry.rigid import invert_rigid, matrix_product
from da3_core.streaming.log_scale import LogScale
from da3_core.streaming.parallax import window_parallax
from da3_core.streaming.predicted import PredictedWindow
from da3_core.types import ScaleEstimate, ScaleSource

WINDOW_LOG_SIGMA = 0.05  # of the scale that a window of the usual quality measures
MOTION_NOISE = 0.1  # expected error of given motion from view to view, as a share of the smallest baseline that is trusted
DEPTH_BIAS = 0.03  # of a predicted depth map as a whole, against its part that was tracked
GIVEN_CAMERAS_BIAS, CAMERAS_BIAS = 0.1, 0.25  # of a network's motion, against its depth: where it was given that motion, and where not
PRECISE_LOG_SIGMA = 0.08  # of a scale by parallax that needs no better
HELD_LOG_SIGMA = 0.05  # what a scale may change by from one window to the next, unseen
DRIFT_GAIN = 0.2  # by which one miss teaches how much the chain drifts
CONTRADICTIONS = 30  # in a row, after which measurements are believed rather than the chain: by then, views from before a jump have left


def baselines_measured(window: PredictedWindow, config: ScaleConfig) -> dict[ScaleSource, LogScale]:
    """What given camera centres in metres say of predicted ones; nothing when they did not move enough to tell."""
    if len(window.given) < 2:
        return {}
    given_m = torch.stack(list(window.given.values()))[:, :3, 3]
    measured = scale_from_baselines(given_m, window.T_window_cam[list(window.given), :3, 3], config.min_baseline_m)
    if measured is None:
        return {}
    bias = GIVEN_CAMERAS_BIAS if window.choice.mode == "posed" else CAMERAS_BIAS
    return {"baselines": LogScale(math.log(measured[0]), measured[1], bias**2)}


def parallax_measured(window: PredictedWindow, config: ScaleConfig) -> dict[ScaleSource, LogScale] | None:
    """What tracked points say of predicted depth, given how the camera moved; None where it did not, or too few can be tracked.

    Asked are the first newest view and the last view of its camera that was far enough away; where that is not precise, the oldest, too.
    Where no scale, nor a small rotation found with it, explains the tracks, depth or poses are wrong, and nothing follows.
    """
    now = window.wanted[0]
    distant = _distant(window, now, config.min_baseline_m)
    fits = []
    for before in distant[-1:] + distant[:-1][:1]:
        T_before_now = matrix_product(invert_rigid(window.given[before]), window.given[now])
        fit = window_parallax(window, before, T_before_now)
        if fit is not None:
            pose_variance = (MOTION_NOISE * config.min_baseline_m / float(T_before_now[:3, 3].norm())) ** 2
            fits.append((fit, LogScale(fit.log_scale, fit.log_variance + pose_variance, DEPTH_BIAS**2)))
            if fit.is_good and fit.log_variance < PRECISE_LOG_SIGMA**2:
                break
    good = [scale for fit, scale in fits if fit.is_good]
    if not fits:
        return None
    return {"parallax": min(good, key=lambda scale: scale.variance)} if good else {}


def _distant(window: PredictedWindow, now: int, min_baseline_m: float) -> list[int]:
    """Views of the camera of the view `now` that are given at least so far away from it, oldest first."""
    earlier = [i for i in window.earlier(now) if i in window.given and now in window.given]
    return [i for i in earlier if float((window.given[i][:3, 3] - window.given[now][:3, 3]).norm()) >= min_baseline_m]


class RunningScale:
    """A Kalman filter of one state, the logarithm of metres per network unit of the current window.

    A chain predicts it. A measurement that misses the prediction by far is taken for one of poses that jumped, and left out, unless
    that goes on and on: then the chain was wrong. It was, too, where parallax contradicts what no parallax has confirmed: a network's
    camera centres can be off by a factor of three. Without a chain the last value predicts it, with `memory` as the weight of the past
    against a window of the usual quality: a random walk of variance q makes the steady gain 1 - memory. There a measurement that misses
    by far is believed at once: it is wrong by what its variance says, a unit that no longer holds by anything.
    """

    def __init__(self, config: ScaleConfig) -> None:
        self.configure(config)
        self.reset()

    def configure(self, config: ScaleConfig) -> None:
        """New settings, from the next step on."""
        gain = 1 - config.memory
        self._walk = gain**2 * WINDOW_LOG_SIGMA**2 / config.memory if config.memory else math.inf

    def reset(self) -> None:
        self.log = LogScale(0.0, math.inf)
        self._source: ScaleSource = "none"
        self._contradictions = 0
        self._is_confirmed = False  # by parallax
        self._drift = 0.0  # variance of a step of the chain, beyond what it says itself

    @property
    def estimate(self) -> ScaleEstimate:
        return ScaleEstimate(math.exp(self.log.value), self.log.total_variance, self._source)

    @property
    def is_known(self) -> bool:
        """Whether metres are known; else the value is only consistent with itself."""
        return math.isfinite(self.log.variance)

    def step(self, measured: Mapping[ScaleSource, LogScale], chained: LogScale | None, unknown: ScaleSource) -> None:
        """One window: predicted by the chain, or by the last value; corrected by what was measured, the best source last.

        unknown: the source to report while metres are not known.
        """
        expected = self._walked(measured) if chained is None else replace(chained, variance=chained.variance + self._drift)
        measured = {source: scale for source, scale in measured.items() if scale.bias_variance < expected.total_variance}
        if chained is not None and self._is_overruled(measured, expected):
            self._contradictions = 0
        elif chained is not None:
            agreeing = {source: scale for source, scale in measured.items() if not scale.surprises(expected)}
            self._learn_drift(agreeing, expected)
            self._contradictions = self._contradictions + 1 if len(agreeing) < len(measured) else 0
            measured = agreeing if self._contradictions < CONTRADICTIONS else measured
        self.log = _doubted(expected, measured)
        for measurement in measured.values():
            self.log = self.log.corrected(measurement)
        *_, source = ("held" if chained is None else "chained", *measured)
        self._source = source if self.is_known else unknown
        self._is_confirmed = self._is_confirmed or "parallax" in measured

    def _is_overruled(self, measured: Mapping[ScaleSource, LogScale], chained: LogScale) -> bool:
        """Whether parallax contradicts a chain that rests on a network's cameras or metres alone."""
        return not self._is_confirmed and "parallax" in measured and measured["parallax"].surprises(chained)

    def _learn_drift(self, measured: Mapping[ScaleSource, LogScale], chained: LogScale) -> None:
        """Moves the variance of a step of the chain to where it explains how far measurements are from the chain."""
        for scale in measured.values():
            unexplained = (scale.value - chained.value) ** 2 - scale.variance_from(chained)
            self._drift = max(0.0, self._drift + DRIFT_GAIN * unexplained)

    def _walked(self, measured: Mapping[ScaleSource, LogScale]) -> LogScale:
        """The last value, as uncertain as one window more makes it."""
        return replace(self.log, variance=self.log.variance + (self._walk if measured else HELD_LOG_SIGMA**2))


def _doubted(expected: LogScale, measured: Mapping[ScaleSource, LogScale]) -> LogScale:
    """What was expected, as uncertain as a surprise shows it to be."""
    misses = [(scale.value - expected.value) ** 2 for scale in measured.values() if scale.surprises(expected)]
    return replace(expected, variance=expected.variance + max(misses, default=0.0))
