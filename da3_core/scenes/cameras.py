"""Cameras in worlds: five styles of moving, of which each world tries several takes and keeps the one that sees best.

A take is the poses of all its views, and C takes are T_world_cam (B, C, N, 4, 4). It is judged by casting a few rays per view: no wall in
the face, something to see, and a share of what one view sees in the next that is close to what was asked for; that share is drawn per
world, so that baselines reach from tiny to wide.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from da3_core.scenes.casting import first_solid
from da3_core.scenes.primitives import NOWHERE, distance_below
from da3_core.scenes.rng import Draws
from da3_core.scenes.vec import Vec, look_rotation, matrix, rotation_y, rotation_z, vec, xyz
from da3_core.scenes.worlds import Stay, Worlds

STYLES = ("hand", "robot", "orbit", "wide", "rig")
INSIDE_MIX = ("hand", "hand", "robot", "robot", "wide", "wide", "orbit", "rig")
AROUND_MIX = ("orbit", "orbit", "wide", "wide", "hand")
TAKES = 8
PROBE = (6, 8)  # rays per view that judge a take
CLEARANCE_M = 0.2
INTERESTING = 6  # solids in view


def sample_cameras(worlds: Worlds, n_views: int, size: tuple[int, int], styles: Sequence[str] | str | None = None) -> tuple[Tensor, Tensor]:
    """(T_world_cam (B, N, 4, 4), K (B, N, 3, 3)) float32, views in order of time; every world's depend on its own seed only.

    styles: one of `STYLES` for all, one per world, or None for a mixture by seed. size: (H, W) of the images in pixels.
    """
    draws = Draws(worlds.seed, "cameras", 4096)
    style = _styles(draws, worlds, styles)
    K = sample_intrinsics(draws, n_views, size)
    takes = torch.stack([_TAKES[name](draws, worlds.stay, n_views) for name in STYLES])
    rows = torch.arange(len(worlds), device=style.device)
    T_world_cam = takes[style, rows]
    score = judge(worlds, T_world_cam, K, size, draws.uniform(low=0.35, high=0.95))
    best = score.argmax(1)
    return T_world_cam[rows, best], K


def sample_intrinsics(draws: Draws, n_views: int, size: tuple[int, int]) -> Tensor:
    """Focal lengths from 0.5 to 1.5 of the width, one per world or, for one world in seven, one per view; centred principal points."""
    h, w = size
    common = draws.log_uniform(1, low=0.5, high=1.5)
    zoomed = draws.log_uniform(n_views, low=0.5, high=1.5)
    f = w * torch.where(draws.chance(0.15, 1), zoomed, common)  # (B, N)
    zero = torch.zeros_like(f)
    return torch.stack((xyz(f, zero, zero + w / 2), xyz(zero, f, zero + h / 2), xyz(zero, zero, zero + 1)), -2)


def judge(worlds: Worlds, T_world_cam: Tensor, K: Tensor, size: tuple[int, int], wanted: Tensor) -> Tensor:
    """(B, C) how good each take (B, C, N, 4, 4) is; `wanted` (B,) is the share of a view that the next one should see."""
    b, c, n = T_world_cam.shape[:3]
    frames = worlds.solids.frames()
    centres = vec(T_world_cam[..., :3, 3].flatten(1, 2))  # (B, CN)
    clearance = distance_below(frames.map(lambda x: x[:, None, :]), centres.map(lambda x: x[..., None])).amin(-1).view(b, c, n).amin(-1)
    depth, points, solid = _probe(worlds, T_world_cam, K, size)
    near = (depth < 0.4 * worlds.stay.reach_m.clamp_max(1.5)[:, None, None, None]).float().mean(-1).amax(-1)
    dull = (1.0 - distinct(solid) / INTERESTING).clamp_min(0.0).mean(-1)
    empty = torch.isinf(depth).float().mean(-1).amax(-1)
    shared = shared_view(depth, points, T_world_cam, K, size)
    off = (shared.mean(-1) - wanted[:, None]).abs() + 2.0 * (0.25 - shared.amin(-1)).clamp_min(0.0)
    tight = (CLEARANCE_M * worlds.stay.reach_m.clamp_max(1.0)[:, None] - clearance).clamp_min(0.0)
    return -off - 2.0 * near - 0.5 * dull - 1.5 * (empty - 0.5).clamp_min(0.0) - 20.0 * tight


def shared_view(depth: Tensor, points: Tensor, T_world_cam: Tensor, K: Tensor, size: tuple[int, int]) -> Tensor:
    """(..., N - 1) the share of every view's points (..., N, R, 3), of finite depth (..., N, R), that lie in the next view's image.

    With one view there is nothing to share: (..., 1) of ones.
    """
    if depth.shape[-2] == 1:
        return torch.ones_like(depth[..., 0])
    T, f = T_world_cam[..., 1:, None, :, :], K[:, None, 1:, None, 0, 0]
    p = ((points[..., :-1, :, :] - T[..., :3, 3])[..., None, :] @ T[..., :3, :3])[..., 0, :]
    h, w = size
    seen = (p[..., 2] > 0) & (p[..., 0].abs() * f < 0.5 * w * p[..., 2]) & (p[..., 1].abs() * f < 0.5 * h * p[..., 2])
    met = torch.isfinite(depth[..., :-1, :])
    return (seen & met).float().sum(-1) / met.float().sum(-1).clamp_min(1.0)


def distinct(labels: Tensor) -> Tensor:
    """(..., R) -> (...,) how many different ones."""
    ordered = labels.sort(-1).values
    return 1 + (ordered[..., 1:] != ordered[..., :-1]).sum(-1)


def _probe(worlds: Worlds, T_world_cam: Tensor, K: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """(depth (B, C, N, R), points (B, C, N, R, 3), solid (B, C, N, R)) of a few rays per view."""
    h, w = size
    b, c, n = T_world_cam.shape[:3]
    v, u = torch.meshgrid(*[(torch.arange(k, device=K.device) + 0.5) / k - 0.5 for k in PROBE], indexing="ij")
    f = K[:, None, :, None, 0, 0]
    x, y = (u.flatten() * w / f).expand(b, c, n, -1).flatten(1, 2), (v.flatten() * h / f).expand(b, c, n, -1).flatten(1, 2)
    T = T_world_cam.flatten(1, 2)
    origin = vec(T[..., None, :3, 3])
    direction = matrix(T[..., None, :3, :3]).times(Vec(x, y, torch.ones_like(x)))
    depth, solid = first_solid(worlds.solids.frames(), origin, direction)
    points = origin.along(direction, depth.clamp_max(1e3)).stack()
    depth = torch.where(depth < NOWHERE, depth, torch.inf)
    return depth.unflatten(1, (c, n)), points.unflatten(1, (c, n)), solid.unflatten(1, (c, n))


def _hand(draws: Draws, stay: Stay, n: int) -> Tensor:
    """A person with a camera: a wandering walk, an eye that wanders between things."""
    start = _somewhere(draws, stay)
    stride = stay.reach_m[:, None, None, None] * draws.log_uniform(TAKES, 1, 1, low=0.02, high=0.5)
    steps = stride * (draws.normal(TAKES, 1, 3) + 0.5 * draws.normal(TAKES, n, 3)) * _flat(draws, 0.3)
    centre = start + torch.cumsum(steps, 2) - steps[:, :, :1]
    target = _focus(draws, stay) + torch.cumsum(0.5 * stride * draws.normal(TAKES, n, 3), 2)
    return _posed(stay, centre, target - centre, _rolls(draws, n, 0.08))


def _robot(draws: Draws, stay: Stay, n: int) -> Tensor:
    """A wheeled robot: level, along an arc, its camera at a fixed height and angle."""
    return _posed(stay, *_drive(draws, stay, n))


def _drive(draws: Draws, stay: Stay, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """(centres and looking directions (B, C, N, 3), rolls (B, C, N)) of a robot."""
    start = _somewhere(draws, stay)
    height = draws.uniform(TAKES, 1, 1, low=0.2, high=1.6)
    stride = stay.reach_m[:, None, None] * draws.log_uniform(TAKES, 1, low=0.02, high=0.35)
    turn = draws.normal(TAKES, 1, std=0.5) / n**0.5 + draws.normal(TAKES, n, std=0.05)
    heading = draws.uniform(TAKES, 1, high=2 * math.pi) + torch.cumsum(turn, -1)
    moves = stride[..., None] * torch.stack((torch.cos(heading), torch.sin(heading)), -1)
    xy = start[..., :2] + torch.cumsum(moves, 2) - moves[:, :, :1]
    looking = heading + draws.choice((0, 0, 0, 1, -1, 2), TAKES, 1) * (math.pi / 2) + draws.normal(TAKES, 1, std=0.1)
    pitch = draws.normal(TAKES, 1, std=0.1).expand_as(looking) + draws.normal(TAKES, n, std=0.01)
    ground = (stay.slope[:, None, None] * xy).sum(-1, keepdim=True)
    return torch.cat((xy, height.expand_as(ground) + 0 * ground), -1), _direction(looking, pitch), _rolls(draws, n, 0.01)


def _orbit(draws: Draws, stay: Stay, n: int) -> Tensor:
    """Around a thing, looking at it."""
    middle = _focus(draws, stay)
    arc = draws.log_uniform(TAKES, 1, low=0.1, high=4.0) * draws.sign(TAKES, 1)
    angle = draws.uniform(TAKES, 1, high=2 * math.pi) + arc * torch.linspace(0, 1, n, device=arc.device) + draws.normal(TAKES, n, std=0.02)
    away = stay.reach_m[:, None, None] * draws.uniform(TAKES, 1, low=0.4, high=1.3) * (1 + draws.normal(TAKES, n, std=0.04))
    lift = draws.uniform(TAKES, 1, low=-0.1, high=0.9).expand_as(angle) + draws.normal(TAKES, n, std=0.03)
    offset = away[..., None] * _direction(angle, lift)
    return _posed(stay, middle + offset, -offset + 0.05 * away[..., None] * draws.normal(TAKES, n, 3), _rolls(draws, n, 0.04))


def _wide(draws: Draws, stay: Stay, n: int) -> Tensor:
    """Anywhere, all looking at about the same place."""
    spread = draws.uniform(TAKES, 1, 1, low=0.2, high=1.0)
    centre = torch.lerp(_somewhere(draws, stay), _anywhere(draws, stay, n), spread)
    target = _focus(draws, stay) + 0.15 * stay.reach_m[:, None, None, None] * draws.normal(TAKES, n, 3)
    return _posed(stay, centre, target - centre, _rolls(draws, n, 0.15))


def _rig(draws: Draws, stay: Stay, n: int) -> Tensor:
    """Two to four cameras fixed to one body that moves; views are body poses times cameras."""
    cameras = draws.integers(3, 1) + 2  # (B, 1)
    index = torch.arange(n, device=cameras.device)
    time, camera = index // cameras, index % cameras  # (B, N)
    drive = _drive(draws, stay, n)
    rows = torch.arange(len(time), device=time.device)[:, None, None]
    take = torch.arange(TAKES, device=time.device)[:, None]
    is_fan = draws.chance(0.6, 1)
    fan = torch.where(is_fan, draws.uniform(1, low=0.25, high=0.9), draws.normal(1, std=0.02)) * camera
    baseline = torch.where(is_fan, 0.1, draws.log_uniform(1, low=0.06, high=0.5) * stay.reach_m[:, None].clamp_max(1.5))
    baseline = torch.minimum(baseline, 0.8 * (stay.high - stay.low)[:, :2].amin(-1, True) / (cameras - 1))
    aside = baseline * (camera - 0.5 * (cameras - 1))
    crooked = _rolls(draws, n, 0.01)[rows, take, camera[:, None]]
    R_body_cam = rotation_y(fan)[:, None] @ rotation_z(crooked)
    T_body_cam = _rigid(R_body_cam, xyz(aside, 0 * aside, 0 * aside)[:, None].expand(R_body_cam.shape[:-1]))
    T_world_body = _posed(_narrowed(stay, 0.5 * baseline * (cameras - 1)), *drive)
    return T_world_body[rows, take, time[:, None]] @ T_body_cam


_TAKES = {"hand": _hand, "robot": _robot, "orbit": _orbit, "wide": _wide, "rig": _rig}


def _styles(draws: Draws, worlds: Worlds, styles: Sequence[str] | str | None) -> Tensor:
    inside = draws.choice([STYLES.index(s) for s in INSIDE_MIX])
    around = draws.choice([STYLES.index(s) for s in AROUND_MIX])
    if styles is None:
        return torch.where(worlds.stay.is_around, around, inside)
    names = [styles] * len(worlds) if isinstance(styles, str) else list(styles)
    return torch.tensor([STYLES.index(name) for name in names], device=inside.device)


def _anywhere(draws: Draws, stay: Stay, n: int) -> Tensor:
    """(B, C, n, 3) heights above flat ground."""
    low, high = stay.low[:, None, None], stay.high[:, None, None]
    return low + (high - low) * draws.uniform(TAKES, n, 3)


def _somewhere(draws: Draws, stay: Stay) -> Tensor:
    return _anywhere(draws, stay, 1)


def _focus(draws: Draws, stay: Stay) -> Tensor:
    """(B, C, 1, 3) one of the things worth looking at."""
    rows = torch.arange(len(stay.focus), device=stay.focus.device)[:, None]
    return stay.focus[rows, draws.integers(stay.focus.shape[1], TAKES)][:, :, None]


def _posed(stay: Stay, centre: Tensor, forward: Tensor, roll: Tensor) -> Tensor:
    """T_world_cam (B, C, N, 4, 4) of cameras brought to where they may be: centres and directions (B, C, N, 3), rolls (B, C, N)."""
    return _rigid(look_rotation(forward, roll), _within(stay, centre))


def _narrowed(stay: Stay, margin_m: Tensor) -> Stay:
    """With as much less space on every side, (B, 1); heights stay."""
    margin = torch.cat((margin_m, margin_m, 0 * margin_m), -1)
    return replace(stay, low=stay.low + margin, high=stay.high - margin)


def _within(stay: Stay, centre: Tensor) -> Tensor:
    """Into the box that cameras may be in, then up by the ground's height."""
    low, high = stay.low[:, None, None], stay.high[:, None, None]
    inside = torch.minimum(torch.maximum(centre, low), high)
    ground = (stay.slope[:, None, None] * inside[..., :2]).sum(-1, keepdim=True)
    return inside + torch.cat((torch.zeros_like(inside[..., :2]), ground), -1)


def _direction(azimuth: Tensor, height: Tensor) -> Tensor:
    """(...,) radians -> unit vectors (..., 3)"""
    c = torch.cos(height)
    return xyz(c * torch.cos(azimuth), c * torch.sin(azimuth), torch.sin(height))


def _rolls(draws: Draws, n: int, std: float) -> Tensor:
    return draws.normal(TAKES, 1, std=std) + draws.normal(TAKES, n, std=0.3 * std)


def _flat(draws: Draws, vertical: float) -> Tensor:
    return torch.tensor([1.0, 1.0, vertical], device=draws.device)


def _rigid(R: Tensor, t: Tensor) -> Tensor:
    bottom = torch.tensor([0.0, 0.0, 0.0, 1.0], device=R.device).expand(*R.shape[:-2], 1, 4)
    return torch.cat((torch.cat((R, t[..., None]), -1), bottom), -2)
