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
OUTLIER_SIGMAS = 3.0  # a window's own scale pulls the running one by at most as much


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

    `memory` is the weight of the past against a window of the usual quality: with a random walk q the steady gain is 1 - memory.
    A worse window counts less, a better one more, and one that is far off pulls no further than OUTLIER_SIGMAS.
    """

    def __init__(self, config: ScaleConfig) -> None:
        gain = 1 - config.memory
        self._walk = gain**2 * WINDOW_LOG_SIGMA**2 / config.memory if config.memory else math.inf
        self.reset()

    def reset(self) -> None:
        self._log = LogScale(0.0, math.inf)
        self._source: ScaleSource = "none"

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
        walk = self._walk if measured else HELD_LOG_SIGMA**2
        log = chained or LogScale(self._log.value, self._log.variance + walk)
        source: ScaleSource = "chained" if chained else "held"
        for source, measurement in measured.items():  # noqa: B007
            log = _corrected(log, measurement)
        self._log = log
        self._source = source if self.is_known else unknown


def _corrected(prior: LogScale, measurement: LogScale) -> LogScale:
    if not math.isfinite(prior.variance):
        return measurement
    total = prior.variance + measurement.variance
    bound = OUTLIER_SIGMAS * math.sqrt(total)
    innovation = min(max(measurement.value - prior.value, -bound), bound)
    gain = prior.variance / total
    return LogScale(prior.value + gain * innovation, (1 - gain) * prior.variance)
