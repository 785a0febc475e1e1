"""Attention whose logits are known to be small: exponentials without a running maximum, so nothing is ever rescaled. Needs Triton."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

# Of a program: queries, keys at a time, warps, and blocks of keys on their way. The fastest of 25 on an H200: see docs/performance.md.
ROWS, KEYS, WARPS, STAGES = 128, 64, 8, 3


@triton.jit  # type: ignore[untyped-decorator]
def _add_block(q, s, v, acc, total, left, KEYS: tl.constexpr, TAIL: tl.constexpr):  # type: ignore[no-untyped-def]
    """Weights of a block of keys from its logits s (ROWS, KEYS); `total` (ROWS, 8) adds what a thread holds, and no thread asks others."""
    p = tl.math.exp2(s)
    if TAIL:
        p = tl.where(tl.arange(0, KEYS)[None, :] < left, p, 0.0)
    total += tl.sum(tl.reshape(p, (p.shape[0], KEYS // 8, 8)), 1)
    return tl.dot(p.to(v.dtype), v, acc), total


@triton.jit  # type: ignore[untyped-decorator]
def _attention(  # type: ignore[no-untyped-def]
    q_blocks, k_blocks, v_blocks, out, queries, L, H,
    ROWS: tl.constexpr, KEYS: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    """A program per ROWS queries of a head. Programs of a head are neighbours, so that its keys and values stay in the cache."""
    first, head, sequence = tl.program_id(0) * ROWS, tl.program_id(1), tl.program_id(2)
    q = tl.reshape(q_blocks.load([sequence, first, head * D]), (ROWS, D))
    last = (L - 1) // KEYS * KEYS  # the block that may have keys beyond the end, which are zeros
    s = tl.dot(q, tl.reshape(k_blocks.load([sequence, last, head * D]), (KEYS, D)).T)
    v = tl.reshape(v_blocks.load([sequence, last, head * D]), (KEYS, D))
    acc, total = _add_block(q, s, v, tl.zeros((ROWS, D), tl.float32), tl.zeros((ROWS, 8), tl.float32), L - last, KEYS, True)
    for i in tl.range(0, last, KEYS):
        s = tl.dot(q, tl.reshape(k_blocks.load([sequence, i, head * D]), (KEYS, D)).T)
        v = tl.reshape(v_blocks.load([sequence, i, head * D]), (KEYS, D))
        acc, total = _add_block(q, s, v, acc, total, KEYS, KEYS, False)
    rows, channels = first + tl.arange(0, ROWS), tl.arange(0, D)
    target = out + ((sequence.to(tl.int64) * queries + rows[:, None]) * H + head) * D + channels[None, :]
    tl.store(target, (acc / tl.sum(total, 1)[:, None]).to(out.dtype.element_ty), mask=rows[:, None] < queries)


def launch(q: Tensor, k: Tensor, qkv: Tensor, out: Tensor) -> None:
    """Writes out (B, Lq, H, 64) of q (B, Lq, H, 64), k (B, L, H, 64) and the values in qkv (B, L, 3, H, 64), all contiguous.

    Weights are 2^(q . k) over their sum. No maximum is subtracted: the caller knows that no q . k is near 128 in float32 and bfloat16, and
    none beyond 15 in float16, as which the weights are multiplied with the values.
    """
    B, L, _, H, D = qkv.shape
    queries = q.shape[1]
    values = qkv[:, :, 2]
    grid = (triton.cdiv(queries, ROWS), H, B)
    _attention[grid](
        TensorDescriptor(q, [B, queries, H * D], [queries * H * D, H * D, 1], [1, ROWS, D]),
        TensorDescriptor(k, [B, L, H * D], [L * H * D, H * D, 1], [1, KEYS, D]),
        TensorDescriptor(values, [B, L, H * D], [3 * L * H * D, 3 * H * D, 1], [1, KEYS, D]),
        out, queries, L, H, ROWS, KEYS, D, num_warps=WARPS, num_stages=STAGES,
    )  # fmt: skip
