import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from da3_core.geometry.rigid import invert_rigid
from da3_core.geometry.sim3 import apply, compose, invert, transform_cameras, umeyama
from da3_core.types import Sim3

seeds = st.integers(0, 2**31)


@pytest.fixture(scope="session")
def random_sim3(random_rigid):
    def make(seed: int, *shape: int) -> Sim3:
        T = random_rigid(seed, *shape)
        scale = torch.exp(torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))
        return Sim3(scale, T[..., :3, :3], T[..., :3, 3])

    return make


def cloud(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def assert_same(found: Sim3, truth: Sim3, tolerance: float = 1e-9) -> None:
    for a, b in ((found.scale, truth.scale), (found.R, truth.R), (found.t, truth.t)):
        torch.testing.assert_close(a, b, atol=tolerance, rtol=tolerance)


@settings(max_examples=25, deadline=None)
@given(seed=seeds)
def test_apply_compose_invert_agree(random_sim3, seed):
    S_a_b, S_b_c, p_c = random_sim3(seed, 2), random_sim3(seed + 1, 2), cloud(seed, 2, 5)
    torch.testing.assert_close(apply(compose(S_a_b, S_b_c), p_c), apply(S_a_b, apply(S_b_c, p_c)))
    torch.testing.assert_close(apply(invert(S_a_b), apply(S_a_b, p_c)), p_c)
    expected = S_a_b.scale[1] * S_a_b.R[1] @ p_c[1, 3] + S_a_b.t[1]
    torch.testing.assert_close(apply(S_a_b, p_c)[1, 3], expected)


@settings(max_examples=25, deadline=None)
@given(seed=seeds)
def test_transformed_cameras_see_the_transformed_points(random_sim3, random_rigid, seed):
    S_a_b, T_b_cam, p_b = random_sim3(seed), random_rigid(seed + 1, 3), cloud(seed, 3)
    seen_b = torch.einsum("nij,nj->ni", invert_rigid(T_b_cam)[:, :3, :3], p_b - T_b_cam[:, :3, 3])
    T_a_cam = transform_cameras(S_a_b, T_b_cam)
    seen_a = torch.einsum("nij,nj->ni", invert_rigid(T_a_cam)[:, :3, :3], apply(S_a_b, p_b) - T_a_cam[:, :3, 3])
    torch.testing.assert_close(seen_a, S_a_b.scale * seen_b)


@settings(max_examples=25, deadline=None)
@given(seed=seeds, points=st.integers(3, 30))
def test_umeyama_recovers_a_similarity(random_sim3, seed, points):
    truth, p_b = random_sim3(seed, 2), cloud(seed, 2, points)
    assert_same(umeyama(apply(truth, p_b), p_b), truth, 1e-6)


def test_umeyama_of_a_plane_is_no_reflection(random_sim3):
    p_b = cloud(1, 12) * torch.tensor([1.0, 1, 0])
    truth = random_sim3(2)
    assert_same(umeyama(apply(truth, p_b), p_b), truth)


def test_umeyama_minimises_the_weighted_error(random_sim3):
    p_b, w = cloud(1, 20), torch.rand(20, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    p_a = apply(random_sim3(3), p_b) + 0.1 * cloud(4, 20)
    best = umeyama(p_a, p_b, w)

    def cost(S: Sim3) -> float:
        return float((w * (p_a - apply(S, p_b)).square().sum(-1)).sum())

    turn = torch.linalg.matrix_exp(1e-3 * torch.tensor([[0.0, -1, 0.5], [1, 0, 0.2], [-0.5, -0.2, 0]], dtype=torch.float64))
    worse = [Sim3(best.scale * s, R @ best.R, best.t + t) for s in (0.999, 1.001) for R in (turn, turn.mT) for t in (-1e-3, 1e-3)]
    assert cost(best) < min(map(cost, worse))
    assert_same(umeyama(p_a, p_b, 7 * w), best)


def test_a_point_without_weight_does_not_count(random_sim3):
    truth, p_b = random_sim3(3), cloud(1, 6)
    p_a = apply(truth, p_b)
    p_a[2] += 100
    w = torch.ones(6)
    w[2] = 0
    assert_same(umeyama(p_a, p_b, w), truth)


@pytest.mark.parametrize(
    "points", [torch.zeros(5, 3), torch.eye(3)[:2], torch.outer(torch.arange(6.0), torch.ones(3)), torch.full((5, 3), torch.nan)]
)
def test_lines_and_points_are_refused(points):
    other = cloud(1, len(points)).float()
    with pytest.raises(ValueError, match="span a plane"):
        umeyama(points, other)
    with pytest.raises(ValueError, match="span a plane"):
        umeyama(other, points)


def test_jitter_does_not_turn_a_line_into_a_plane():
    line = torch.outer(torch.linspace(0, 10, 20), torch.tensor([1.0, 0, 0])) + 1e-3 * cloud(0, 20).float()
    with pytest.raises(ValueError, match="baselines"):
        umeyama(line, line)


def test_umeyama_parity_with_the_reference(parity):
    case = parity("given_cameras")
    reference, estimate = (invert_rigid(case[f"umeyama_T_cam_world_{name}"]) for name in ("reference", "estimate"))
    S = umeyama(reference[:, :3, 3], estimate[:, :3, 3])
    torch.testing.assert_close(S.scale, case["umeyama_scale"][0], rtol=1e-5, atol=0)
    torch.testing.assert_close(S.R, case["umeyama_R"], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(S.t, case["umeyama_t"], rtol=1e-5, atol=1e-6)
    aligned = invert_rigid(transform_cameras(S, estimate))
    torch.testing.assert_close(aligned, case["umeyama_T_cam_world_aligned"], rtol=1e-5, atol=1e-6)
