"""Scores of many scenes as rows of a table."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from da3_core.evaluation.scores import PoseScore, SceneAlignment, SceneScore

RowMode = Literal["posed", "unposed", "mono", "metric"]


@dataclass(frozen=True)
class Row:
    """Means over scenes. None where the model says nothing of it, or no scene could be scored."""

    mode: RowMode
    alignment: SceneAlignment
    views: int
    height_px: int
    width_px: int
    focal: tuple[float, float] | None  # only scenes whose fx over the image's width lies here
    scenes: int  # that the means are of
    failed: int  # left out: the model gave no finite depth
    abs_rel: float | None
    sq_rel: float | None  # metres
    delta1: float | None
    delta2: float | None
    delta3: float | None
    auc3: float | None
    auc30: float | None
    auc30_joint: float | None
    rra5: float | None  # accuracies at so many degrees
    rra15: float | None
    rra30: float | None
    rta5: float | None
    rta15: float | None
    rta30: float | None
    sky_iou: float | None
    fell_back: int  # scenes aligned by the median because their given cameras moved too little


@dataclass(frozen=True)
class Report:
    """What was measured and how."""

    model: str
    settings: dict[str, Any]
    rows: list[Row]

    def to_json(self) -> str:
        """The report, indented."""
        return json.dumps(dataclasses.asdict(self), indent=2)

    def to_markdown(self) -> str:
        """A table that people, GitHub and `rich.markdown` read."""
        lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
        lines += ["| " + " | ".join(_cells(row)) + " |" for row in self.rows]
        return "\n".join(lines) + "\n"


COLUMNS = ("mode", "alignment", "views", "size", "focal / width", "scenes", "AbsRel", "δ1", "AUC3", "AUC30", "sky IoU")


def _cells(row: Row) -> list[str]:
    fell_back = f" (median in {row.fell_back})" if row.fell_back else ""
    focal = "all" if row.focal is None else f"{row.focal[0]:g} to {row.focal[1]:g}"
    numbers = (row.abs_rel, row.delta1, row.auc3, row.auc30, row.sky_iou)
    size = f"{row.height_px}×{row.width_px}"
    scenes = f"{row.scenes}" + (f" ({row.failed} failed)" if row.failed else "")
    return [row.mode, row.alignment + fell_back, str(row.views), size, focal, scenes, *map(_number, numbers)]


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def row_from_scores(
    mode: RowMode,
    alignment: SceneAlignment,
    views: int,
    size: tuple[int, int],
    scores: Sequence[SceneScore],
    focal: tuple[float, float] | None = None,
) -> Row:
    """Means of the scores, of those scenes whose focal length over the image's width lies in `focal` where that is given."""
    if focal is not None:
        scores = [s for s in scores if focal[0] <= s.focal <= focal[1]]
    failed = sum(math.isnan(s.abs_rel) for s in scores)
    scores = [s for s in scores if not math.isnan(s.abs_rel)]
    poses = [s.pose for s in scores if s.pose is not None]
    sky = [s.sky for s in scores if s.sky is not None]
    union = sum(u for _, u in sky)
    return Row(
        mode=mode,
        alignment=alignment,
        views=views,
        height_px=size[0],
        width_px=size[1],
        focal=focal,
        scenes=len(scores),
        failed=failed,
        **{name: _mean([getattr(s, name) for s in scores]) for name in ("abs_rel", "sq_rel", "delta1", "delta2", "delta3")},
        **{f.name: _mean([getattr(p, f.name) for p in poses]) for f in dataclasses.fields(PoseScore)},
        sky_iou=sum(i for i, _ in sky) / union if union else None,
        fell_back=sum(s.fell_back for s in scores),
    )


def _mean(values: Sequence[float]) -> float | None:
    """Of those that are known."""
    known = [v for v in values if not math.isnan(v)]
    return sum(known) / len(known) if known else None
