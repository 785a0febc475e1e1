"""Attention without a maximum: what it computes, and that only layers take it whose norms keep logits small."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from da3_core.engines.bounded_attention import LARGEST_LOGIT, is_bounded, largest_logit
from da3_core.engines.export import export
from da3_core.engines.kernels import ON_HOPPER, using
from da3_core.model.layers import Attention
from da3_core.model.rope import RotaryTable, table_within_view

GRID, HEADS, HEAD_DIM = (2, 3), 2, 64
gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


def layer(seed: int, spread: float = 1.0) -> Attention:
    """Norms with random weights and biases."""
    generator = torch.Generator().manual_seed(seed)
    attention = Attention(HEADS * HEAD_DIM, HEADS, qk_norm=True).requires_grad_(False)
    for parameter in attention.parameters():
        if parameter.ndim == 1:
            parameter.copy_(spread * torch.randn(parameter.shape, generator=generator))
    return attention


def table() -> RotaryTable:
    return table_within_view(GRID, HEAD_DIM, 100.0, torch.device("cpu"))


class Whole(nn.Module):
    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.attention = attention

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return (self.attention(x, table()),)


def operations(attention: Attention) -> list[str]:
    x = torch.zeros(1, 1 + GRID[0] * GRID[1], HEADS * HEAD_DIM, dtype=attention.qkv.weight.dtype)
    with using(attention, ON_HOPPER):
        return [str(node.target) for node in export(Whole(attention), [x]).graph.nodes if "attention" in str(node.target)]


@pytest.mark.parametrize("turned", [True, False])
@pytest.mark.parametrize("read", [None, torch.tensor([3, 0, 6, 6])])
def test_it_is_attention(turned: bool, read: Tensor | None) -> None:
    attention = layer(0, 0.5).bfloat16()
    qkv = torch.randn(2, 7, 3, HEADS, HEAD_DIM, generator=torch.Generator().manual_seed(1)).bfloat16()
    wanted = attention.float().attend(qkv.float(), table() if turned else None, read)
    with using(attention.bfloat16(), ["bounded_attention"]):
        assert "attend" in vars(attention)
        found = attention.attend(qkv, table() if turned else None, read)
    assert found.shape == wanted.shape
    assert (found - wanted).norm() <= 2e-2 * wanted.norm()


@pytest.mark.parametrize("seed", range(5))
def test_no_token_has_larger_logits(seed: int) -> None:
    """Tokens that gradient ascent moves towards the largest logit do not get over the bound, but not far from it either."""
    attention, generator = layer(seed), torch.Generator().manual_seed(seed)
    tokens = torch.randn(2, 1, 8, 1, HEAD_DIM, generator=generator).requires_grad_()
    turn = RotaryTable(*(x[3:4] for x in table()))
    ascent, largest = torch.optim.Adam([tokens], lr=0.1), 0.0
    for _ in range(150):
        q, k, _ = attention.split(torch.stack([*tokens, tokens[1]], 2), turn, None)
        logits = (q * k).sum(-1) / math.sqrt(HEAD_DIM)
        largest = max(largest, float(logits.detach().max()))
        ascent.zero_grad()
        (-logits.sum()).backward()
        ascent.step()
    assert 0.4 * largest_logit(attention) < largest <= largest_logit(attention)


def test_the_bound_is_reached() -> None:
    attention = layer(0)
    for norm in (attention.q_norm, attention.k_norm):
        assert isinstance(norm, nn.LayerNorm)
        norm.weight.fill_(2.0)
        norm.bias.zero_()
    x = torch.randn(1, 1, 1, 1, HEAD_DIM, generator=torch.Generator().manual_seed(0)).expand(1, 1, 3, 1, HEAD_DIM)
    q, k, _ = attention.split(x, None, None)
    assert float((q * k).sum()) / math.sqrt(HEAD_DIM) == pytest.approx(largest_logit(attention), rel=1e-3)


@pytest.mark.parametrize("dtype, spread", [(torch.bfloat16, 0.5), (torch.float16, 0.1)])
def test_only_layers_take_it_whose_norms_bound_the_logits(dtype: torch.dtype, spread: float) -> None:
    assert operations(layer(0, spread).to(dtype))[-1] == "da3.bounded_attention.default"
    assert largest_logit(layer(0, 10.0)) > LARGEST_LOGIT[dtype]
    for attention in (layer(0, 10.0).to(dtype), layer(0, spread), Attention(128, 2, qk_norm=False).to(dtype)):
        assert not is_bounded(attention)
        assert [name for name in operations(attention) if "bounded" in name] == []


def test_it_is_not_used_unasked() -> None:
    with using(attention := layer(0, 0.1).bfloat16()):
        assert "attend" not in vars(attention)


@gpu
@pytest.mark.gpu
@pytest.mark.parametrize("dtype, tolerance", [(torch.bfloat16, 1e-2), (torch.float16, 2e-3)])
@pytest.mark.parametrize("batch, heads, queries, keys", [(1, 16, 6920, 6920), (2, 6, 865, 1731)])
def test_the_kernel_on_a_gpu(dtype: torch.dtype, tolerance: float, batch: int, heads: int, queries: int, keys: int) -> None:
    generator = torch.Generator("cuda").manual_seed(0)
    q, qkv = (
        torch.randn(shape, device="cuda", generator=generator).to(dtype)
        for shape in ((batch, queries, heads, 64), (batch, keys, 3, heads, 64))
    )
    q, k = q / 4, qkv[:, :, 1].contiguous()
    found = torch.ops.da3.bounded_attention(q, k, qkv).transpose(1, 2)
    q, k, v = (x.float().transpose(1, 2) for x in (q, k, qkv[:, :, 2]))
    wanted = F.scaled_dot_product_attention(q, k, v, scale=math.log(2))
    assert (found - wanted).norm() <= tolerance * wanted.norm()
