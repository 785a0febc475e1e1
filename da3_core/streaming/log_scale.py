"""A scale and how far it can be trusted, in the logarithm, where errors of scale are symmetric."""

from __future__ import annotations

import math
from dataclasses import dataclass

SURPRISE_SIGMAS = 3.0  # a scale that misses what was expected by more calls for an explanation


@dataclass(frozen=True)
class LogScale:
    """Logarithm of metres per network unit, with the variance of its chance errors, which averaging makes smaller, and of its bias: what
    its source gets wrong in the same way again and again."""

    value: float
    variance: float
    bias_variance: float = 0.0

    @property
    def total_variance(self) -> float:
        return self.variance + self.bias_variance

    def variance_from(self, expected: LogScale) -> float:
        """Of the difference. A bias that both may share does not come between them."""
        return self.variance + expected.variance + abs(self.bias_variance - expected.bias_variance)

    def surprises(self, expected: LogScale) -> bool:
        """Whether it misses what was expected by too much."""
        return abs(self.value - expected.value) > SURPRISE_SIGMAS * math.sqrt(self.variance_from(expected))

    def corrected(self, measured: LogScale) -> LogScale:
        """Kalman's step, on what is uncertain beyond the measurement's bias: that is there however often the same source is asked."""
        if not math.isfinite(self.variance):
            return measured
        excess = max(0.0, self.total_variance - measured.bias_variance)
        gain = excess / (excess + measured.variance)
        bias = (1 - gain) * math.sqrt(self.bias_variance) + gain * math.sqrt(measured.bias_variance)
        variance = (1 - gain) ** 2 * self.variance + gain**2 * measured.variance
        return LogScale(self.value + gain * (measured.value - self.value), variance, bias**2)
