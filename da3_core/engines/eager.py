"""The network run anew for every window: what all other engines are compared with."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from da3_core.engines.inputs import Normalise, given_cameras, normalised, scene_on_host
from da3_core.model.checkpoint import Model
from da3_core.model.da3 import Mono
from da3_core.types import EngineKind, Prediction, View


class FullRecompute:
    """The model's own forward over the whole window, as published code runs it."""

    def __init__(self, model: Model, kind: EngineKind, autocast: torch.dtype | None = None) -> None:
        """`model`: float32, on the device that it shall run on."""
        self.kind = kind
        self._autocast = autocast
        self._model = model
        self.device = next(model.parameters()).device
        self._normalise = Normalise().to(self.device)
        self.description = f"{type(model).__name__}, the whole window anew, on {self.device}"
        self.refusals: Sequence[str] = ()

    @torch.no_grad()
    def infer(self, views: Sequence[View], wanted: Sequence[int], posed: bool) -> Prediction:
        """See `Engine`."""
        with torch.autocast(self.device.type, self._autocast, enabled=self._autocast is not None):
            return self._infer(views, wanted, posed)

    def _infer(self, views: Sequence[View], wanted: Sequence[int], posed: bool) -> Prediction:
        images = self._normalise(torch.stack([view.image for view in views]).to(self.device)).unsqueeze(0)
        if isinstance(self._model, Mono):
            prediction = self._model(images)
        else:
            prediction = self._model(images, *self._cameras(views) if posed else (None, None))
        return scene_on_host(prediction, wanted)

    def _cameras(self, views: Sequence[View]) -> tuple[Tensor, Tensor]:
        T_world_cam, K = given_cameras(views)
        return normalised(T_world_cam).unsqueeze(0).to(self.device), K.unsqueeze(0).to(self.device)

    def reset(self) -> None:
        """Nothing is kept between windows."""
