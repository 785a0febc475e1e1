"""The sliding window, exact: what a view costs before the views exchange anything is paid once, and heads run for the wanted views only.

All engines share this; they differ in the programs that run the parts of `halves`. A window is a sequence of programs, which a GPU records
as a whole: a new frame is then one copy to the device and one launch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from da3_core.engines.examples import example_cameras, example_images
from da3_core.engines.halves import DecodeWindow, EncodeViews, GivenCameras, LearnedCameras, PredictViews
from da3_core.engines.inputs import given_cameras, normalised, on_host, scene_on_host
from da3_core.engines.programs import Programs
from da3_core.engines.recorded import side_by_side
from da3_core.engines.ring import ViewRing
from da3_core.model.camera import cameras_from_encoding
from da3_core.model.da3 import AnyView, Mono
from da3_core.model.dpt import Size
from da3_core.model.nested import in_metres
from da3_core.model.sky import fill_sky
from da3_core.types import EngineKind, Prediction, View

UNBUILT_WINDOWS = 20  # in a row are told of


class KeptViews:
    """What the per-view part of a network says of views, run once for each view."""

    kept: tuple[Tensor, ...]  # (S, ...), a slot a view
    _ring: ViewRing

    def __init__(self, encode: nn.Module, programs: Programs, capacity: int, size: Size, together: int) -> None:
        """Prepares programs for one new view of `size` and for `together` of them, and makes room for `capacity` views."""
        self.part, self._programs, self._together, self._capacity = encode, programs, together, capacity
        self._examples = example_images(max(capacity, together), size).to(next(encode.parameters()).device)
        for views in sorted({1, together}):
            programs.prepare(encode, self._examples[:views])
        self._make_room(capacity)

    @contextmanager
    def placed(self, views: Sequence[View]) -> Iterator[tuple[Tensor, Tensor, list[Tensor]]]:
        """Slots of a window's views (N,), and of those that are new (V,), whose images (3, H, W) are to be encoded meanwhile."""
        if len(views) > self._ring.capacity:
            self._make_room(len(views))
        ids = [view.id for view in views]
        new = self._ring.missing(ids)
        slots = torch.tensor(self._ring.slots(ids))
        try:
            yield slots, slots[new], [views[i].image for i in new]
        except BaseException:
            self.clear()  # who knows what lies where
            raise

    def encode(self, into: Tensor, *images: Tensor) -> tuple[Tensor, ...]:
        """Runs the network for new views (3, H, W), puts what it says into their slots (V,) and gives what is kept."""
        together = self._together if len(images) == self._together else 1
        for i in range(0, len(images), together):
            encoded = self._programs(self.part, torch.stack(images[i : i + together]))
            for kept, x in zip(self.kept, encoded, strict=True):
                kept.index_copy_(0, into[i : i + together], x)
        return self.kept

    def fill(self) -> tuple[Tensor, ...]:
        """What is kept, of example images, though no slot is taken: what programs of a window are built with."""
        slots = torch.arange(self._ring.capacity, device=self._examples.device)
        return self.encode(slots, *self._examples[: len(slots)])

    def clear(self) -> None:
        """Forgets the views, and the room for more of them than programs are built for; the window that comes next has one."""
        if self._ring.capacity > self._capacity:
            self._ring, self.kept = ViewRing(self._capacity), tuple(x[: self._capacity] for x in self.kept)
            self._programs.forget()
        self._ring.clear()
        self._programs.begin()

    def _make_room(self, capacity: int) -> None:
        self._ring = ViewRing(capacity)
        of_a_view = self._programs(self.part, self._examples[:1])
        self.kept = tuple(x.new_zeros((capacity, *x.shape[1:])) for x in of_a_view)
        self._programs.forget()  # sequences that were recorded know the memory from before


