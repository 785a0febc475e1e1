"""The parts of a network as engines run them: tensors in, tensors out, fixed shapes, no batch dimension.

    EncodeViews      uint8 images -> what is kept of each view                  once per view
    GivenCameras     cameras -> the tokens that stand for them                  once per window
    LearnedCameras   class tokens -> the learned tokens, the first for the
                     reference view
    DecodeWindow     what is kept of all views -> depth of some, cameras of all once per window

What is kept lies in slots, S of them, in no order; `slots` (N,) says where the window's views are, in the window's order.
"""

from __future__ import annotations

from torch import Tensor, nn

from da3_core.engines.inputs import Normalise
from da3_core.model.backbone import EncodedViews
from da3_core.model.da3 import AnyView, Mono
from da3_core.model.dpt import Size


class EncodeViews(nn.Module):
    """Images (V, 3, H, W) to tokens (V, 1 + P, D), class tokens (V, D) and the tokens after every out layer as early as this."""

    def __init__(self, model: AnyView) -> None:
        super().__init__()
        self.normalise = Normalise().to(model.backbone.cls_token.device)
        self.backbone = model.backbone

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        views = self.backbone.encode_views(self.normalise(images).unsqueeze(0))
        early = (views.kept[i] for i in early_out_layers(self.backbone.config.out_layers, self.backbone.first_window_block))
        return tuple(kept.squeeze(0) for kept in (views.tokens, views.class_tokens, *early))


class PredictViews(nn.Module):
    """Images (V, 3, H, W) to depth and sky (V, H, W), float32: a mono network has nothing to say of a window."""

    def __init__(self, model: Mono) -> None:
        super().__init__()
        self.normalise = Normalise().to(model.backbone.cls_token.device)
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        depth, sky = self.model.depth_and_sky(self.normalise(images).unsqueeze(1))
        return depth.squeeze(1), sky.squeeze(1)


class GivenCameras(nn.Module):
    """T_cam_world (N, 4, 4), normalised, and K (N, 3, 3) to camera tokens (N, D), float32."""

    def __init__(self, model: AnyView, size: Size) -> None:
        super().__init__()
        self.encoder = model.camera_encoder
        self.size = size

    def forward(self, T_cam_world: Tensor, K: Tensor) -> tuple[Tensor, ...]:
        return (self.encoder(T_cam_world.unsqueeze(0), K.unsqueeze(0), self.size).squeeze(0),)


class LearnedCameras(nn.Module):
    """Class tokens (S, D) to camera tokens (N, D), float32. The reference view is chosen on the device: nothing waits for it."""

    def __init__(self, model: AnyView) -> None:
        super().__init__()
        self.backbone = model.backbone

    def forward(self, slots: Tensor, class_tokens: Tensor) -> tuple[Tensor, ...]:
        chosen_from = class_tokens.index_select(0, slots).unsqueeze(0)
        return (self.backbone.learned_camera_tokens(chosen_from, "saddle_balanced").squeeze(0).float(),)


class DecodeWindow(nn.Module):
    """What is kept of the views to camera encodings (N, 9) and, of the M wanted views, depth and confidence (M, H, W), all float32.

    `wanted` (M,) are indices into the window; with none of them there are encodings only.
    """

    def __init__(self, model: AnyView, size: Size) -> None:
        super().__init__()
        self.backbone, self.head, self.camera_decoder = model.backbone, model.head, model.camera_decoder
        self.size = size

    def forward(self, slots: Tensor, wanted: Tensor, camera_tokens: Tensor, tokens: Tensor, *early: Tensor) -> tuple[Tensor, ...]:
        grid = self.backbone.grid_of(self.size)
        layers = early_out_layers(self.backbone.config.out_layers, self.backbone.first_window_block)
        kept = {i: self._of_window(x, slots) for i, x in zip(layers, early, strict=True)}
        views = EncodedViews(self._of_window(tokens, slots), camera_tokens.unsqueeze(0), kept)
        window = self.backbone.decode_window(views, grid, camera_tokens.unsqueeze(0), wanted=wanted)
        encoding = self.camera_decoder(window.features[-1].camera).squeeze(0)
        if not len(wanted):
            return (encoding,)
        maps = self.head([f.patches for f in window.features], grid, self.size)
        return encoding, maps.depth.squeeze(0), maps.confidence.squeeze(0)

    def _of_window(self, kept: Tensor, slots: Tensor) -> Tensor:
        return kept.index_select(0, slots).unsqueeze(0)


def early_out_layers(out_layers: tuple[int, ...], first_window_block: int) -> list[int]:
    """Out layers that see one view at a time: what they give is kept with the view."""
    return [i for i in out_layers if i < first_window_block]
