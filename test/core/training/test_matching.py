"""Matches are where the geometry says, and attention can be taught them."""

from __future__ import annotations

import dataclasses
from typing import cast

import torch

from da3_core.geometry.pinhole import unproject
from da3_core.model import AnyView, build_model
from da3_core.model.layers import Block
from da3_core.scenes.sample import Samples, make_samples
from da3_core.training.anyview import AnyViewTraining
from da3_core.training.config import LossConfig
from da3_core.training.matching import QUERY_STRIDE, features_needed, find_matches, matching_loss, taught_blocks
from da3_core.training.objective import ground_truth

from .fixed_batch import ANY_VIEW, fixed_draw, values_over_steps

PATCH = 14
FIRST = torch.zeros(1)  # the queries begin with the first patch


def a_room() -> Samples:
    return make_samples(torch.tensor([5]), 3, (84, 112), kinds="room", effects=False)


def test_matches_see_the_same_point() -> None:
    samples = a_room()
    matches = find_matches(samples, PATCH, FIRST)
    points = unproject(samples.depth_m, samples.K) @ samples.T_world_cam[..., :3, :3].mT[:, :, None]
    points = (points + samples.T_world_cam[:, :, None, None, :3, 3])[0]  # (N, H, W, 3)
    count = 0
    for i, j, q in matches.seen[0].nonzero().tolist():
        row, column = divmod(int(matches.queries[0, q]), 112 // PATCH)
        point = points[i, row * PATCH + PATCH // 2, column * PATCH + PATCH // 2]
        row, column = divmod(int(matches.patch[0, i, j, q]), 112 // PATCH)
        patch = points[j, row * PATCH : (row + 1) * PATCH, column * PATCH : (column + 1) * PATCH]
        depth = samples.depth_m[0, i].max()
        assert (patch - point).norm(dim=-1).min() < 0.05 * depth
        count += 1
    assert count > 20


def test_no_view_matches_itself_and_the_hidden_is_not_seen() -> None:
    samples = a_room()
    seen = find_matches(samples, PATCH, FIRST).seen
    assert not seen.diagonal(dim1=1, dim2=2).any()
    walled = dataclasses.replace(samples, depth_m=samples.depth_m * torch.tensor([1.0, 0.3, 1.0]).view(1, 3, 1, 1))
    hidden = find_matches(walled, PATCH, FIRST).seen
    assert not hidden[:, 0, 1].any() and hidden[:, 0, 2].equal(seen[:, 0, 2])


def test_the_chance_moves_the_queries() -> None:
    samples = a_room()
    first = [int(find_matches(samples, PATCH, torch.tensor([chance])).queries[0, 0]) for chance in (0.0, 0.5, 0.99)]
    assert first == list(range(QUERY_STRIDE))


def test_attention_learns_to_match() -> None:
    samples = make_samples(torch.tensor([5, 6]), 2, (56, 84), kinds="room", effects=False)
    torch.manual_seed(0)
    network = build_model(ANY_VIEW).train()
    objective = AnyViewTraining(network, LossConfig(matching=1.0), bf16=False, labels=ground_truth)  # type: ignore[arg-type]
    found = values_over_steps(objective, samples, fixed_draw(samples), 25, 3e-3, "matching")
    assert found[-1] < 0.7 * found[0]


def test_the_loss_is_the_share_of_attention_that_matches_get() -> None:
    samples = a_room()
    torch.manual_seed(0)
    backbone = cast(AnyView, build_model(ANY_VIEW)).backbone
    tokens = torch.randn(1, 3, 1 + 48, backbone.config.embed_dim)
    matches = find_matches(samples, PATCH, FIRST)
    block = cast(Block, backbone.blocks[3])
    attention, x = block.attn, block.norm1(tokens[:, :, 1:]).flatten(1, 2)
    q, k, _ = attention.qkv(x).unflatten(-1, (3, attention.heads, -1))[0, :, :, 0].unbind(1)  # (3 views * 48 patches, d) of the first head
    shares = (attention.q_norm(q) @ attention.k_norm(k).T / q.shape[-1] ** 0.5).softmax(-1)
    wanted = [
        -shares[48 * i + matches.queries[0, q], 48 * j + matches.patch[0, i, j, q]].log() for i, j, q in matches.seen[0].nonzero().tolist()
    ]
    loss = matching_loss(backbone, {"block_02": tokens}, matches)
    assert len(wanted) > 20
    torch.testing.assert_close(loss, torch.stack(wanted).mean()[None])


def test_a_single_view_has_nothing_to_match() -> None:
    samples = make_samples(torch.tensor([5, 6]), 1, (56, 84), effects=False)
    network = build_model(ANY_VIEW).train()
    objective = AnyViewTraining(network, LossConfig(matching=1.0), bf16=False, labels=ground_truth)  # type: ignore[arg-type]
    values = objective(samples, fixed_draw(samples))
    assert "matching" not in values and values["loss"].isfinite()


def test_blocks_that_attend_across_views_are_taught() -> None:
    backbone = build_model(ANY_VIEW).backbone
    assert taught_blocks(backbone) == [3]  # type: ignore[arg-type]
    assert features_needed(backbone) == [2]  # type: ignore[arg-type]
