import pytest
import torch

from da3_core.scenes import STYLES, make_worlds, sample_cameras
from da3_core.scenes.cameras import _rig, shared_view
from da3_core.scenes.primitives import distance_below
from da3_core.scenes.render import pinhole_directions, render
from da3_core.scenes.rng import Draws
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


def height_m(worlds, T):
    """(B, N) of the cameras above the ground's plane."""
    return T[..., 2, 3] - (worlds.stay.slope[:, None] * T[..., :2, 3]).sum(-1)


def roll_rad(T):
    """(B, N) between the image's right and the horizon."""
    return torch.asin(T[..., 2, 0] / T[..., :2, 2].norm(dim=-1).clamp_min(1e-3))


def test_robots_stay_level_and_hands_do_not():
    rooms = make_worlds(torch.arange(20, 52), "room")
    robot, hand = (sample_cameras(rooms, 5, SIZE, style)[0] for style in ("robot", "hand"))
    assert (height_m(rooms, robot).amax(1) - height_m(rooms, robot).amin(1)).max() < 1e-5
    assert (height_m(rooms, hand).amax(1) - height_m(rooms, hand).amin(1) > 0.01).float().mean() > 0.8
    assert roll_rad(robot).std() < 0.015 and 0.05 < roll_rad(hand).std() < 0.12


def test_the_cameras_of_a_rig_keep_their_places_on_its_body():
    """On slopes and along walls too. How many there are is not told: with the right number all periods are alike, with others none."""
    worlds = make_worlds(torch.arange(24), ["room", "outdoor", "corridor"] * 8)
    T, _ = sample_cameras(worlds, 12, SIZE, "rig")
    T = T.double()
    changes = []
    for count in (2, 3, 4):
        bodies = T.unflatten(1, (-1, count))
        on_body = torch.linalg.inv(bodies[:, :, :1]) @ bodies
        changes.append((on_body - on_body[:, :1]).abs().flatten(1).amax(1))
    change, cameras = torch.stack(changes).min(0)
    assert change.max() < 3e-5 and set(cameras.tolist()) == {0, 1, 2}
    assert (torch.stack(changes).sort(0).values[1] > 1e-3).all()
    beside = (T[:, 1, :3, 3] - T[:, 0, :3, 3]).norm(dim=-1)
    assert beside.min() > 0.05 and beside.max() < 1.0


def test_rigs_find_room_in_narrow_corridors():
    stay = make_worlds(torch.arange(64), "corridor").stay
    centre = _rig(Draws(torch.arange(64), "t"), stay, 8)[..., :2, 3]
    low, high = stay.low[:, None, None, :2], stay.high[:, None, None, :2]
    assert torch.maximum(low - centre, centre - high).max() < 0.03  # crooked bodies reach a little further


def test_styles_are_mixed_as_the_worlds_allow():
    worlds = make_worlds(torch.arange(300, 364), ["room"] * 40 + ["object"] * 24)
    T, _ = sample_cameras(worlds, 2, SIZE)
    of_style = torch.stack([(sample_cameras(worlds, 2, SIZE, style)[0] - T).abs().flatten(1).amax(1) < 1e-6 for style in STYLES], 1)
    assert (of_style.sum(1) == 1).all()
    inside, around = of_style[:40].float().mean(0), of_style[40:].float().mean(0)
    assert inside[STYLES.index("hand")] > 0.1 and (inside > 0).all()
    assert {name for name, share in zip(STYLES, around, strict=True) if share > 0} == {"hand", "orbit", "wide"}


def test_one_view_is_enough(worlds):
    T, K = sample_cameras(worlds, 1, SIZE)
    assert T.shape == (12, 1, 4, 4) and torch.isfinite(T).all() and K.shape == (12, 1, 3, 3)
