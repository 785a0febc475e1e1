"""Solids against closed forms, one ray at a time in float64."""

import math

import pytest
import torch

from da3_core.scenes.casting import first_solid
from da3_core.scenes.primitives import BOX, CYLINDER, DOME, ELLIPSOID, NOWHERE, Solids, distance_below
from da3_core.scenes.shading import hit_surface
from da3_core.scenes.vec import Vec, rotation_x, rotation_z, vec


def one_solid(quadric, half, centre=(0.0, 0.0, 0.0), rotation=None):
    R = torch.eye(3) if rotation is None else rotation
    return Solids(torch.tensor([[centre]]), R[None, None], torch.tensor([[half]]), torch.tensor([[quadric]]))


def cast(solids, origin, direction):
    """origin (R, 3) and direction (R, 3) -> distances (R,), normals (R, 3)"""
    frames = solids.frames()
    o, d = vec(origin[None, None]), vec(direction[None, None])
    distance, solid = first_solid(frames, o, d)
    hit = hit_surface(frames, solid, o, d)
    assert torch.allclose(hit.distance[distance < NOWHERE], distance[distance < NOWHERE], rtol=1e-5)
    return distance[0, 0], hit.normal.stack()[0, 0]


def random_rays(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    origin = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=-1) * 7
    return origin, 0.4 * torch.randn(count, 3, generator=generator) * torch.tensor([1.0, 1.0, 1.0]) - origin / 7 * 3


def test_sphere():
    origin, direction = random_rays(2000)
    distance, normal = cast(one_solid(ELLIPSOID, (1.5, 1.5, 1.5)), origin, direction)
    o, d = origin.double(), direction.double()
    a, b, c = (d * d).sum(-1), (o * d).sum(-1), (o * o).sum(-1) - 1.5**2
    discriminant = b * b - a * c
    expected = (-b - discriminant.clamp_min(0).sqrt()) / a
    sure = discriminant.abs() > 1e-3
    assert torch.equal((distance < NOWHERE)[sure], (discriminant > 0)[sure])
    met = sure & (discriminant > 0)
    assert 200 < met.sum() < 1900
    assert torch.allclose(distance[met].double(), expected[met], rtol=1e-5)
    assert torch.allclose(normal[met].double(), ((o + expected[:, None] * d) / 1.5)[met], atol=1e-4)


def test_turned_box_against_its_faces():
    turn = rotation_z(torch.tensor(0.7)) @ rotation_x(torch.tensor(-0.4))
    half = torch.tensor([0.8, 1.7, 0.4])
    origin, direction = random_rays(2000, 1)
    distance, normal = cast(one_solid(BOX, tuple(half.tolist()), rotation=turn), origin, direction)
    o, d, h = (origin @ turn).double(), (direction @ turn).double(), half.double()
    best = torch.full((2000,), math.inf, dtype=torch.float64)
    expected_normal = torch.zeros(2000, 3, dtype=torch.float64)
    for axis in range(3):
        for sign in (-1.0, 1.0):
            t = (sign * h[axis] - o[:, axis]) / d[:, axis]
            p = o + t[:, None] * d
            others = [k for k in range(3) if k != axis]
            on_face = (p[:, others].abs() <= h[others]).all(-1) & (t > 0) & (t < best)
            best = torch.where(on_face, t, best)
            face = torch.zeros(3, dtype=torch.float64)
            face[axis] = sign
            expected_normal = torch.where(on_face[:, None], face, expected_normal)
    assert 100 < torch.isfinite(best).sum() < 1900
    agree = (distance < NOWHERE) == torch.isfinite(best)
    assert agree.float().mean() > 0.998  # rays along an edge
    met = agree & torch.isfinite(best)
    assert torch.allclose(distance[met].double(), best[met], rtol=1e-5)
    assert torch.allclose(normal[met].double(), (expected_normal @ turn.double().T)[met], atol=1e-5)


@pytest.mark.parametrize("quadric", [CYLINDER, DOME, ELLIPSOID, (1.0, 0.0, 2.0)])
def test_curved_solids_are_hit_on_their_surface(quadric):
    half = torch.tensor([0.9, 1.2, 0.6])
    origin, direction = random_rays(1000, 2)
    distance, normal = cast(one_solid(quadric, tuple(half.tolist())), origin, direction)
    met = distance < NOWHERE
    assert 50 < met.sum() < 990
    u = ((origin + distance[:, None] * direction) / half)[met]
    bulge, shift, limit = quadric
    value = u[:, 0] ** 2 + u[:, 1] ** 2 + bulge * (u[:, 2] - shift) ** 2 - limit
    outermost = torch.maximum(u.abs().amax(-1) - 1, value)
    assert outermost.abs().max() < 1e-4
    assert ((normal[met] * direction[met]).sum(-1) < 1e-4).all()
    assert torch.allclose(normal[met].norm(dim=-1), torch.ones(int(met.sum())), atol=1e-5)


def test_thin_pole_far_away_keeps_its_depth():
    pole = one_solid(CYLINDER, (0.02, 0.02, 3.0), centre=(60.0, 0.0, 0.0))
    direction = torch.tensor([[1.0, y / 60.0, 0.0] for y in (-0.021, -0.015, 0.0, 0.01, 0.021)])
    distance, _ = cast(pole, torch.zeros(5, 3), direction)
    assert (distance < NOWHERE).tolist() == [False, True, True, True, False]
    expected = torch.tensor([60 - math.sqrt(0.02**2 - y * y) for y in (0.015, 0.0, 0.01)])
    assert torch.allclose(distance[1:4], expected, atol=2e-4)


def test_a_ray_from_within_meets_nothing():
    distance, _ = cast(one_solid(BOX, (1.0, 1.0, 1.0)), torch.zeros(1, 3), torch.tensor([[1.0, 0.2, 0.1]]))
    assert distance > NOWHERE


@pytest.mark.parametrize("quadric", [BOX, CYLINDER, ELLIPSOID, DOME])
def test_distance_is_a_lower_bound(quadric):
    solids = one_solid(quadric, (0.5, 0.8, 0.3))
    origin, direction = random_rays(500, 3)
    distance, _ = cast(solids, origin, direction)
    along = torch.where(distance < NOWHERE, distance * direction.norm(dim=-1), torch.inf)
    bound = distance_below(solids.frames(), Vec(*origin.unbind(-1)))[0]
    assert (bound <= along + 1e-4).all() and (bound > 3).all()
