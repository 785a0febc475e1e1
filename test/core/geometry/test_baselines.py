import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from da3_core.geometry.baselines import scale_from_baselines

GATE = 0.05


def line(length: float, n: int) -> torch.Tensor:
    return torch.linspace(0, length, n, dtype=torch.float64)[:, None] * torch.tensor([[0.6, 0.0, 0.8]], dtype=torch.float64)


def noise(seed: int, like: torch.Tensor, sigma: float) -> torch.Tensor:
    return sigma * torch.randn(like.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def arc(n: int) -> torch.Tensor:
    angle = torch.linspace(0, 1.5, n, dtype=torch.float64)
    return torch.stack([angle.sin(), 0 * angle, angle.cos()], -1)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31), n=st.integers(2, 12), scale=st.floats(0.01, 100))
def test_exact_whatever_the_frames(random_rotation, seed, n, scale):
    given_centres = noise(seed, torch.empty(n, 3), 1.0)
    predicted = (given_centres @ random_rotation(seed).mT) / scale + 5
    found = scale_from_baselines(given_centres, predicted, 1e-6)
    assert found is not None and found[0] == pytest.approx(scale, rel=1e-9)


@pytest.mark.parametrize("centres", [line(0.3, 2), line(0.5, 4), arc(6)], ids=["two", "line", "arc"])
def test_right_with_a_centimetre_of_noise(centres):
    results = [
        scale_from_baselines(centres + noise(s, centres, 0.01), (centres + noise(s + 999, centres, 0.003)) / 2, GATE) for s in range(200)
    ]
    scales = torch.tensor([r[0] for r in results if r is not None])
    assert len(scales) == 200
    assert scales.median().item() == pytest.approx(2.0, rel=0.01)
    assert scales.std() < 0.12


@pytest.mark.parametrize("centres", [line(0.3, 2), line(0.12, 4), line(0.5, 4), arc(6)], ids=["two", "short line", "line", "arc"])
def test_the_variance_covers_the_error(centres):
    results = [
        scale_from_baselines(centres + noise(s, centres, 0.01), (centres + noise(s + 999, centres, 0.003)) / 2, GATE) for s in range(200)
    ]
    z = torch.tensor([math.log(r[0] / 2) / math.sqrt(r[1]) for r in results if r is not None])
    assert 0.1 < z.square().mean().sqrt() < 1.2


def test_more_motion_and_more_views_mean_less_variance():
    def log_variance(centres: torch.Tensor) -> float:
        found = scale_from_baselines(centres, centres, GATE)
        assert found is not None
        return found[1]

    assert log_variance(line(1.0, 2)) < log_variance(line(0.1, 2))
    assert log_variance(line(1.0, 8)) < log_variance(line(1.0, 2))


STILL = {"one view": torch.zeros(1, 3), "standing still or turning": torch.zeros(4, 3), "jitter": noise(0, torch.empty(4, 3), 0.002)}


@pytest.mark.parametrize("centres", STILL.values(), ids=STILL.keys())
def test_none_without_motion(centres):
    """Turning on the spot moves no centre: it is standing still. The predicted centres are whatever a network dreams up."""
    assert scale_from_baselines(centres, torch.rand(len(centres), 3, generator=torch.Generator().manual_seed(1)), GATE) is None


def test_none_when_the_network_saw_no_motion():
    assert scale_from_baselines(line(1.0, 3), torch.zeros(3, 3), GATE) is None
    assert scale_from_baselines(line(1.0, 3), torch.full((3, 3), torch.nan), GATE) is None


def test_views_that_stood_still_do_not_spoil_those_that_moved():
    centres = torch.cat([noise(0, torch.empty(6, 3), 0.002), line(0.3, 3)[1:]])
    found = scale_from_baselines(centres, (centres + noise(1, centres, 0.01)) / 2, GATE)
    assert found is not None and found[0] == pytest.approx(2.0, rel=0.1)


def test_one_wrong_given_pose_among_five_is_outvoted():
    true = arc(5)
    wrong = true.clone()
    wrong[2] += torch.tensor([3.0, 0, 0])
    found = scale_from_baselines(wrong, true / 2, GATE)
    assert found is not None and found[0] == pytest.approx(2.0, rel=0.02)
