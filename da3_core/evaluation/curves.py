"""What more views bring, drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from da3_core.evaluation.report import Report, Row

Curve = tuple[list[int], list[float]]  # view counts, and what was measured with so many

STYLES = {"posed": "-", "unposed": "--"}


def curves(rows: Sequence[Row], figure: str) -> Mapping[tuple[str, str], Curve]:
    """Curves of `figure`, a number of a row, over the view count: by mode and image size, depth after one median per view."""
    found: dict[tuple[str, str], Curve] = {}
    for row in rows:
        value = getattr(row, figure)
        if row.alignment == "median_per_view" and value is not None:
            views, values = found.setdefault((row.mode, f"{row.height_px}×{row.width_px}"), ([], []))
            views.append(row.views)
            values.append(value)
    return found


def draw_curves(report: Report, path: Path) -> None:
    """A picture of AbsRel and pose AUC30 over the number of views. Raises ValueError when the report has no any-view rows."""
    if not curves(report.rows, "abs_rel"):
        raise ValueError(f"{report.model} sees single views: there is no curve over the number of views to draw")
    from matplotlib.figure import Figure

    picture = Figure(figsize=(9, 3.4), layout="constrained")
    picture.suptitle(f"{report.model}, {report.settings['scenes']} scenes")
    axes = picture.subplots(1, 2)
    for axis, (figure, name) in zip(axes, (("abs_rel", "AbsRel after one median per view"), ("auc30", "pose AUC30")), strict=True):
        sizes: dict[str, str] = {}
        for (mode, size), (views, values) in curves(report.rows, figure).items():
            colour = sizes.setdefault(size, f"C{len(sizes)}")
            axis.plot(views, values, STYLES[mode], marker="o", color=colour, label=f"{mode}, {size}")
        axis.set(title=name, xlabel="views", xscale="log", xticks=sorted({row.views for row in report.rows}), ylim=(0, None))
        axis.xaxis.set_major_formatter("{x:g}")
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0].legend()
    picture.savefig(path, dpi=110)
