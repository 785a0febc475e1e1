from __future__ import annotations

import numpy as np
import pytest

from da3_core.config import FilterConfig
from da3_core.streaming.filters import without_untrusted

KEEP_ALL = FilterConfig(min_confidence=1.0, edge_ratio=0.0, drop_sky=False, max_depth_m=0.0)


def test_each_setting_drops_what_it_says_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    depth = rng.uniform(1, 9, (20, 30)).astype(np.float32)
    confidence = rng.uniform(1, 5, (20, 30)).astype(np.float32)
    sky = rng.uniform(0, 1, (20, 30)).astype(np.float32)
    kept = without_untrusted(depth, confidence, sky, KEEP_ALL)
    np.testing.assert_array_equal(kept, depth)
    for config, dropped in (
        (FilterConfig(2.5, 0.0, False, 0.0), confidence < 2.5),
        (FilterConfig(1.0, 0.0, True, 0.0), sky >= 0.3),
        (FilterConfig(1.0, 0.0, False, 4.0), depth > 4),
    ):
        np.testing.assert_array_equal(np.isnan(without_untrusted(depth, confidence, sky, config)), dropped)
    np.testing.assert_array_equal(without_untrusted(depth, None, None, FilterConfig(2.5, 0.0, True, 0.0)), depth)


def test_flying_pixels_go_and_slopes_stay() -> None:
    slope = np.tile(np.linspace(2, 3, 40, dtype=np.float32), (20, 1))  # 2.5 per cent from pixel to pixel at most
    depth = slope.copy()
    depth[5:15, 10:20] = 1.0
    depth[5:15, 20] = 1.6  # between the box and the wall behind
    kept = without_untrusted(depth, None, None, FilterConfig(edge_ratio=0.1))
    assert np.isnan(kept[5:15, 20]).all()
    assert np.isnan(kept[5:15, 9:11]).all()
    assert not np.isnan(kept[6:14, 11:19]).any()
    assert not np.isnan(kept[:, 22:]).any()


def test_what_is_not_finite_or_not_in_front_is_no_depth() -> None:
    depth = np.array([[np.nan, np.inf, 0.0, -1.0, 2.0]], np.float32)
    np.testing.assert_array_equal(np.isnan(without_untrusted(depth, None, None, KEEP_ALL)), [[True, True, True, True, False]])


@pytest.mark.parametrize("unknown", [np.nan, np.inf])
def test_beside_what_is_not_finite_there_is_an_edge_on_every_side(unknown: float) -> None:
    depth = np.ones((40, 50), np.float32)
    depth[17, 23] = unknown
    around = np.zeros(depth.shape, bool)
    around[16:19, 22:25] = True
    np.testing.assert_array_equal(np.isnan(without_untrusted(depth, None, None, FilterConfig(edge_ratio=0.1))), around)
