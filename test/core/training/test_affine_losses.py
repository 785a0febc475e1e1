from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from da3_core.geometry.pinhole import K_from_parameters
from da3_core.training import affine_losses as losses

G = torch.Generator


def camera(f: float, h: int, w: int) -> torch.Tensor:
    return K_from_parameters(*(torch.tensor(x) for x in (f, f, w / 2, h / 2))).expand(1, 1, 3, 3)


def test_weighted_median_by_hand() -> None:
    values = torch.tensor([[5.0, 1.0, 3.0], [2.0, 9.0, 4.0]])
    weights = torch.tensor([[1.0, 1.0, 1.0], [0.1, 5.0, 0.2]])
    assert losses.weighted_median(values, weights).tolist() == [3.0, 9.0]


def test_alignment_recovers_scale_and_shift_under_outliers() -> None:
    g = G().manual_seed(0)
    depth = torch.rand(3, 200, generator=g) + 0.5
    s, t = torch.tensor([0.5, 2.0, 7.0]), torch.tensor([0.3, -0.4, 0.0])
    truth = s[:, None] * depth + t[:, None]
    truth[:, ::4] += 3 * torch.rand(3, 50, generator=g)
    found_s, found_t = losses.align_robustly(depth, truth, torch.ones_like(depth), anchors=16)
    torch.testing.assert_close(found_s, s, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(found_t, t, rtol=1e-3, atol=2e-3)


def test_alignment_reaches_the_optimum_of_a_general_solver() -> None:
    g = G().manual_seed(1)
    depth, noise, w = (torch.rand(60, generator=g, dtype=torch.float64) for _ in range(3))
    truth = 2 * depth + 0.1 + 0.5 * noise
    s, t = losses.align_robustly(depth[None], truth[None], w[None], anchors=60)

    def cost(x: np.ndarray) -> float:
        return float((w * (x[0] * depth + x[1] - truth).abs()).sum())

    best = min(minimize(cost, start, method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12}).fun for start in ([2, 0.3], [1, 1]))
    assert cost(np.array([s.item(), t.item()])) <= best * (1 + 1e-6)


def test_alignment_never_turns_depth_around_and_stands_empty_maps() -> None:
    depth = torch.linspace(1, 2, 50)[None]
    s, t = losses.align_robustly(depth.expand(2, -1), -depth.expand(2, -1), torch.stack([torch.ones(50), torch.zeros(50)]), anchors=4)
    assert s[0] > 0
    assert (s[1].item(), t[1].item()) == (1, 0)


def test_global_local_loss_ignores_scale_and_shift_of_every_view() -> None:
    truth = 1 + torch.rand(1, 2, 28, 28, generator=G().manual_seed(0))
    valid = torch.ones_like(truth, dtype=torch.bool)
    moved = truth * torch.tensor([0.2, 3.0])[:, None, None] + torch.tensor([1.0, -0.5])[:, None, None]
    K = camera(28, 28, 28).expand(1, 2, 3, 3)
    for depth, low, high in ((moved, 0, 1e-4), (moved.flip(-1), 0.1, 10)):
        assert low <= losses.global_local_loss(losses.align_views(depth, truth, valid), truth, valid, K).item() < high


def test_the_local_part_sees_what_one_alignment_hides() -> None:
    """A staircase of tiles, each right up to scale and shift: all of the error is global."""
    truth = 2 + 0.1 * torch.rand(1, 1, 28, 28, generator=G().manual_seed(0))
    valid = torch.ones_like(truth, dtype=torch.bool)
    steps = torch.rand(4, 4, generator=G().manual_seed(1)).repeat_interleave(7, 0).repeat_interleave(7, 1)
    K = camera(28, 28, 28)
    aligned = losses.align_views(truth + steps, truth, valid)
    only_global = losses.masked_mean((aligned - truth).abs() / truth, valid)
    torch.testing.assert_close(losses.global_local_loss(aligned, truth, valid, K), only_global, rtol=1e-3, atol=1e-5)


