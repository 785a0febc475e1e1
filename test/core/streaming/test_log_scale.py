from __future__ import annotations

import math

import numpy as np
import pytest

from da3_core.streaming.log_scale import LogScale

UNKNOWN = LogScale(0.0, math.inf)


def test_chance_averages_out_and_a_bias_does_not() -> None:
    log = UNKNOWN
    for _ in range(100):
        log = log.corrected(LogScale(1.0, 0.04, 0.01))
    assert log.variance == pytest.approx(0.04 / 100)
    assert log.bias_variance == pytest.approx(0.01)


def test_a_better_source_takes_over_and_a_worse_one_is_not_heard() -> None:
    poor, good = LogScale(1.0, 0.001, 0.25), LogScale(0.3, 0.002, 0.001)
    assert poor.corrected(good).value == pytest.approx(0.3, abs=0.01)
    assert poor.corrected(good).total_variance < 0.005
    assert good.corrected(poor).value == good.value
    assert good.corrected(poor).total_variance == pytest.approx(good.total_variance)


def test_sources_of_one_bias_are_surprised_by_less_than_sources_of_two() -> None:
    expected = LogScale(0.0, 0.0025, 0.25)
    assert LogScale(0.4, 0.0025, 0.25).surprises(expected)
    assert not LogScale(0.4, 0.0025, 0.001).surprises(expected)


def test_the_variance_is_that_of_the_errors() -> None:
    """Of two sources with biases of their own, drawn anew for each of many runs."""
    rng = np.random.default_rng(0)
    misses, variances = [], []
    for _ in range(2000):
        biases, log = rng.normal(0, [0.3, 0.05]), UNKNOWN
        for _ in range(5):
            for bias, sigma in zip(biases, [0.3, 0.05], strict=True):
                log = log.corrected(LogScale(bias + rng.normal(0, 0.1), 0.1**2, sigma**2))
        misses.append(log.value)
        variances.append(log.total_variance)
    assert np.mean(np.square(misses)) == pytest.approx(np.mean(variances), rel=0.3)
