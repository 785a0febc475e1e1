"""Teaching attention across views where to look: the patch that sees the same point in the other view.

The paper's networks start from a pretrained backbone, whose features match across views as they are. From random weights, matching is
what takes longest to emerge: depth and cameras gain nothing from other views before attention finds the same point in them, and attention
gains nothing by finding it before something uses it. The true depth and cameras say where every patch is seen again, so queries and keys
of the blocks that attend across views can be told directly. Not a part of the paper.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from da3_core.geometry.pinhole import directions_from_pixels, project
from da3_core.geometry.rigid import invert_rigid, matrix_product, rotate
from da3_core.model.backbone import Backbone
from da3_core.model.layers import Attention, Block
from da3_core.scenes.sample import Samples
from da3_core.training.losses import masked_mean

TAUGHT_BLOCKS = 3  # the first ones that attend across views
HEAD = 0  # of each of them: the others stay free
QUERY_STRIDE = 3  # one patch in so many is asked where it is seen again
SAME_DEPTH = 0.05  # relative: a point further behind what is seen there is hidden


@dataclass(frozen=True)
class Matches:
    """Where patches of every view are seen in every view."""

    queries: Tensor  # (B, Q) int64 patches, counted row by row, the same in every view of a scene
    patch: Tensor  # (B, N, N, Q) int64: view i, view j, query of i -> the patch of j that sees the middle of the query
    seen: Tensor  # (B, N, N, Q) bool: whether there is one; never in its own view


def find_matches(samples: Samples, patch_size: int, chances: Tensor) -> Matches:
    """Matches of every QUERY_STRIDE-th patch; `chances` (B,) in [0, 1) say which one is a scene's first."""
    b, n, H, W = samples.depth_m.shape
    columns, middle = W // patch_size, patch_size // 2
    steps = torch.arange(H // patch_size * columns // QUERY_STRIDE, device=samples.depth_m.device)
    queries = steps * QUERY_STRIDE + (chances * QUERY_STRIDE).long()[:, None]  # (B, Q)
    x, y = queries % columns * patch_size + middle, queries // columns * patch_size + middle
    depth = samples.depth_m.flatten(2).gather(2, (y * W + x).unsqueeze(1).expand(b, n, -1))  # (B, N, Q)
    pixels = torch.stack([x, y], -1).unsqueeze(1).expand(b, n, -1, 2) + 0.5
    points = directions_from_pixels(pixels, samples.K) * depth[..., None]
    T_there_here = matrix_product(invert_rigid(samples.T_world_cam).unsqueeze(1), samples.T_world_cam.unsqueeze(2))  # (B, N, N, 4, 4)
    there = rotate(T_there_here[..., None, :3, :3], points.unsqueeze(2)) + T_there_here[..., None, :3, 3]  # (B, N, N, Q, 3)
    pixels, z = project(there, samples.K.unsqueeze(1).expand(-1, n, -1, -1, -1)), there[..., 2]
    inside = (pixels >= 0).all(-1) & (pixels[..., 0] < W) & (pixels[..., 1] < H) & (z > 0)
    column, row = torch.where(inside[..., None], pixels, 0).long().unbind(-1)
    met = samples.depth_m.flatten(2).unsqueeze(1).expand(-1, n, -1, -1).gather(3, row * W + column)
    is_seen = inside & ((z - met).abs() < SAME_DEPTH * z) & (depth > 0).unsqueeze(2)
    is_other = ~torch.eye(n, dtype=torch.bool, device=depth.device).unsqueeze(-1)  # (N, N, 1)
    return Matches(queries, row // patch_size * columns + column // patch_size, is_seen & is_other)


def taught_blocks(backbone: Backbone) -> list[int]:
    """The blocks whose attention is taught."""
    return [i for i in range(backbone.first_window_block, backbone.config.depth) if i % 2][:TAUGHT_BLOCKS]


def features_needed(backbone: Backbone) -> list[int]:
    """The blocks whose outputs `matching_loss` takes."""
    return [i - 1 for i in taught_blocks(backbone)]


def matching_loss(backbone: Backbone, features: Mapping[str, Tensor], matches: Matches) -> Tensor:
    """(B,) the mean over taught blocks of the cross-entropy, among the patches of all views, of attending to a matching one.

    Among all, and not within the other view alone: the patch itself and its neighbours look most like it, so attention may well prefer
    the right patch to all others of its view and yet hardly look there. features: tokens (B, N, 1 + P, D) after the blocks that
    `features_needed` names.
    """
    terms = [_block_loss(cast(Block, backbone.blocks[i]), features[f"block_{i - 1:02d}"], matches) for i in taught_blocks(backbone)]
    return torch.stack(terms).mean(0)


def _block_loss(block: Block, tokens: Tensor, matches: Matches) -> Tensor:
    q, k = _queries_and_keys(block.attn, block.norm1(tokens[:, :, 1:]), matches.queries)
    logits = torch.einsum("biqd,bjpd->biqjp", q, k).float() * q.shape[-1] ** -0.5
    attention = logits.flatten(3).log_softmax(-1).view(logits.shape)
    found = attention.gather(4, matches.patch.transpose(2, 3).unsqueeze(-1)).squeeze(-1)  # (B, i, Q, j)
    return masked_mean(-found, matches.seen.transpose(2, 3))


def _queries_and_keys(attention: Attention, x: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
    """(B, N, Q, d), (B, N, P, d) of one head. All patches are turned alike between views, which changes no product of theirs."""
    width = x.shape[-1] // attention.heads
    (wq, wk, _), (bq, bk, _) = attention.qkv.weight.chunk(3), attention.qkv.bias.chunk(3)
    head = slice(HEAD * width, (HEAD + 1) * width)
    asked = x.gather(2, queries[:, None, :, None].expand(-1, x.shape[1], -1, x.shape[-1]))
    q, k = F.linear(asked, wq[head], bq[head]), F.linear(x, wk[head], bk[head])
    return attention.q_norm(q), attention.k_norm(k)
