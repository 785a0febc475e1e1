"""Attention whose logits are known to be small: exponentials without a running maximum, so nothing is ever rescaled. Needs Triton."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

ROWS, KEYS, WARPS, STAGES = 128, 64, 8, 3  # of a program: queries, keys at a time, warps, and blocks of keys on their way

# 2^x without the special function unit, which limits the kernel as the products do: 2^x = 2^n 2^f with n the nearest integer, left in the
# low bits of x + 1.5 2^23, and 2^f a cubic, relative error 8e-5.
CUBIC = """add.rn.f32 t, {x}, 0f4B400000;
sub.rn.f32 n, t, 0f4B400000;
sub.rn.f32 f, {x}, n;
fma.rn.f32 p, f, 0f3D61FB8B, 0f3E786F05;
fma.rn.f32 p, p, f, 0f3F31798D;
fma.rn.f32 p, p, f, 0f3F7FFB49;
mov.b32 a, t;
mov.b32 b, p;
shl.b32 a, a, 23;
add.s32 {y}, a, b;"""


def exp2_of_four(cubics: int) -> str:
    """Assembly of four powers of two, so many of them by the cubic."""
    powers = [(CUBIC if i < cubics else "ex2.approx.ftz.f32 {y}, {x};").format(x=f"${4 + i}", y=f"${i}") for i in range(4)]
    return "\n".join(["{", ".reg .f32 t, n, f, p;", ".reg .b32 a, b;", *powers, "}"])


@triton.jit  # type: ignore[untyped-decorator]
def _add_block(q, s, v, acc, total, left, KEYS: tl.constexpr, TAIL: tl.constexpr, EXP2: tl.constexpr):  # type: ignore[no-untyped-def]
    """Weights of a block of keys from its logits s (ROWS, KEYS); `total` (ROWS, 8) adds what a thread holds, and no thread asks others."""
    p = tl.math.exp2(s) if EXP2 is None else tl.inline_asm_elementwise(EXP2, "=&f,=&f,=&f,=&f,f,f,f,f", [s], tl.float32, True, 4)
    if TAIL:
        p = tl.where(tl.arange(0, KEYS)[None, :] < left, p, 0.0)
    total += tl.sum(tl.reshape(p, (p.shape[0], KEYS // 8, 8)), 1)
    return tl.dot(p.to(v.dtype), v, acc), total


@triton.jit  # type: ignore[untyped-decorator]
def _kernel(  # type: ignore[no-untyped-def]
    q_blocks, k_blocks, v_blocks, out, queries, L, H,
    ROWS: tl.constexpr, KEYS: tl.constexpr, D: tl.constexpr, EXP2: tl.constexpr,
):  # fmt: skip
    """A program per ROWS queries of a head. Programs of a head are neighbours, so that its keys and values stay in the cache."""
    first, head, sequence = tl.program_id(0) * ROWS, tl.program_id(1), tl.program_id(2)
    q = tl.reshape(q_blocks.load([sequence, first, head * D]), (ROWS, D))
    last = (L - 1) // KEYS * KEYS  # the block that may have keys beyond the end, which are zeros
    s = tl.dot(q, tl.reshape(k_blocks.load([sequence, last, head * D]), (KEYS, D)).T)
    v = tl.reshape(v_blocks.load([sequence, last, head * D]), (KEYS, D))
    acc, total = _add_block(q, s, v, tl.zeros((ROWS, D), tl.float32), tl.zeros((ROWS, 8), tl.float32), L - last, KEYS, True, EXP2)
    for i in tl.range(0, last, KEYS):
        s = tl.dot(q, tl.reshape(k_blocks.load([sequence, i, head * D]), (KEYS, D)).T)
        v = tl.reshape(v_blocks.load([sequence, i, head * D]), (KEYS, D))
        acc, total = _add_block(q, s, v, acc, total, KEYS, KEYS, False, EXP2)
    rows, channels = first + tl.arange(0, ROWS), tl.arange(0, D)
    target = out + ((sequence.to(tl.int64) * queries + rows[:, None]) * H + head) * D + channels[None, :]
    tl.store(target, (acc / tl.sum(total, 1)[:, None]).to(out.dtype.element_ty), mask=rows[:, None] < queries)


def launch(
    q: Tensor, k: Tensor, qkv: Tensor, out: Tensor, rows: int = ROWS, keys: int = KEYS, warps: int = WARPS, stages: int = STAGES,
    cubics: int | None = None, registers: int | None = None,
) -> None:  # fmt: skip
    """Writes out (B, Lq, H, 64) of q (B, Lq, H, 64), k (B, L, H, 64) and the values in qkv (B, L, 3, H, 64), all contiguous.

    Weights are 2^(q . k) over their sum. No maximum is subtracted: the caller knows that no q . k is near 128 in float32 and bfloat16, and
    none beyond 15 in float16, as which the weights are multiplied with the values.

    cubics: how many of four weights a polynomial gives, by assembly; None: what the compiler makes of exp2. registers: a thread's most.
    """
    B, L, _, H, D = qkv.shape
    queries = q.shape[1]
    values = qkv[:, :, 2]
    grid = (triton.cdiv(queries, rows), H, B)
    exp2 = None if cubics is None else exp2_of_four(cubics)
    more = {} if registers is None else {"maxnreg": registers}
    _kernel[grid](
        TensorDescriptor(q, [B, queries, H * D], [queries * H * D, H * D, 1], [1, rows, D]),
        TensorDescriptor(k, [B, L, H * D], [L * H * D, H * D, 1], [1, keys, D]),
        TensorDescriptor(values, [B, L, H * D], [3 * L * H * D, 3 * H * D, 1], [1, keys, D]),
        out, queries, L, H, rows, keys, D, exp2, num_warps=warps, num_stages=stages, **more,
    )  # fmt: skip
