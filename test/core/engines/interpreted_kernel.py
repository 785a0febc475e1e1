"""Run with TRITON_INTERPRET=1: the Triton kernel against PyTorch, on the CPU. Imported by no test, since Triton settles on how it runs."""

from __future__ import annotations

import itertools

import torch

from da3_core.engines.attention_kernel import launch
from da3_core.engines.kernels import queries_and_keys

LENGTH, EPS = 13, 1e-5


def compare(heads: int, head_dim: int, norm: bool, turned: bool, read: list[int] | None) -> None:
    generator = torch.Generator().manual_seed(heads)
    qkv = torch.randn(2, LENGTH, 3, heads, head_dim, generator=generator)
    norms = tuple(torch.randn(head_dim, generator=generator) if norm else None for _ in range(4))
    angles = torch.randn(LENGTH, 2, head_dim // 4, generator=generator).repeat(1, 1, 2).flatten(1)
    table = (angles.cos(), angles.sin()) if turned else (None, None)
    indices = None if read is None else torch.tensor(read)
    wanted = queries_and_keys(qkv, *norms, *table, indices, EPS)
    found = tuple(torch.full_like(x, torch.nan) for x in wanted)
    launch(qkv, *found, norms, table, indices, EPS, tile=16 * head_dim)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b)


for (heads, head_dim), norm, turned, read in itertools.product(((2, 16), (6, 64)), (True, False), (True, False), (None, [3, 0, 12, 7, 7])):
    compare(heads, head_dim, norm, turned, read)
