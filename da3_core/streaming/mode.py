"""Posed, unposed or metric: chosen for every window, with the reason."""

from __future__ import annotations

from collections.abc import Sequence

from da3_core.config import ModeConfig, ScaleConfig
from da3_core.streaming.gate import PoseGate
from da3_core.streaming.predicted import Choice, PredictedWindow, there
from da3_core.types import Engine, View


class ModeChooser:
    """What the setting asks for, the engine can do and the poses deserve."""

    def __init__(self, engine: Engine, config: ModeConfig, scale: ScaleConfig) -> None:
        """Raises ValueError when the engine's network cannot do what the setting asks for."""
        self._engine, self._config = engine, config
        self._gate = PoseGate(config, scale)
        if config.mode == "metric" and engine.kind not in ("metric", "nested"):
            raise ValueError(f"mode metric needs a metric or a nested model, this one is {engine.kind}: take another mode or model")
        if config.mode == "posed" and engine.kind in ("mono", "metric"):
            raise ValueError(f"mode posed needs an any-view model, this one is {engine.kind}: take another mode or model")

    def reset(self) -> None:
        self._gate.reset()

    def choose(self, views: Sequence[View]) -> Choice:
        """The mode of one window."""
        fixed = self._fixed(views)
        if fixed is not None:
            return fixed
        lacking = _lacking(views)
        if lacking:
            return Choice("unposed", lacking, trusts_poses=self._config.mode == "posed" or self._gate.is_open)
        if self._config.mode == "posed":
            return Choice("posed", "as set")
        return Choice("posed" if self._gate.is_open else "unposed", self._gate.reason, self._gate.is_open)

    def observe(self, window: PredictedWindow) -> None:
        """Checks the given poses, for the windows to come: where they were used, by predicting the window again without them when a check
        is due; where they were not trusted, at no cost.
        """
        if self._config.mode != "auto" or self._fixed(window.views) or _lacking(window.views):
            return
        if window.choice.mode == "unposed":
            self._gate.check(window, there(window.prediction.T_cam_world))
        elif self._gate.is_due(window.views):
            self._gate.check(window, there(self._engine.infer(window.views, (), posed=False).T_cam_world))

    def _fixed(self, views: Sequence[View]) -> Choice | None:
        """Where poses have no say."""
        kind, mode = self._engine.kind, self._config.mode
        if kind == "metric":
            uncalibrated = _uncalibrated(views)
            return Choice("metric", f"{uncalibrated}: depth without metres, K assumed" if uncalibrated else "a metric model")
        if kind == "mono":
            return Choice("unposed", "a relative depth model: no cameras, no scale")
        if mode == "metric":
            return Choice("metric", "as set")
        return Choice("unposed", "as set", trusts_poses=False) if mode == "unposed" else None


def _lacking(views: Sequence[View]) -> str:
    """What keeps these views from conditioning the network; empty: nothing."""
    unposed = sum(view.T_world_cam is None for view in views)
    return _uncalibrated(views) or (f"no pose of {unposed} of {len(views)} views; K as calibrated" if unposed else "")


def _uncalibrated(views: Sequence[View]) -> str:
    cameras = sorted({view.camera for view in views if view.K is None})
    return f"no calibration of {', '.join(cameras)}" if cameras else ""
