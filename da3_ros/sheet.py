"""The demo's picture: what was seen, what came out, what is true, and the room from above."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from da3_core import Float64Array, Uint8Array

from .comparison import ComparedFrame

MAX_ERROR = 0.5  # relative; white
MARGIN_M = 1.0
HEIGHT_SHOWN_M = (-0.2, 1.9)  # of the cloud from above: not the ceiling


def draw_sheet(
    path: Path,
    title: str,
    frames: Sequence[ComparedFrame],
    cloud: tuple[Float64Array, Uint8Array],
    paths: dict[str, Float64Array],
) -> None:
    """A PNG: a row per frame (image, depth, truth, relative error), below it the cloud from above with paths (N, 3) by name."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 2.6 * len(frames) + 6), layout="constrained")
    figure.suptitle(title)
    upper, lower = figure.subfigures(2, 1, squeeze=False, height_ratios=[2.6 * len(frames), 6])[:, 0]
    axes = upper.subplots(len(frames), 4, squeeze=False)
    for row, frame in zip(axes, frames, strict=True):
        _draw_frame(figure, row, frame)
    for axis, name in zip(axes[0], ("image", "depth [m]", "true depth [m]", f"relative error, up to {MAX_ERROR:.0%}"), strict=True):
        axis.set_title(name)
    _draw_from_above(lower.subplots(), *cloud, paths)
    figure.savefig(path, dpi=110)


def _draw_frame(figure: Any, axes: Sequence[Any], frame: ComparedFrame) -> None:
    from matplotlib.colors import LogNorm
    from matplotlib.ticker import LogLocator, NullLocator

    scale = LogNorm(*np.nanpercentile(frame.true_depth_m, (1, 99)))
    error = np.abs(frame.depth_m - frame.true_depth_m) / frame.true_depth_m
    axes[0].imshow(frame.image)
    for axis, depth in zip(axes[1:3], (frame.depth_m, frame.true_depth_m), strict=True):
        shown = axis.imshow(depth, norm=scale, cmap="turbo_r")
    ticks = LogLocator(subs=(1, 1.5, 2, 3, 5, 7))
    figure.colorbar(shown, ax=list(axes[1:3]), ticks=ticks, format="%g").ax.yaxis.set_minor_locator(NullLocator())
    figure.colorbar(axes[3].imshow(error, vmin=0, vmax=MAX_ERROR, cmap="gray"), ax=axes[3])
    for axis in axes:
        axis.set_xticks([])
        axis.set_yticks([])


def _draw_from_above(axis: Any, points: Float64Array, colours: Uint8Array, paths: dict[str, Float64Array]) -> None:
    low, high = HEIGHT_SHOWN_M
    shown = (points[:, 2] > low) & (points[:, 2] < high)
    axis.scatter(points[shown, 0], points[shown, 1], c=colours[shown] / 255.0, s=0.4, linewidths=0)
    for name, positions in paths.items():
        axis.plot(positions[:, 0], positions[:, 1], label=name, linewidth=1.5)
    axis.set_title("cloud from above, and the camera's path")
    axis.set_xlabel("x [m]")
    axis.set_ylabel("y [m]")
    _look_around(axis, points[shown, :2])
    axis.legend(loc="upper right")


def _look_around(axis: Any, points: Float64Array) -> None:
    """Both axes alike, over nearly all points: what is seen far away through a window is left out."""
    axis.set_aspect("equal")
    if len(points):
        low, high = np.nanpercentile(points, (2, 98), axis=0)
        axis.set_xlim(low[0] - MARGIN_M, high[0] + MARGIN_M)
        axis.set_ylim(low[1] - MARGIN_M, high[1] + MARGIN_M)
