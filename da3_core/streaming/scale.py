"""Metres per network unit: what a window's given camera motion says of it, and the running estimate.

A network that was trained as the paper's divides every scene by the mean distance of its points, so its unit follows what the window
sees: neither metres per unit nor metres per unit of the given cameras' normalisation is a constant of a run. What does carry over,
in whatever unit, is the depth of a view that two windows share. So a window whose cameras moved measures its own scale
(`baselines_measured`), a window that cannot see one is chained to the depth that its shared view was given before, and only a window
without either holds the last value, with a variance that says so. All of it in the logarithm, where errors of scale are symmetric.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from da3_core.config import ScaleConfig
from da3_core.geometry.baselines import scale_from_baselines
from da3_core.types import ScaleEstimate, ScaleSource

WINDOW_LOG_SIGMA = 0.05  # of the scale that a window of the usual quality measures
HELD_LOG_SIGMA = 0.05  # what a scale may change by from one window to the next, unseen
SURPRISE_SIGMAS = 3.0  # a window's own scale that misses what was expected by more calls for an explanation
CONTRADICTIONS = 30  # in a row, after which measurements are believed rather than the chain: by then, views from before a jump have left


@dataclass(frozen=True)
class LogScale:
    """Logarithm of metres per network unit, and its variance."""

    value: float
    variance: float


def baselines_measured(given_m: Tensor, predicted: Tensor, config: ScaleConfig) -> dict[ScaleSource, LogScale]:
    """What given camera centres (N, 3) in metres say of predicted ones; nothing when they did not move enough to tell."""
    measured = scale_from_baselines(given_m, predicted, config.min_baseline_m)
    return {} if measured is None else {"baselines": LogScale(math.log(measured[0]), measured[1])}


class RunningScale:
    """A Kalman filter of one state, the logarithm of metres per network unit of the current window.

    A chain predicts it. A measurement that misses the prediction by far is taken for one of poses that jumped, and left out, unless
    that goes on and on: then the chain was wrong. Without a chain the last value predicts it, with `memory` as the weight of the past
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
        self._log = LogScale(0.0, math.inf)
        self._source: ScaleSource = "none"
        self._contradictions = 0

    @property
    def estimate(self) -> ScaleEstimate:
        return ScaleEstimate(math.exp(self._log.value), self._log.variance, self._source)

    @property
    def is_known(self) -> bool:
        """Whether metres are known; else the value is only consistent with itself."""
        return math.isfinite(self._log.variance)

    def step(self, measured: Mapping[ScaleSource, LogScale], chained: LogScale | None, unknown: ScaleSource) -> None:
        """One window: predicted by the chain, or by the last value; corrected by what was measured, the best source last.

        unknown: the source to report while metres are not known.
        """
        if chained:
            measured = self._without_contradictions(measured, chained)
        log = _doubted(chained or self._walked(measured), measured)
        for measurement in measured.values():
            log = _corrected(log, measurement)
        self._log = log
        *_, source = ("chained" if chained else "held", *measured)
        self._source = source if self.is_known else unknown

    def _without_contradictions(self, measured: Mapping[ScaleSource, LogScale], chained: LogScale) -> Mapping[ScaleSource, LogScale]:
        agreeing = {source: scale for source, scale in measured.items() if not _is_surprise(scale, chained)}
        self._contradictions = self._contradictions + 1 if len(agreeing) < len(measured) else 0
        return agreeing if self._contradictions < CONTRADICTIONS else measured

    def _walked(self, measured: Mapping[ScaleSource, LogScale]) -> LogScale:
        """The last value, as uncertain as one window more makes it."""
        return LogScale(self._log.value, self._log.variance + (self._walk if measured else HELD_LOG_SIGMA**2))


def _is_surprise(scale: LogScale, expected: LogScale) -> bool:
    return abs(scale.value - expected.value) > SURPRISE_SIGMAS * math.sqrt(scale.variance + expected.variance)


def _doubted(expected: LogScale, measured: Mapping[ScaleSource, LogScale]) -> LogScale:
    """What was expected, as uncertain as a surprise shows it to be."""
    misses = [(scale.value - expected.value) ** 2 for scale in measured.values() if _is_surprise(scale, expected)]
    return LogScale(expected.value, expected.variance + max(misses, default=0.0))


def _corrected(prior: LogScale, measurement: LogScale) -> LogScale:
    if not math.isfinite(prior.variance):
        return measurement
    gain = prior.variance / (prior.variance + measurement.variance)
    return LogScale(prior.value + gain * (measurement.value - prior.value), (1 - gain) * prior.variance)
