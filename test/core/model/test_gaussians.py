import math
from dataclasses import replace

import pytest
import torch

from da3_core.geometry.pinhole import K_from_parameters
from da3_core.geometry.rigid import invert_rigid, rigid_from_rt, rotation_from_quaternion
from da3_core.model import build_model
from da3_core.model.gaussians import gaussians_from_raw

B, N, H, W = 1, 3, 4, 6
F_PX = 5.0


def raw_numbers(seed=0):
    return torch.randn(B, N, H, W, 38, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def cameras():
    generator = torch.Generator().manual_seed(1)
    R = rotation_from_quaternion(torch.randn(B, N, 4, generator=generator, dtype=torch.float64))
    T_world_cam = rigid_from_rt(R, torch.randn(B, N, 3, generator=generator, dtype=torch.float64))
    f, cx, cy = (torch.full((B, N), v, dtype=torch.float64) for v in (F_PX, W / 2, H / 2))
    return T_world_cam, K_from_parameters(f, 2 * f, cx, cy)


def gaussians(raw, cameras, given=None):
    T_world_cam, K = cameras
    depth = torch.full((B, N, H, W), 2.0, dtype=torch.float64)
    return gaussians_from_raw(raw, depth, invert_rigid(T_world_cam), K, None if given is None else invert_rigid(given))


def at(tensor, view, row, column):
    return tensor.unflatten(1, (N, H, W))[0, view, row, column]


def test_a_gaussian_sits_on_its_pixels_ray(cameras):
    raw = raw_numbers()
    g, (T_world_cam, _) = gaussians(raw, cameras), cameras
    view, row, column = 1, 2, 5
    dx, dy = raw[0, view, row, column, :2]
    depth = 2 + raw[0, view, row, column, 36]
    ray = torch.stack([(column + 0.5 + dx - W / 2) / F_PX, (row + 0.5 + dy - H / 2) / (2 * F_PX), torch.ones_like(dx)])
    mean = T_world_cam[0, view, :3, :3] @ (ray / ray.norm()) * depth + T_world_cam[0, view, :3, 3]
    torch.testing.assert_close(at(g.mean, view, row, column), mean)
    sigmoid = 1 / (1 + (-raw[0, view, row, column, 2:5]).exp())
    torch.testing.assert_close(at(g.scale, view, row, column), (1e-5 + (30 - 1e-5) * sigmoid) * depth * 0.1 * (1 / F_PX + 0.5 / F_PX))
    assert at(g.opacity, view, row, column).item() == pytest.approx(1 / (1 + math.exp(-raw[0, view, row, column, 37])))


def test_the_quaternion_is_the_published_mix_up(cameras):
    raw = raw_numbers()
    g = gaussians(raw, cameras)
    r0, r1, r2, r3 = raw[0, 2, 1, 3, 5:9]
    local = rotation_from_quaternion(torch.stack([r3, r0, r1, r2]))
    q = at(g.quaternion, 2, 1, 3)
    torch.testing.assert_close(rotation_from_quaternion(q), cameras[0][0, 2, :3, :3] @ local)
    assert q.norm().item() == pytest.approx(1)
    assert (g.quaternion[..., 3] >= 0).all()


def harmonics(d):
    """Real spherical harmonics up to degree 2 of a unit vector, in the order and with the signs of the checkpoints."""
    x, y, z = d.tolist()
    c = 0.5 * math.sqrt(15 / math.pi)
    degree1 = [math.sqrt(3 / (4 * math.pi)) * v for v in (-y, z, -x)]
    degree2 = [c * x * y, -c * y * z, 0.25 * math.sqrt(5 / math.pi) * (2 * z * z - x * x - y * y), -c * x * z, 0.5 * c * (x * x - y * y)]
    return torch.tensor([0.5 / math.sqrt(math.pi), *degree1, *degree2], dtype=torch.float64)


def test_colours_look_the_same_from_the_turned_direction(cameras):
    raw = raw_numbers()
    g, R_world_cam = gaussians(raw, cameras), cameras[0][0, 1, :3, :3]
    damping = torch.tensor([1] + [0.025] * 3 + [0.00625] * 5, dtype=torch.float64)
    local = raw[0, 1, 2, 3, 9:36].reshape(3, 9) * damping
    for seed in range(4):
        d = torch.randn(3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        d = d / d.norm()
        torch.testing.assert_close(at(g.sh, 1, 2, 3) @ harmonics(R_world_cam @ d), local @ harmonics(d))


def moved(T_world_cam, scale, centres=None):
    """The same camera motion in another frame and scale."""
    R = rotation_from_quaternion(torch.tensor([0.1, 0.7, -0.2, 0.4], dtype=torch.float64))
    t = scale * (T_world_cam[..., :3, 3] if centres is None else centres) @ R.mT + 1
    return rigid_from_rt(R @ T_world_cam[..., :3, :3], t)


@pytest.mark.parametrize(("scale", "taken"), [(2.0, 2.0), (0.5, 0.5), (10.0, 3.0), (0.01, 1 / 3)])
def test_given_cameras_give_their_scale_within_reason(cameras, scale, taken):
    raw, (T_world_cam, _) = raw_numbers(), cameras
    free, posed = gaussians(raw, cameras), gaussians(raw, cameras, given=moved(T_world_cam, scale))
    torch.testing.assert_close(posed.mean, taken * free.mean)
    torch.testing.assert_close(posed.scale, taken * free.scale)
    assert torch.equal(posed.quaternion, free.quaternion)


@pytest.mark.parametrize(("spread", "taken"), [([0, 1, 3], 2.0), ([0, 1, 1], 2.0), ([1, 1, 1], 1.0)])
def test_cameras_on_a_line_have_a_scale_and_standing_ones_keep_theirs(cameras, spread, taken):
    T_world_cam, K = cameras
    line = torch.tensor(spread, dtype=torch.float64)[None, :, None] * torch.tensor([1, 2, 3], dtype=torch.float64)
    T_world_cam = rigid_from_rt(T_world_cam[..., :3, :3], line)
    raw = raw_numbers()
    free, posed = gaussians(raw, (T_world_cam, K)), gaussians(raw, (T_world_cam, K), given=moved(T_world_cam, 2.0))
    torch.testing.assert_close(posed.mean, taken * free.mean)


def test_a_network_without_the_head_says_so(any_view_config, images):
    with pytest.raises(ValueError, match="no Gaussian head"):
        build_model(any_view_config)(images, want={"gaussians"})


def test_gaussians_come_with_the_depth_and_cameras_they_were_made_of_and_train(any_view_config, images):
    model = build_model(replace(any_view_config, gaussian_head=any_view_config.head))
    p = model(images, want={"gaussians"})
    assert p.gaussians.mean.shape == (1, 4 * 42 * 56, 3)
    assert p.gaussians.sh.shape == (1, 4 * 42 * 56, 3, 9)
    assert p.depth is not None and p.T_cam_world is not None
    sum(t.sum() for t in (p.gaussians.mean, p.gaussians.scale, p.gaussians.quaternion, p.gaussians.sh, p.gaussians.opacity)).backward()
    assert all(q.grad is not None and q.grad.isfinite().all() for q in model.gaussian_head.parameters())
