"""The transformer block, and the parts it is made of."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from da3_core.model.rope import RotaryTable, rotate


def linear(dim_in: int, dim_out: int) -> nn.Linear:
    """A linear layer with the transformer's random weights."""
    layer = nn.Linear(dim_in, dim_out)
    truncated_normal_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def truncated_normal_(x: Tensor) -> Tensor:
    """The transformer's random values, in place; a tensor without storage stays as it is, since PyTorch 2.11 imports sympy for one."""
    return x if x.is_meta else nn.init.trunc_normal_(x, std=0.02)


class Mlp(nn.Module):
    """Linear, GELU, linear."""

    def __init__(self, dim_in: int, hidden: int, dim_out: int) -> None:
        super().__init__()
        self.fc1 = linear(dim_in, hidden)
        self.fc2 = linear(hidden, dim_out)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return y


class SwiGLU(nn.Module):
    """w3(silu(x1) * x2); two thirds of the hidden width, so that it costs what the MLP costs."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        hidden = (hidden * 2 // 3 + 7) // 8 * 8
        self.w12 = linear(dim, 2 * hidden)
        self.w3 = linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        x1, x2 = self.w12(x).chunk(2, -1)
        y: Tensor = self.w3(F.silu(x1) * x2)
        return y


class LayerScale(nn.Module):
    """A learned factor per channel."""

    def __init__(self, dim: int, init: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), init))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class Attention(nn.Module):
    """Self-attention, with normalised and rotated queries and keys where asked for."""

    def __init__(self, dim: int, heads: int, qk_norm: bool) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = linear(dim, 3 * dim)
        self.q_norm = nn.LayerNorm(dim // heads) if qk_norm else nn.Identity()
        self.k_norm = nn.LayerNorm(dim // heads) if qk_norm else nn.Identity()
        self.proj = linear(dim, dim)

    def forward(self, x: Tensor, table: RotaryTable | None, read: Tensor | None = None) -> Tensor:
        y = self.attend(self.qkv(x).unflatten(-1, (3, self.heads, -1)), table, read)
        out: Tensor = self.proj(y.transpose(1, 2).flatten(2))
        return out

    def attend(self, qkv: Tensor, table: RotaryTable | None, read: Tensor | None) -> Tensor:
        """Values that the queries gather, (B, heads, ., head_dim), of (B, L, 3, heads, head_dim)."""
        q, k, v = self.split(qkv, table, read)
        return F.scaled_dot_product_attention(q, k, v)

    def split(self, qkv: Tensor, table: RotaryTable | None, read: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """What attends, each (B, heads, ., head_dim), of (B, L, 3, heads, head_dim): queries of all tokens or of `read`, keys, values."""
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind()
        q, k = self.q_norm(q), self.k_norm(k)
        if table is not None:
            q, k = rotate(q, table), rotate(k, table)
        q = q if read is None else q.index_select(2, read)
        return q.to(v.dtype), k.to(v.dtype), v


class Block(nn.Module):
    """Pre-norm transformer block with layer scale. Tokens (B, L, D) in, tokens out: all, or those at the indices `read`."""

    def __init__(
        self, dim: int, heads: int, ffn: nn.Module, *, qk_norm: bool = False, norm_eps: float = 1e-6, layer_scale: float = 1.0
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.attn = Attention(dim, heads, qk_norm)
        self.ls1 = LayerScale(dim, layer_scale)
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = ffn
        self.ls2 = LayerScale(dim, layer_scale)

    def forward(self, x: Tensor, table: RotaryTable | None = None, read: Tensor | None = None) -> Tensor:
        attended = self.ls1(self.attn(self.norm1(x), table, read))
        x = (x if read is None else x.index_select(1, read)) + attended
        y: Tensor = x + self.ls2(self.mlp(self.norm2(x)))
        return y
