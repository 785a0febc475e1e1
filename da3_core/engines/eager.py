"""PyTorch as it is: the reference that faster engines are compared with."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from da3_core.engines.inputs import given_cameras, normalised_images
from da3_core.model.backbone import DecodedWindow, Feature
from da3_core.model.da3 import AnyView
from da3_core.types import EngineKind, Prediction, View


class EagerEngine:
    """Runs the whole window anew for every call, the heads for the wanted views only."""

    kind: EngineKind = "any_view"

    def __init__(self, model: nn.Module, device: str = "cpu") -> None:
        if not isinstance(model, AnyView):
            raise ValueError(f"the eager engine cannot run a {type(model).__name__}: give a model of da3_core.load_model")
        self._model = model.eval().to(device)
        self._device = torch.device(device)

    @torch.inference_mode()
    def infer(self, views: Sequence[View], wanted: Sequence[int], posed: bool) -> Prediction:
        """See `Engine`."""
        images = normalised_images(torch.stack([view.image for view in views]).to(self._device))
        size = (images.shape[-2], images.shape[-1])
        T_cam_world, K = (camera.to(self._device)[None] for camera in given_cameras(views)) if posed else (None, None)
        model = self._model
        window = model.backbone.decode_window(
            model.backbone.encode_views(images[None]), model.backbone.grid_of(size), model.camera_tokens(T_cam_world, K, size)
        )
        cameras = model.read_out(window, size, {"cameras"})
        depth = model.read_out(_of_views(window, wanted), size, {"depth"}) if wanted else Prediction()
        return Prediction(
            depth=_to_host(depth.depth),
            confidence=_to_host(depth.confidence),
            T_cam_world=_to_host(cameras.T_cam_world),
            K=_to_host(cameras.K),
        )

    def reset(self) -> None:
        """Nothing is kept between calls."""


def _of_views(window: DecodedWindow, indices: Sequence[int]) -> DecodedWindow:
    chosen = list(indices)
    return DecodedWindow(tuple(Feature(f.patches[:, chosen], f.camera[:, chosen]) for f in window.features), {})


def _to_host(value: Tensor | None) -> Tensor | None:
    """The only scene of the batch, float32 on the CPU."""
    return None if value is None else value[0].float().cpu()
