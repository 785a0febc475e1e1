"""The one kernel that compilers do not find: queries and keys normalised and rotated in one pass, where Inductor makes several of it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor, nn
from torch.library import triton_op, wrap_triton

from da3_core.model.backbone import Backbone
from da3_core.model.layers import Attention
from da3_core.model.rope import RotaryTable

ROWS = 32  # heads of tokens that a program works on


@triton.jit  # type: ignore[untyped-decorator]
def _normalise_and_rotate(  # type: ignore[no-untyped-def]
    qkv, q_out, k_out, q_weight, q_bias, k_weight, k_bias, cos, sin, rows, heads, table_rows, eps, QUARTER: tl.constexpr, ROWS: tl.constexpr
):
    """A row is one head of one token: 4 * QUARTER channels. Quarters 0 and 1 turn with y, 2 and 3 with x."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = (row < rows)[:, None]
    token, head = row // heads, row % heads
    channel = tl.arange(0, QUARTER)[None, :]
    dim = 4 * QUARTER
    angle = (token % table_rows)[:, None] * dim + channel
    cos_y, sin_y = tl.load(cos + angle, mask=inside, other=0.0), tl.load(sin + angle, mask=inside, other=0.0)
    angle += 2 * QUARTER
    cos_x, sin_x = tl.load(cos + angle, mask=inside, other=0.0), tl.load(sin + angle, mask=inside, other=0.0)
    for which in tl.static_range(2):
        weight, bias, out = (q_weight, q_bias, q_out) if which == 0 else (k_weight, k_bias, k_out)
        source = qkv + ((token * 3 + which) * heads + head)[:, None] * dim + channel
        a = tl.load(source, mask=inside, other=0.0).to(tl.float32)
        b = tl.load(source + QUARTER, mask=inside, other=0.0).to(tl.float32)
        c = tl.load(source + 2 * QUARTER, mask=inside, other=0.0).to(tl.float32)
        d = tl.load(source + 3 * QUARTER, mask=inside, other=0.0).to(tl.float32)
        mean = (tl.sum(a + b + c + d, 1) / dim)[:, None]
        a, b, c, d = a - mean, b - mean, c - mean, d - mean
        scale = tl.rsqrt(tl.sum(a * a + b * b + c * c + d * d, 1) / dim + eps)[:, None]
        a = a * scale * tl.load(weight + channel) + tl.load(bias + channel)
        b = b * scale * tl.load(weight + QUARTER + channel) + tl.load(bias + QUARTER + channel)
        c = c * scale * tl.load(weight + 2 * QUARTER + channel) + tl.load(bias + 2 * QUARTER + channel)
        d = d * scale * tl.load(weight + 3 * QUARTER + channel) + tl.load(bias + 3 * QUARTER + channel)
        target = out + row[:, None] * dim + channel
        tl.store(target, a * cos_y - b * sin_y, mask=inside)
        tl.store(target + QUARTER, b * cos_y + a * sin_y, mask=inside)
        tl.store(target + 2 * QUARTER, c * cos_x - d * sin_x, mask=inside)
        tl.store(target + 3 * QUARTER, d * cos_x + c * sin_x, mask=inside)


@triton_op("da3::normalise_and_rotate", mutates_args={})
def normalise_and_rotate(
    qkv: Tensor, q_weight: Tensor, q_bias: Tensor, k_weight: Tensor, k_bias: Tensor, cos: Tensor, sin: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """Queries and keys (B, L, heads, head_dim) of qkv (B, L, 3, heads, head_dim), contiguous: layer norm over the head dimension, then the
    rotation of `da3_core.model.rope` by tables (L, head_dim), float32."""
    b, length, _, heads, dim = qkv.shape
    q, k = (torch.empty((b, length, heads, dim), dtype=qkv.dtype, device=qkv.device) for _ in range(2))
    rows = b * length * heads
    wrap_triton(_normalise_and_rotate)[(triton.cdiv(rows, ROWS),)](
        qkv, q, k, q_weight, q_bias, k_weight, k_bias, cos, sin, rows, heads, length, eps, QUARTER=dim // 4, ROWS=ROWS
    )
    return q, k


class FusedAttention(nn.Module):
    """`Attention`, with its weights, whose queries and keys come out of one kernel."""

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.heads, self.qkv, self.proj = attention.heads, attention.qkv, attention.proj
        self.q_norm, self.k_norm = attention.q_norm, attention.k_norm

    def forward(self, x: Tensor, table: RotaryTable, read: Tensor | None = None) -> Tensor:
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, -1))  # (B, L, 3, heads, head_dim)
        q_norm, k_norm = self.q_norm, self.k_norm
        q, k = normalise_and_rotate(qkv, q_norm.weight, q_norm.bias, k_norm.weight, k_norm.bias, table.cos, table.sin, q_norm.eps)
        q = q if read is None else q.index_select(1, read)
        y = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), qkv[:, :, 2].transpose(1, 2))
        out: Tensor = self.proj(y.transpose(1, 2).flatten(2))
        return out


def fuse_attention(model: nn.Module) -> None:
    """Replaces, in place, the attention of every block that normalises and rotates."""
    for backbone in (module for module in model.modules() if isinstance(module, Backbone)):
        config = backbone.config
        if config.qknorm_start is not None and config.qknorm_start == config.rope_start:
            for block in backbone.blocks[config.qknorm_start :]:
                block.attn = FusedAttention(block.attn)  # type: ignore[arg-type]