class AnyViewEngine:
    """Depth and cameras of windows of an any-view network."""

    kind: EngineKind = "any_view"

    def __init__(self, model: AnyView, programs: Programs, views: int) -> None:
        """`model` is where, and in the precision that, the programs expect it; `views`: of a full window."""
        self.programs = programs
        self.dtype, self.device = model.backbone.cls_token.dtype, model.backbone.cls_token.device
        self._model, self.views = model, views
        self._size: Size | None = None
        self._wanted: Sequence[int] = ()  # numbers of views, that there are programs for
        self._unbuilt = 0  # full windows in a row without
        self._parts: list[nn.Module] = []  # made for this size

    @property
    def description(self) -> str:
        return self.programs.description

    @property
    def refusals(self) -> Sequence[str]:
        return self.programs.refusals

    @torch.no_grad()
    def prepare(self, size: Size, wanted: int | Sequence[int] = 1, new: int | None = None) -> None:
        """Builds programs for full windows of images of `size` (H, W) with so many views wanted, or with any of several such numbers, of
        which `new` come at once, by default as many as are wanted. Other windows run without being built for.

        What a stream asks for is `Stream.views_wanted`. Done by the first `infer` of a size, for windows like its own, where it was not
        done before.
        """
        model, programs = self._model, self.programs
        programs.release(*self._parts)
        self._size, self._wanted = size, _numbers(wanted)
        self._learned, self._given, self._decode = LearnedCameras(model), GivenCameras(model, size), DecodeWindow(model, size)
        self._views_kept = KeptViews(EncodeViews(model), programs, self.views, size, new or min(self._wanted))
        self._parts = [self._learned, self._given, self._decode, self._views_kept.part]
        tokens, class_tokens, *early = self._views_kept.fill()
        slots = torch.arange(self.views, device=self.device)
        programs.prepare(self._given, *(x.to(self.device) for x in example_cameras(self.views, size)))
        programs.prepare(self._learned, slots, class_tokens)
        (camera_tokens,) = programs(self._learned, slots, class_tokens)
        for depths in self._wanted:
            programs.prepare(self._decode, slots, torch.arange(depths, device=self.device) % self.views, camera_tokens, tokens, *early)

    @torch.no_grad()
    def infer(self, views: Sequence[View], wanted: Sequence[int], posed: bool) -> Prediction:
        """See `Engine`."""
        encoding, *maps = on_host(self.predict(views, wanted, posed))
        depth, confidence = maps or (None, None)
        T_cam_world, K = cameras_from_encoding(encoding, _size(views))
        return Prediction(depth=depth, confidence=confidence, camera_encoding=encoding, T_cam_world=T_cam_world, K=K)

    @torch.no_grad()
    def predict(self, views: Sequence[View], wanted: Sequence[int], posed: bool) -> tuple[Tensor, ...]:
        """`infer` without waiting for the device: camera encodings (N, 9) and, of the wanted views, depth and confidence (M, H, W)."""
        if self._size != _size(views):
            self.views = max(self.views, len(views))
            self.prepare(_size(views), *_like(views, wanted))
        self._report_unbuilt(len(views), len(wanted))
        cameras, window = (given_cameras(views), self._posed_window) if posed else ((), self._unposed_window)
        with self._views_kept.placed(views) as (slots, into, images):
            return self.programs.run(window, slots, into, torch.tensor(wanted, dtype=torch.long), *cameras, *images)

    def reset(self) -> None:
        """See `Engine`."""
        if self._size is not None:
            self._views_kept.clear()

    def _report_unbuilt(self, views: int, wanted: int) -> None:
        """Full windows for which nothing is built, where they go on. Those that check poses, with no view wanted, are few, as are those in
        which a rig lacks a camera.
        """
        if views > self.views:
            lack = f"windows of more than the {self.views} views that the engine is made for, and all others until it is reset, run plainly"
            self.programs.report(self._decode, f"{lack}: make it for as many views as a window can have")
        elif views == self.views and wanted:
            self._unbuilt = 0 if wanted in self._wanted else self._unbuilt + 1
            if self._unbuilt == UNBUILT_WINDOWS:
                built = " or ".join(map(str, self._wanted))
                self.programs.report(
                    self._decode, f"full windows with depth wanted of {wanted} of {views} views run plainly: built for {built}"
                )

    def _posed_window(
        self, slots: Tensor, into: Tensor, wanted: Tensor, T_world_cam: Tensor, K: Tensor, *images: Tensor
    ) -> tuple[Tensor, ...]:
        (camera_tokens,), (tokens, _, *early) = side_by_side(
            self.device,
            lambda: self.programs(self._given, normalised(T_world_cam), K),
            lambda: self._views_kept.encode(into, *images),
        )
        return self.programs(self._decode, slots, wanted, camera_tokens, tokens, *early)

    def _unposed_window(self, slots: Tensor, into: Tensor, wanted: Tensor, *images: Tensor) -> tuple[Tensor, ...]:
        tokens, class_tokens, *early = self._views_kept.encode(into, *images)
        (camera_tokens,) = self.programs(self._learned, slots, class_tokens)
        return self.programs(self._decode, slots, wanted, camera_tokens, tokens, *early)


