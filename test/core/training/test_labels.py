"""A teacher's labels: as fine as float32, and aligned with all that was measured."""

from __future__ import annotations

import pytest
import torch

from da3_core.geometry.scale_shift import ransac_scale_shift
from da3_core.model import Mono, build_model
from da3_core.training import labels
from da3_core.training.labels import POINTS, TeacherLabels, align_view

from .fixed_batch import METRIC, fixed_samples


def a_teacher() -> Mono:
    torch.manual_seed(0)
    return build_model(METRIC)  # type: ignore[return-value]


def test_a_teachers_depth_is_not_rounded_to_bfloat16() -> None:
    images = fixed_samples(h=112, w=112).images
    teacher = TeacherLabels(a_teacher(), bf16=True, aligned=False).teacher
    with torch.autocast("cpu", torch.bfloat16):
        depth, sky = teacher.depth_and_sky(images)
    assert depth.dtype == sky.dtype == torch.float32
    assert len(depth.unique()) > 0.5 * depth.numel()


def pairs_used(valid: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many pairs of depths a view with these valid pixels is aligned with."""
    used: list[int] = []

    def spy(depth: torch.Tensor, measured: torch.Tensor, valid: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        used.append(int(valid.sum()))
        return ransac_scale_shift(depth, measured, valid)

    monkeypatch.setattr(labels, "ransac_scale_shift", spy)
    depth = torch.rand(valid.shape, generator=torch.Generator().manual_seed(0))
    s, t = align_view(depth, 2 * depth + 1, valid)
    assert (s.item(), t.item()) == pytest.approx((2, 1), abs=1e-5)
    return used[0]


def test_all_of_sparse_depth_is_used_and_dense_depth_is_thinned(monkeypatch: pytest.MonkeyPatch) -> None:
    sparse = torch.rand(504, 504, generator=torch.Generator().manual_seed(1)).flatten()
    sparse = (sparse >= sparse.topk(300).values[-1]).view(504, 504)
    assert pairs_used(sparse, monkeypatch) == 300
    assert POINTS / 2 < pairs_used(torch.ones_like(sparse), monkeypatch) <= POINTS
