import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from da3_core.model.reference_view import choose_reference_view


def tokens_of(seed: int, views: int) -> torch.Tensor:
    return torch.randn(1, views, 16, generator=torch.Generator().manual_seed(seed)) + 1


def cosines(tokens):
    unit = tokens / np.linalg.norm(tokens, axis=1, keepdims=True)
    return unit, unit @ unit.T


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), views=st.integers(3, 12))
def test_saddle_balanced_is_the_least_extreme_view(seed, views):
    tokens = tokens_of(seed, views)
    c = tokens[0].double().numpy()
    unit, similarity = cosines(c)
    others = [np.mean(np.delete(similarity[s], s)) for s in range(views)]
    metrics = np.array([others, np.linalg.norm(c, axis=1), unit.var(axis=1, ddof=1)])
    low, high = metrics.min(1, keepdims=True), metrics.max(1, keepdims=True)
    score = np.abs((metrics - low) / (high - low) - 0.5).sum(0)
    assert score[int(choose_reference_view(tokens, "saddle_balanced"))] == pytest.approx(score.min(), abs=1e-4)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), views=st.integers(3, 12))
def test_saddle_sim_range_has_the_widest_row(seed, views):
    tokens = tokens_of(seed, views)
    similarity = cosines(tokens[0].double().numpy())[1] - np.eye(views)
    width = similarity.max(1) - similarity.min(1)
    assert width[int(choose_reference_view(tokens, "saddle_sim_range"))] == pytest.approx(width.max(), abs=1e-9)


@pytest.mark.parametrize("strategy", ["saddle_balanced", "saddle_sim_range"])
def test_reduced_precision_around_it_does_not_change_the_choice(strategy):
    tokens = torch.cat([tokens_of(seed, 8) for seed in range(32)])
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(choose_reference_view(tokens, strategy), choose_reference_view(tokens.double().float(), strategy))


@pytest.mark.parametrize("strategy", ["saddle_balanced", "saddle_sim_range"])
def test_tokens_of_a_half_precision_network_are_judged_in_full(strategy):
    tokens = torch.randn(200, 6, 64, generator=torch.Generator().manual_seed(3)).bfloat16()
    assert torch.equal(choose_reference_view(tokens, strategy), choose_reference_view(tokens.float(), strategy))


@pytest.mark.parametrize(("reference_view", "expected"), [("first", 0), ("middle", 2), (3, 3), (torch.tensor([4, 1]), [4, 1])])
def test_views_can_be_named(reference_view, expected):
    chosen = choose_reference_view(tokens_of(0, 5).repeat(2, 1, 1), reference_view)
    assert chosen.tolist() == (expected if isinstance(expected, list) else [expected] * 2)


@pytest.mark.parametrize("strategy", ["saddle_balanced", "saddle_sim_range", "middle"])
def test_one_or_two_views_leave_no_choice(strategy):
    assert choose_reference_view(tokens_of(0, 2), strategy).tolist() == [0]


@pytest.mark.parametrize("reference_view", ["best", -1, 5])
def test_what_is_no_view_is_refused(reference_view):
    with pytest.raises(ValueError, match="reference view"):
        choose_reference_view(tokens_of(0, 5), reference_view)
