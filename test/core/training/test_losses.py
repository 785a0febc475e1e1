from __future__ import annotations

import math

import pytest
import torch

from da3_core.training import losses


def test_masked_mean_is_per_scene_and_ignores_what_is_not_valid() -> None:
    values = torch.tensor([[1.0, 3.0, math.nan], [5.0, math.inf, 7.0]])
    mask = torch.tensor([[True, True, False], [True, False, False]])
    assert losses.masked_mean(values, mask).tolist() == [2.0, 5.0]


def test_an_empty_scene_has_no_loss_and_no_gradient() -> None:
    depth = torch.ones(1, 1, 2, 2, requires_grad=True)
    mask = torch.zeros(1, 1, 2, 2, dtype=torch.bool)
    confidence = torch.full((1, 1, 2, 2), 2.0, requires_grad=True)
    loss = losses.depth_loss(depth, torch.full_like(depth, math.inf), confidence, mask, 0.2)
    loss.sum().backward()
    assert loss.item() == 0
    for tensor in (depth, confidence):
        assert tensor.grad is not None
        assert tensor.grad.abs().sum() == 0


def test_depth_loss_by_hand() -> None:
    depth = torch.tensor([2.0, 5.0]).reshape(1, 1, 1, 2).requires_grad_()
    confidence = torch.tensor([3.0, 1.0]).reshape(1, 1, 1, 2).requires_grad_()
    truth = torch.tensor([1.5, 7.0]).reshape(1, 1, 1, 2)
    mask = torch.ones(1, 1, 1, 2, dtype=torch.bool)
    loss = losses.depth_loss(depth, truth, confidence, mask, lambda_c=0.2)
    assert loss.item() == pytest.approx((3 * 0.5 - 0.2 * math.log(3) + 2.0) / 2)
    loss.sum().backward()
    assert depth.grad is not None and confidence.grad is not None
    assert depth.grad.flatten().tolist() == pytest.approx([1.5, -0.5])  # c * sign / Z
    assert confidence.grad.flatten().tolist() == pytest.approx([(0.5 - 0.2 / 3) / 2, (2.0 - 0.2) / 2])


def test_the_best_confidence_is_lambda_over_error() -> None:
    error, lambda_c = 0.05, 0.2
    c = torch.linspace(1, 10, 9001)
    loss = losses.confidence_weighted(torch.full((9001, 1), error), c[:, None], torch.ones(9001, 1, dtype=torch.bool), lambda_c)
    assert c[loss.argmin()].item() == pytest.approx(lambda_c / error, abs=2e-3)


def test_gradient_loss_by_hand_skips_edges_of_the_mask() -> None:
    depth = torch.tensor([[1.0, 2.0, 4.0], [1.0, 1.0, 1.0]]).reshape(1, 1, 2, 3).requires_grad_()
    truth = torch.tensor([[1.0, 1.0, math.inf], [1.0, 1.0, 1.0]]).reshape(1, 1, 2, 3)
    mask = truth.isfinite()
    loss = losses.gradient_loss(depth, truth, mask)
    # horizontal pairs: (0,1)-(0,0): |1-0|, both of row 1: 0; vertical pairs: column 0: 0, column 1: |1-2+...| = 1
    assert loss.item() == pytest.approx(1 / 3 + 1 / 2)
    loss.sum().backward()
    assert depth.grad is not None
    assert depth.grad[0, 0].flatten().tolist() == pytest.approx([-1 / 3, 1 / 3 + 1 / 2, 0, 0, -1 / 2, 0])


def test_gradient_loss_ignores_a_constant_offset() -> None:
    truth = torch.rand(2, 3, 5, 6, generator=torch.Generator().manual_seed(0))
    assert losses.gradient_loss(truth + 7, truth, torch.ones_like(truth, dtype=torch.bool)).abs().max() < 1e-5


def test_ray_loss_by_hand() -> None:
    rays, truth = torch.zeros(1, 1, 1, 2, 6), torch.zeros(1, 1, 1, 2, 6)
    rays[0, 0, 0, 0] = torch.tensor([1.0, -1.0, 0.5, 0.0, 0.0, 0.25])
    confidence = torch.tensor([2.0, 4.0]).reshape(1, 1, 1, 2).requires_grad_()
    loss = losses.ray_loss(rays.requires_grad_(), truth, confidence, lambda_c=1.0)
    assert loss.item() == pytest.approx((2 * 2.75 - math.log(2) - math.log(4)) / 2)
    loss.sum().backward()
    assert rays.grad is not None and confidence.grad is not None
    assert rays.grad.flatten().tolist() == [1, -1, 1, 0, 0, 1, *[0] * 6]  # c * sign / Z
    assert confidence.grad.flatten().tolist() == pytest.approx([(2.75 - 1 / 2) / 2, -1 / 4 / 2])


