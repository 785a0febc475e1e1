"""Curves over the number of views hold the table's numbers."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import pytest

from da3_core.evaluation.curves import curves, draw_curves
from da3_core.evaluation.report import Report, Row, RowMode, row_from_scores
from da3_core.evaluation.scores import SceneAlignment


def row(mode: RowMode, alignment: SceneAlignment, views: int, abs_rel: float, auc30: float | None) -> Row:
    return dataclasses.replace(row_from_scores(mode, alignment, views, (168, 224), []), abs_rel=abs_rel, auc30=auc30)


ROWS = [
    row("posed", "baselines", 1, 9.0, None),
    row("posed", "median", 1, 8.0, None),
    row("posed", "median_per_view", 1, 0.3, None),
    row("unposed", "median_per_view", 1, 0.35, None),
    row("posed", "median_per_view", 4, 0.1, 0.9),
    row("unposed", "median_per_view", 4, 0.2, 0.5),
]


def test_curves_are_of_depth_after_a_median_per_view_and_of_what_was_measured() -> None:
    assert curves(ROWS, "abs_rel") == {("posed", "168×224"): ([1, 4], [0.3, 0.1]), ("unposed", "168×224"): ([1, 4], [0.35, 0.2])}
    assert curves(ROWS, "auc30") == {("posed", "168×224"): ([4], [0.9]), ("unposed", "168×224"): ([4], [0.5])}


def test_a_picture_is_drawn(tmp_path: Path) -> None:
    draw_curves(Report("da3-nano", {"scenes": 24}, ROWS), tmp_path / "curves.png")
    picture = cv2.imread(str(tmp_path / "curves.png"))
    assert picture is not None and picture.shape[1] > 800 and picture.std() > 10


def test_single_views_have_no_curve(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="sees single views"):
        draw_curves(Report("da3metric-nano", {"scenes": 24}, [row("metric", "none", 1, 0.2, None)]), tmp_path / "curves.png")
