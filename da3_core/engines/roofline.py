"""What a frame costs at least: the operations of its products and convolutions, and the bytes that these read and write."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from da3_core.engines.choice import in_precision
from da3_core.engines.examples import example_images
from da3_core.engines.halves import DecodeWindow, EncodeViews, LearnedCameras
from da3_core.model import build_model
from da3_core.model.da3 import AnyView
from da3_core.model.dpt import Size
from da3_core.model.presets import AnyViewConfig


@dataclass(frozen=True)
class Work:
    """Floating-point operations and bytes of each product, convolution and half of an attention."""

    operations: tuple[tuple[float, float], ...]

    @property
    def gflop(self) -> float:
        return sum(flop for flop, _ in self.operations) / 1e9

    @property
    def gbyte(self) -> float:
        return sum(byte for _, byte in self.operations) / 1e9

    def least_ms(self, tflops: float, gb_s: float) -> float:
        """The time it takes where each operation runs at one of these rates, whichever holds it up, and all else takes none."""
        return sum(max(flop / tflops / 1e9, byte / gb_s / 1e6) for flop, byte in self.operations)


def work_of_a_frame(config: AnyViewConfig, dtype: torch.dtype, size: Size, views: int, new: int = 1, wanted: int = 1) -> Work:
    """Counted, of `new` views that enter a window of `views` without poses, with depth of `wanted`; nothing is computed."""
    with torch.device("meta"):
        model = build_model(config)
    assert isinstance(model, AnyView)  # noqa: S101  for mypy: what an AnyViewConfig builds
    in_precision(model.eval(), dtype)
    images, slots = example_images(new, size).to("meta"), torch.arange(views, device="meta")
    counter = _Counter()
    with torch.no_grad(), counter:
        of_new = EncodeViews(model)(images)
        tokens, class_tokens, *early = (x.new_empty((views, *x.shape[1:])) for x in of_new)
        (camera_tokens,) = LearnedCameras(model)(slots, class_tokens)
        DecodeWindow(model, size)(slots, slots[:wanted], camera_tokens, tokens, *early)
    return Work(tuple(counter.operations))


class _Counter(TorchDispatchMode):
    """Without a device, attention is two batched products; what lies between them never leaves the chip and is not counted."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: list[tuple[float, float]] = []

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        count: Callable[..., int] | None = flop_registry.get(func.overloadpacket)
        if count is not None:
            sizes = [x.numel() * x.element_size() for x in tree_leaves((args, kwargs, out)) if isinstance(x, Tensor)]
            scores = max(sizes) if func.overloadpacket is torch.ops.aten.bmm else 0
            self.operations.append((float(count(*args, **(kwargs or {}), out_val=out)), float(sum(sizes) - scores)))
        return out