class MonoEngine:
    """Depth and sky of single views. Sky is put behind everything that the window sees, so the whole window is kept."""

    def __init__(self, model: Mono, programs: Programs, views: int) -> None:
        self.kind: EngineKind = "metric" if model.config.metric else "mono"
        self.programs = programs
        self.device = model.backbone.cls_token.device
        self._model, self._views = model, views
        self._size: Size | None = None
        self._parts: list[nn.Module] = []  # made for this size

    @property
    def description(self) -> str:
        return self.programs.description

    @property
    def refusals(self) -> Sequence[str]:
        return self.programs.refusals

    @torch.no_grad()
    def prepare(self, size: Size, wanted: int | Sequence[int] = 1, new: int | None = None) -> None:
        """See `AnyViewEngine`; all new views have their depth computed."""
        self.programs.release(*self._parts)
        self._size = size
        together = new or min(_numbers(wanted))
        self._views_kept = KeptViews(PredictViews(self._model), self.programs, self._views, size, together)
        self._parts = [self._views_kept.part]

    @torch.no_grad()
    def infer(self, views: Sequence[View], wanted: Sequence[int], posed: bool) -> Prediction:
        """See `Engine`; a mono network has no use for poses."""
        depth, sky = (x.unsqueeze(0) for x in self.predict(views, len(wanted)))
        return scene_on_host(Prediction(depth=fill_sky(depth, sky), sky=sky), wanted)

    @torch.no_grad()
    def predict(self, views: Sequence[View], wanted: int) -> tuple[Tensor, Tensor]:
        """Depth and sky (N, H, W) of all views, on the device, as the network has them."""
        if self._size != _size(views):
            self.prepare(_size(views), max(1, wanted))
        with self._views_kept.placed(views) as (slots, into, images):
            kept = self.programs.run(self._views_kept.encode, into, *images) if images else self._views_kept.kept
            depth, sky = (x.index_select(0, slots.to(x.device)) for x in kept)
        return depth, sky

    def reset(self) -> None:
        """See `Engine`."""
        if self._size is not None:
            self._views_kept.clear()


class NestedEngine:
    """An any-view network in metres. The scale is made from all views of a window, so all have their depth computed."""

    kind: EngineKind = "nested"

    def __init__(self, any_view: AnyViewEngine, metric: MonoEngine) -> None:
        self.any_view, self.metric = any_view, metric
        self.programs, self.device = any_view.programs, any_view.device  # of both
        self._size: Size | None = None

    @property
    def description(self) -> str:
        return self.any_view.description

    @property
    def refusals(self) -> Sequence[str]:
        return self.any_view.refusals

    @torch.no_grad()
    def prepare(self, size: Size, wanted: int | Sequence[int] = 1, new: int | None = None) -> None:
        """See `AnyViewEngine`."""
        self._size = size
        together = new or min(_numbers(wanted))
        self.any_view.prepare(size, self.any_view.views, together)
        self.metric.prepare(size, together)

    @torch.no_grad()
    def infer(self, views: Sequence[View], wanted: Sequence[int], posed: bool) -> Prediction:
        """See `Engine`."""
        if self._size != _size(views):
            self.any_view.views = max(self.any_view.views, len(views))
            self.prepare(_size(views), *_like(views, wanted))
        canonical_depth, sky = (x.unsqueeze(0) for x in self.metric.predict(views, len(wanted)))  # copies, which outlast the next sequence
        encoding, depth, confidence = (x.unsqueeze(0) for x in self.any_view.predict(views, range(len(views)), posed))
        T_cam_world, K = cameras_from_encoding(encoding, _size(views))
        relative = Prediction(depth=depth, confidence=confidence, camera_encoding=encoding, T_cam_world=T_cam_world, K=K)
        return scene_on_host(in_metres(relative, canonical_depth, sky), wanted)

    def reset(self) -> None:
        """See `Engine`."""
        self.any_view.reset()
        self.metric.reset()


def _numbers(wanted: int | Sequence[int]) -> Sequence[int]:
    return [wanted] if isinstance(wanted, int) else wanted


def _like(views: Sequence[View], wanted: Sequence[int]) -> tuple[int, int]:
    """How many views are wanted, and how many are new, of windows that will be like this first one."""
    return max(1, len(wanted)), max(1, min(len(views), len(wanted)))


def _size(views: Sequence[View]) -> Size:
    return (views[0].image.shape[-2], views[0].image.shape[-1])