def test_global_loss_by_hand() -> None:
    """Three points on the line and one off it by 0.5: that one is left, relative to its truth."""
    depth = torch.tensor([1.0, 2.0, 3.0, 4.0]).reshape(1, 1, 2, 2).requires_grad_()
    truth = torch.tensor([1.0, 2.0, 3.0, 4.5]).reshape(1, 1, 2, 2)
    valid = torch.ones_like(truth, dtype=torch.bool)
    loss = losses.global_local_loss(losses.align_views(depth, truth, valid), truth, valid, camera(2, 2, 2))
    assert loss.item() == pytest.approx(0.5 / 4.5 / 4)
    loss.sum().backward()
    assert depth.grad is not None
    assert depth.grad.flatten()[3].item() == pytest.approx(-1 / 4.5 / 4)


def test_normals_of_a_plane_agree_and_point_one_way() -> None:
    h = w = 9
    K = camera(12, h, w)
    y, x = torch.meshgrid(torch.arange(h) + 0.5, torch.arange(w) + 0.5, indexing="ij")
    plane = 1 / (0.5 + 0.2 * (x - w / 2) / 12 - 0.3 * (y - h / 2) / 12)  # 0.2 X - 0.3 Y + 0.5 Z = 1
    parts = losses.neighbour_normals(losses.unproject(plane[None, None], K))
    n = torch.tensor([0.2, -0.3, 0.5])
    cosine = torch.nn.functional.cosine_similarity(parts, n, dim=-1)
    assert (cosine.abs() > 0.9999).all()
    assert len(cosine.sign().unique()) == 1


def test_mean_normal_by_hand() -> None:
    parts = torch.tensor([[0.0, 0, 1], [0, 0, 1], [0, 0, 1], [3.0, 0, 0]])
    # norms 1 1 1 3: weights 5 5 5 3
    torch.testing.assert_close(losses.mean_normal(parts), torch.tensor([3.0, 0, 15.0]))


def test_normal_loss_of_tilted_planes_is_five_times_the_angle() -> None:
    h = w = 7
    K = camera(500, h, w)  # nearly parallel rays
    x = torch.arange(w).expand(h, w) + 0.5
    flat = torch.full((1, 1, h, w), 2.0)
    slope = (x - w / 2).double() / 500
    tilted = (2 / (1 - math.tan(0.3) * slope))[None, None].requires_grad_()
    loss = losses.normal_loss(tilted, flat.double(), torch.ones_like(flat, dtype=torch.bool), K.double())
    assert loss.item() == pytest.approx(5 * 0.3, rel=1e-3)
    loss.sum().backward()
    assert tilted.grad is not None
    per_radian = tilted.detach().square() / 2 * slope / math.cos(0.3) ** 2  # how depth changes as the plane tilts further
    assert (tilted.grad * per_radian).sum().item() == pytest.approx(5, rel=1e-3)
    assert (tilted.grad * tilted.detach()).sum().item() == pytest.approx(0, abs=1e-6)  # a larger plane has the same normals


def test_normal_loss_has_gradients_where_it_is_zero() -> None:
    depth = torch.full((1, 1, 5, 5), 2.0, requires_grad=True)
    losses.normal_loss(depth, depth.detach(), torch.ones(1, 1, 5, 5, dtype=torch.bool), camera(5, 5, 5)).sum().backward()
    assert depth.grad is not None
    assert depth.grad.isfinite().all()


def test_normal_loss_skips_neighbours_of_the_invalid() -> None:
    truth = torch.full((1, 1, 5, 5), 2.0)
    valid = torch.ones_like(truth, dtype=torch.bool)
    valid[..., 2, 2] = False
    depth = truth.clone()
    depth[..., 2, 2] = 100.0
    assert losses.normal_loss(depth, truth, valid, camera(5, 5, 5)).item() < 1e-3


def test_mask_loss_by_hand() -> None:
    predicted = torch.tensor([0.5, 0.0, 1.0, 2.0]).reshape(1, 1, 2, 2).repeat(1, 2, 1, 1).requires_grad_()
    truth = torch.tensor([True, False, False, True]).reshape(1, 1, 2, 2).repeat(1, 2, 1, 1)
    loss = losses.mask_loss(predicted, truth, torch.tensor([[True, False]]))
    assert loss.item() == pytest.approx((0.25 + 0 + 1 + 1) / 4)
    loss.sum().backward()
    assert predicted.grad is not None
    assert predicted.grad[0, 0].flatten().tolist() == pytest.approx([-0.25, 0, 0.5, 0.5])  # 2 (p - m) / 4
    assert not predicted.grad[0, 1].any()
    assert losses.mask_loss(predicted, truth, torch.tensor([[False, False]])).item() == 0
