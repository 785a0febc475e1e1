"""Run with TRITON_INTERPRET=1: the Triton kernels against PyTorch, on the CPU. Imported by no test, since Triton settles on how it runs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import torch
from triton.runtime import interpreter

from da3_core.engines import bounded_attention_kernel, queries_and_keys_kernel
from da3_core.engines.bounded_attention import LARGEST_LOGIT
from da3_core.engines.kernels import queries_and_keys


def with_numbers_as_bounds(patch: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
    """Triton 3.6 takes loops' bounds from arrays of one element, which NumPy 2.4 no longer makes a number of."""

    def patched(tensor: Any, scope: Any) -> None:
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    return patched


interpreter._patch_lang_tensor = with_numbers_as_bounds(interpreter._patch_lang_tensor)
LENGTH, EPS, SCALE = 13, 1e-5, 0.7
bounded_attention_kernel.ROWS = bounded_attention_kernel.KEYS = 16  # several blocks, and a rest, of short sequences


def compare(heads: int, head_dim: int, norm: bool, turned: bool, read: list[int] | None) -> None:
    generator = torch.Generator().manual_seed(heads)
    qkv = torch.randn(2, LENGTH, 3, heads, head_dim, generator=generator)
    norms = tuple(torch.randn(head_dim, generator=generator) if norm else None for _ in range(4))
    angles = torch.randn(LENGTH, 2, head_dim // 4, generator=generator).repeat(1, 1, 2).flatten(1)
    table = (angles.cos(), angles.sin()) if turned else (None, None)
    indices = None if read is None else torch.tensor(read)
    wanted = queries_and_keys(qkv, *norms, *table, indices, EPS, SCALE)
    found = tuple(torch.full_like(x, torch.nan) for x in wanted)
    queries_and_keys_kernel.TILE = 16 * head_dim
    queries_and_keys_kernel.launch(qkv, *found, norms, table, indices, EPS, SCALE)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b)


def compare_bounded(length: int, queries: int, dtype: torch.dtype, tolerance: float) -> None:
    generator = torch.Generator().manual_seed(length)
    qkv = torch.randn(2, length, 3, 2, 64, generator=generator).to(dtype)
    q = (torch.randn(2, queries, 2, 64, generator=generator) / 8).to(dtype)
    k = qkv[:, :, 1].contiguous()
    logits = torch.einsum("bqhd,bkhd->bhqk", q.double(), k.double()) * math.log(2)
    wanted = torch.einsum("bhqk,bkhd->bqhd", logits.softmax(-1), qkv[:, :, 2].double())
    found = torch.full_like(q, torch.nan)
    bounded_attention_kernel.launch(q, k, qkv, found)
    torch.testing.assert_close(found.double(), wanted, rtol=tolerance, atol=tolerance)


def compare_largest(dtype: torch.dtype, largest: float) -> None:
    """Logits as large as they may be, of both signs or all of them negative: nothing overflows, and nothing is lost."""
    for signs in (torch.tensor([1.0, -1, -1, 1, 0.5]), -torch.ones(5)):
        k = torch.zeros(1, 5, 1, 64)
        k[0, :, 0, 0] = signs
        q = torch.zeros(1, 1, 1, 64)
        q[..., 0] = largest * math.log2(math.e)
        qkv = torch.randn(1, 5, 3, 1, 64, generator=torch.Generator().manual_seed(0)).to(dtype)
        found = torch.full((1, 1, 1, 64), torch.nan, dtype=dtype)
        bounded_attention_kernel.launch(q.to(dtype), k.to(dtype), qkv, found)
        wanted = (largest * signs).softmax(0) @ qkv[0, :, 2, 0].float()
        torch.testing.assert_close(found[0, 0, 0].float(), wanted, rtol=1e-2, atol=4e-3)


for (heads, head_dim), norm, turned, read in itertools.product(((2, 16), (6, 64)), (True, False), (True, False), (None, [3, 0, 12, 7, 7])):
    compare(heads, head_dim, norm, turned, read)

for length, queries, (dtype, tolerance) in itertools.product((1, 16, 37), (3, 33), ((torch.float32, 1e-4), (torch.float16, 4e-3))):
    compare_bounded(length, queries, dtype, tolerance)

compare_largest(torch.float16, LARGEST_LOGIT[torch.float16])
compare_largest(torch.float32, LARGEST_LOGIT[torch.bfloat16])  # whose range is that of bfloat16, which the interpreter has not
