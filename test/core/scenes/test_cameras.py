import pytest
import torch

from da3_core.scenes import STYLES, make_worlds, sample_cameras
from da3_core.scenes.cameras import shared_view
from da3_core.scenes.primitives import distance_below
from da3_core.scenes.render import pinhole_directions, render
from da3_core.scenes.vec import vec

SIZE = (24, 32)


@pytest.fixture(scope="module")
def worlds():
    return make_worlds(torch.arange(100, 112))


@pytest.mark.parametrize("style", STYLES)
def test_cameras_are_rigid_level_and_clear_of_everything(worlds, style):
    T, K = sample_cameras(worlds, 4, SIZE, style)
    R = T[..., :3, :3]
    assert torch.allclose(R @ R.mT, torch.eye(3).expand_as(R), atol=1e-5) and torch.allclose(
        torch.linalg.det(R), torch.ones(12, 4), atol=1e-5
    )
    assert (R[..., 2, 1] < 0).float().mean() > 0.95  # image down is world down
    assert torch.equal(K[..., 0, 0], K[..., 1, 1]) and (K[..., 0, 2] == 16).all() and (K[..., 1, 2] == 12).all()
    assert (K[..., 0, 0] >= 0.5 * 32 - 1e-3).all() and (K[..., 0, 0] <= 1.5 * 32 + 1e-3).all()
    frames = worlds.solids.frames().map(lambda c: c[:, None, :])
    clearance = distance_below(frames, vec(T[..., None, :3, 3])).amin(-1)
    assert (clearance > 0).float().mean() > 0.95


def test_consecutive_views_share_what_they_see(worlds):
    T, K = sample_cameras(worlds, 4, SIZE)
    seen = render(worlds, T, K, SIZE)
    rays = pinhole_directions(K, SIZE)
    points = T[..., None, None, :3, 3] + torch.einsum("bnij,bnjhw->bnhwi", T[..., :3, :3], rays * seen.depth.clamp_max(1e3)[:, :, None])
    shared = shared_view(seen.depth.flatten(2)[:, None], points.flatten(2, 3)[:, None], T[:, None], K, SIZE)[:, 0]
    assert 0.4 < shared.mean() < 0.9
    assert (shared.mean(-1) > 0.2).float().mean() > 0.9
    assert shared.mean(-1).std() > 0.05  # not all baselines alike
    assert (seen.depth < 0.3).float().mean((-2, -1)).max() < 0.9


def test_shared_view_by_hand():
    """Facing a wall at 1 m, a camera that moves aside by a quarter of what it sees shares three quarters."""
    T = torch.eye(4).repeat(1, 1, 2, 1, 1)
    T[..., 1, 0, 3] = 0.25
    K = torch.tensor([[32.0, 0, 16], [0, 32.0, 12], [0, 0, 1]]).expand(1, 2, 3, 3)
    x, y = torch.meshgrid((torch.arange(32) + 0.5) / 32 - 0.5, (torch.arange(24) - 11.5) / 32, indexing="xy")
    points = torch.stack((x, y, torch.ones_like(x)), -1).reshape(1, 1, 1, -1, 3).repeat(1, 1, 2, 1, 1)
    assert torch.isclose(shared_view(points[..., 2], points, T, K, SIZE), torch.tensor(0.75)).all()


def test_cameras_depend_on_their_own_world_only(worlds):
    T, K = sample_cameras(worlds, 3, SIZE)
    alone_T, alone_K = sample_cameras(make_worlds(torch.tensor([105])), 3, SIZE)
    assert torch.allclose(alone_T[0], T[5], atol=1e-6) and torch.equal(alone_K[0], K[5])


def test_robots_keep_their_height_and_rigs_their_shape():
    rooms = make_worlds(torch.arange(20, 24), "room")
    T, _ = sample_cameras(rooms, 5, SIZE, "robot")
    assert (T[..., 2, 3].amax(1) - T[..., 2, 3].amin(1)).max() < 1e-5
    T, _ = sample_cameras(rooms, 6, SIZE, "rig")
    relative = torch.linalg.inv(T[:, :-1]) @ T[:, 1:]
    same_body = [torch.allclose(relative[b, 0], relative[b, k], atol=0.05) for b in range(4) for k in (2, 3, 4)]
    assert any(same_body)


def test_one_view_is_enough(worlds):
    T, K = sample_cameras(worlds, 1, SIZE)
    assert T.shape == (12, 1, 4, 4) and torch.isfinite(T).all() and K.shape == (12, 1, 3, 3)