def test_point_loss_by_hand() -> None:
    points = torch.tensor([[0.0, 2.0, 0.0], [3.0, 1.0, 1.5], [9.0, 9.0, 9.0]]).reshape(1, 1, 1, 3, 3).requires_grad_()
    truth, mask = torch.ones(1, 1, 1, 3, 3), torch.tensor([True, True, False]).reshape(1, 1, 1, 3)
    assert losses.point_loss(points, truth, mask).item() == pytest.approx((3.0 + 2.5) / 2)
    loss = losses.point_loss(points, truth, mask, torch.tensor([0.5, 0.25, 8.0]).reshape(1, 1, 1, 3))
    assert loss.item() == pytest.approx((1.5 + 0.625) / 2)
    loss.sum().backward()
    assert points.grad is not None
    assert points.grad.flatten().tolist() == [-0.25, 0.25, -0.25, 0.125, 0, 0.125, 0, 0, 0]  # weight * sign / Z


def test_camera_loss_does_not_see_the_quaternion_sign() -> None:
    truth = torch.tensor([[[0.1, 0.2, 0.3, 0.0, 0.6, 0.0, 0.8, 1.0, 1.2]]])
    flipped = truth.clone()
    flipped[..., 3:7] *= -1
    assert losses.camera_loss(flipped, truth).item() == 0
    moved = truth + torch.tensor([0.1, 0, 0, 0, 0, 0, 0, 0, -0.3])
    assert losses.camera_loss(moved, truth).item() == pytest.approx(0.4)


def test_gradients_of_the_camera_loss_by_hand() -> None:
    """Two views, the second of which says the negative quaternion: it is to shrink that one's y, not to turn it around."""
    truth = torch.tensor([0.1, 0.2, 0.3, 0.0, 0.6, 0.0, 0.8, 1.0, 1.2]).expand(1, 2, 9)
    encoding = truth + torch.tensor([0.1, 0, -0.1, 0, 0, 0, 0, 0, -0.3])
    encoding[:, 1, 3:7] = -truth[:, 1, 3:7] + torch.tensor([0, -0.1, 0, 0])
    loss = losses.camera_loss(encoding.requires_grad_(), truth)
    assert loss.item() == pytest.approx((0.5 + 0.6) / 2)
    loss.sum().backward()
    assert encoding.grad is not None
    assert encoding.grad[0, 0].tolist() == [0.5, 0, -0.5, 0, 0, 0, 0, 0, -0.5]  # sign / N
    assert encoding.grad[0, 1].tolist() == [0.5, 0, -0.5, 0, -0.5, 0, 0, 0, -0.5]


def test_baseline_loss_by_hand() -> None:
    """Three cameras on a line, the last one found 0.1 too far: 0.1 of 0.5 and of 0.3. Where all are found does not count."""
    truth = torch.tensor([[[0.0, 0, 0], [0.2, 0, 0], [0.5, 0, 0]]])
    centres = (truth + torch.tensor([[[0.0, 0, 0], [0, 0, 0], [0.1, 0, 0]]]) + torch.tensor([3.0, -2.0, 1.0])).requires_grad_()
    loss = losses.baseline_loss(centres, truth)
    assert loss.item() == pytest.approx((0.1 / 0.5 + 0.1 / 0.3) / 3, rel=1e-4)
    loss.sum().backward()
    assert centres.grad is not None
    assert centres.grad[0, 2].tolist() == pytest.approx([(1 / 0.5 + 1 / 0.3) / 3, 0, 0], rel=1e-4)


def test_short_baselines_are_compared_with_the_shortest_that_counts() -> None:
    truth = torch.zeros(2, 2, 3)
    truth[1, 1, 2] = 0.01
    centres = truth.clone()
    centres[:, 1, 0] = 0.02
    assert losses.baseline_loss(centres, truth).tolist() == pytest.approx([0.02 / losses.SHORT_BASELINE] * 2)
    assert losses.baseline_loss(centres[:, :1], truth[:, :1]).tolist() == [0, 0]


def test_scene_scale_is_the_mean_distance_of_valid_points() -> None:
    points = torch.tensor([[3.0, 4.0, 0.0], [0.0, 0.0, 1.0], [math.inf, 0.0, 0.0]]).reshape(1, 1, 1, 3, 3)
    mask = torch.tensor([True, True, False]).reshape(1, 1, 1, 3)
    assert losses.scene_scale(points, mask).item() == pytest.approx(3.0)
    assert losses.scene_scale(points, torch.zeros_like(mask)).item() == 1.0


def test_limited_losses_are_logarithms_beyond_the_limit() -> None:
    loss = torch.tensor([-1.0, 0.3, 0.5, 0.5 * math.e, 50.0]).requires_grad_()
    found = losses.limited(loss, 0.5)
    assert found.tolist() == pytest.approx([-1.0, 0.3, 0.5, 1.0, 0.5 * (1 + math.log(100))])
    found.sum().backward()
    assert loss.grad is not None
    assert loss.grad.tolist() == pytest.approx([1.0, 1.0, 1.0, 1 / math.e, 0.01])
