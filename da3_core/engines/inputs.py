"""Views as networks are fed with them, and what comes back."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from da3_core.geometry.rigid import invert_rigid
from da3_core.model.camera import normalise_cameras
from da3_core.model.images import IMAGE_MEAN, IMAGE_STD
from da3_core.types import Prediction, View


class Normalise(nn.Module):
    """uint8 RGB (..., 3, H, W) to what DINOv2 was trained to see, float32."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(IMAGE_MEAN).reshape(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGE_STD).reshape(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return (images.float() / 255 - self.mean) / self.std


def given_cameras(views: Sequence[View]) -> tuple[Tensor, Tensor]:
    """T_world_cam (N, 4, 4), float64, and K (N, 3, 3), float32, of posed views. Raises ValueError naming the view without camera."""
    T_world_cam, K = [], []
    for view in views:
        if view.T_world_cam is None or view.K is None:
            raise ValueError(f"view {view.id} of camera {view.camera!r} has no pose or no K: infer with posed=False")
        T_world_cam.append(view.T_world_cam.double())
        K.append(view.K.float())
    return torch.stack(T_world_cam), torch.stack(K)


def normalised(T_world_cam: Tensor) -> Tensor:
    """T_cam_world (N, 4, 4), normalised, float32, of T_world_cam (N, 4, 4), float64: far from the origin float32 has no centimetres."""
    return normalise_cameras(invert_rigid(T_world_cam)).float()


def on_host(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Copies in pinned memory of tensors of a GPU, with one wait for all; tensors of the host as they are."""
    if not any(x.is_cuda for x in tensors):
        return list(tensors)
    copies = [torch.empty(x.shape, dtype=x.dtype, pin_memory=True).copy_(x, non_blocking=True) for x in tensors]
    torch.cuda.current_stream(tensors[0].device).synchronize()
    return copies


def scene_on_host(prediction: Prediction, wanted: Sequence[int]) -> Prediction:
    """The only scene of a batch, on the host, with maps of some of its views."""

    def maps(x: Tensor | None) -> Tensor | None:
        return None if x is None or not wanted else on_host([x[0, list(wanted)].float()])[0]

    def cameras(x: Tensor | None) -> Tensor | None:
        return None if x is None else on_host([x[0].float()])[0]

    return Prediction(
        depth=maps(prediction.depth),
        confidence=maps(prediction.confidence),
        sky=maps(prediction.sky),
        camera_encoding=cameras(prediction.camera_encoding),
        T_cam_world=cameras(prediction.T_cam_world),
        K=cameras(prediction.K),
        is_metric=prediction.is_metric,
        scale_factor=cameras(prediction.scale_factor),
    )
