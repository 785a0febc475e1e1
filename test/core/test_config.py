"""Settings are checked, and named in full where they are refused."""

from __future__ import annotations

import pytest

from da3_core.config import StreamConfig, replace_setting


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("filter.max_depth_m", "far", r"^filter\.max_depth_m takes a float, not 'far'"),
        ("filter.max_depth_m", -1, r"^filter\.max_depth_m = -1\.0 is outside \[0\.0, 10000\.0\]: drop depth"),
        ("window.views", True, r"^window\.views takes a int, not True"),
        ("scale.unknown", "guess", r"^scale\.unknown = 'guess' is none of drop, relative"),
        ("scale.known", "drop", r"^unknown setting 'known'; there are min_baseline_m"),
        ("window.views.x", 1, r"^window\.views takes a int, and has no setting 'x'"),
        ("window", None, r"^window takes settings \(views, keyframe_translation_m, .*\), not None"),
    ],
)
def test_a_refused_setting_is_named_in_full(name: str, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace_setting(StreamConfig(), name, value)


def test_one_setting_is_replaced_and_the_others_stay() -> None:
    config = replace_setting(StreamConfig(), "filter.max_depth_m", 4)
    assert config.filter.max_depth_m == 4.0 and isinstance(config.filter.max_depth_m, float)
    assert replace_setting(config, "filter.max_depth_m", StreamConfig().filter.max_depth_m) == StreamConfig()
