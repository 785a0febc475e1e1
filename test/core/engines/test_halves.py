"""The parts that engines run."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from da3_core.engines.choice import in_precision
from da3_core.engines.halves import DecodeWindow, EncodeViews, GivenCameras, LearnedCameras, PredictViews
from da3_core.model.checkpoint import Model
from da3_core.model.da3 import AnyView, Mono

SIZE, VIEWS = (28, 42), 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_parts_run_on_their_networks_device_and_say_what_engines_build_on(dtype: torch.dtype, model_of: Callable[[str], Model]) -> None:
    """On the meta device an operand left on the CPU raises."""
    model = in_precision(model_of("da3-nano").to("meta"), dtype)
    assert isinstance(model, AnyView)
    slots = torch.arange(VIEWS, device="meta")
    kept = EncodeViews(model)(torch.zeros(VIEWS, 3, *SIZE, dtype=torch.uint8, device="meta"))
    (learned,) = LearnedCameras(model)(slots, kept[1])
    (given,) = GivenCameras(model, SIZE)(torch.zeros(VIEWS, 4, 4, device="meta"), torch.zeros(VIEWS, 3, 3, device="meta"))
    encoding, depth, confidence = DecodeWindow(model, SIZE)(slots, slots[:2], learned, kept[0])
    assert [x.dtype for x in kept] == [dtype, dtype]
    assert learned.dtype == given.dtype == encoding.dtype == depth.dtype == confidence.dtype == torch.float32
    assert learned.shape == given.shape == (VIEWS, 32) and encoding.shape == (VIEWS, 9) and depth.shape == confidence.shape == (2, *SIZE)


def test_a_mono_part_runs_on_its_networks_device(model_of: Callable[[str], Model]) -> None:
    model = in_precision(model_of("da3metric-nano").to("meta"), torch.bfloat16)
    assert isinstance(model, Mono)
    depth, sky = PredictViews(model)(torch.zeros(VIEWS, 3, *SIZE, dtype=torch.uint8, device="meta"))
    assert depth.shape == sky.shape == (VIEWS, *SIZE) and depth.dtype == sky.dtype == torch.float32
