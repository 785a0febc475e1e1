"""Queries and keys for attention, in one pass over the product that they come from. Needs Triton."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

TILE = 1024  # numbers that a program takes of queries or keys: with WARPS the fastest or near it, of seven, in twelve shapes on an H200
WARPS = 2


@triton.jit  # type: ignore[untyped-decorator]
def _normalise_and_turn(  # type: ignore[no-untyped-def]
    x, out, weight, bias, cos, sin, tokens, rows, inside, eps, scale, H, D: tl.constexpr, NORM, TURN, HEADS: tl.constexpr
):
    """Heads of tokens (L, 3, H, D) to rows of (., H, D). Channels are held in pairs (a, b) that turn with each other, D / 4 apart."""
    heads = tl.program_id(1) * HEADS + tl.arange(0, HEADS)
    pairs = tl.arange(0, D // 2)
    channels = pairs // (D // 4) * (D // 2) + pairs % (D // 4)  # of each pair's first
    within = heads[None, :, None] * D + channels[None, None, :]
    source = x + tokens.to(tl.int64)[:, None, None] * (3 * H * D) + within
    a = tl.load(source, mask=inside[:, None, None], other=0.0).to(tl.float32)
    b = tl.load(source + D // 4, mask=inside[:, None, None], other=0.0).to(tl.float32)
    if NORM:
        mean = (tl.sum(a, 2, keep_dims=True) + tl.sum(b, 2, keep_dims=True)) / D
        a, b = a - mean, b - mean
        spread = tl.rsqrt((tl.sum(a * a, 2, keep_dims=True) + tl.sum(b * b, 2, keep_dims=True)) / D + eps)
        a = a * spread * tl.load(weight + channels).to(tl.float32) + tl.load(bias + channels).to(tl.float32)
        b = b * spread * tl.load(weight + channels + D // 4).to(tl.float32) + tl.load(bias + channels + D // 4).to(tl.float32)
    if TURN:
        angles = tokens[:, None] * D + channels[None, :]
        c = tl.load(cos + angles, mask=inside[:, None], other=0.0)[:, None, :]
        s = tl.load(sin + angles, mask=inside[:, None], other=0.0)[:, None, :]
        a, b = a * c - b * s, b * c + a * s
    a, b = a * scale, b * scale
    target = out + rows.to(tl.int64)[:, None, None] * (H * D) + within
    tl.store(target, a.to(out.dtype.element_ty), mask=inside[:, None, None])
    tl.store(target + D // 4, b.to(out.dtype.element_ty), mask=inside[:, None, None])


@triton.jit  # type: ignore[untyped-decorator]
def _queries_and_keys(  # type: ignore[no-untyped-def]
    qkv, q, k, q_weight, q_bias, k_weight, k_bias, cos, sin, read, queries, L, eps, scale, H,
    D: tl.constexpr, NORM: tl.constexpr, TURN: tl.constexpr, READ: tl.constexpr, TOKENS: tl.constexpr, HEADS: tl.constexpr,
):  # fmt: skip
    """A program per TOKENS tokens, HEADS heads, and queries or keys of a sequence."""
    rows = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    sequence = (tl.program_id(2) // 2).to(tl.int64)
    qkv += sequence * L * 3 * H * D
    if tl.program_id(2) % 2 == 0:
        inside = rows < queries
        tokens = tl.load(read + rows, mask=inside, other=0).to(tl.int32) if READ else rows
        q += sequence * queries * H * D
        _normalise_and_turn(qkv, q, q_weight, q_bias, cos, sin, tokens, rows, inside, eps, scale, H, D, NORM, TURN, HEADS)
    else:
        k += sequence * L * H * D
        _normalise_and_turn(qkv + H * D, k, k_weight, k_bias, cos, sin, rows, rows, rows < L, eps, 1.0, H, D, NORM, TURN, HEADS)


def launch(
    qkv: Tensor,
    q: Tensor,
    k: Tensor,
    norms: tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None],
    table: tuple[Tensor | None, Tensor | None],
    read: Tensor | None,
    eps: float,
    scale: float = 1.0,
) -> None:
    """Writes q (B, Lq, H, D) and k (B, L, H, D), contiguous, of the contiguous qkv (B, L, 3, H, D).

    norms: weight and bias of the queries' and of the keys' norm, each (D,). table: cosines and sines (L, D), float32, of which pairs of
    channels share theirs (`RotaryTable`). read: (Lq,) int64, the tokens whose queries are asked for. scale: a factor of the queries.
    D is a power of two.
    """
    B, L, _, H, D = qkv.shape
    queries = q.shape[1]
    heads = min(H & -H, 16)  # the largest power of two that divides H
    tokens = max(1, TILE // (heads * D))
    grid = (triton.cdiv(L, tokens), H // heads, 2 * B)
    present = norms[0] is not None, table[0] is not None, read is not None
    _queries_and_keys[grid](qkv, q, k, *norms, *table, read, queries, L, eps, scale, H, D, *present, tokens, heads, num_warps=WARPS)
