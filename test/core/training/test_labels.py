"""A teacher's labels: as fine as float32."""

from __future__ import annotations

import torch

from da3_core.model import Mono, build_model
from da3_core.training.labels import TeacherLabels

from .fixed_batch import METRIC, fixed_samples


def a_teacher() -> Mono:
    torch.manual_seed(0)
    return build_model(METRIC)  # type: ignore[return-value]


def test_a_teachers_depth_is_not_rounded_to_bfloat16() -> None:
    images = fixed_samples(h=112, w=112).images
    labels = TeacherLabels(a_teacher(), bf16=True, aligned=False)
    with torch.autocast("cpu", torch.bfloat16):
        depth, sky = labels.teacher.depth_and_sky(images)
    assert depth.dtype == sky.dtype == torch.float32
    assert len(depth.unique()) > 0.5 * depth.numel()
