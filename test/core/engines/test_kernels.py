"""Kernels of our own: they compute what the modules compute that they stand in for, and compiled code with them is kept and loaded."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from da3_core.engines import compiled
from da3_core.engines.cache import ArtifactCache
from da3_core.engines.compiled import Packages
from da3_core.engines.export import export
from da3_core.engines.halves import DecodeWindow, EncodeViews
from da3_core.engines.kernels import KERNELS, using
from da3_core.model.checkpoint import Model
from da3_core.model.da3 import AnyView
from da3_core.model.dpt import OutputStack
from da3_core.model.layers import Attention
from da3_core.model.rope import RotaryTable, table_within_view

CPU = torch.device("cpu")
SIZE, GRID = (28, 42), (2, 3)
gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


def attention_case(
    heads: int, norm: bool, turned: bool, device: str = "cpu", head_dim: int = 16
) -> tuple[Attention, Tensor, RotaryTable | None]:
    """A layer with norms that do something, the product (2, L, 3, heads, head_dim) of its tokens, and a table."""
    generator = torch.Generator().manual_seed(heads)
    attention = Attention(heads * head_dim, heads, qk_norm=norm).requires_grad_(False)
    for parameter in (*attention.q_norm.parameters(), *attention.k_norm.parameters()):
        parameter.copy_(torch.randn(parameter.shape, generator=generator))
    qkv = torch.randn(2, 1 + GRID[0] * GRID[1], 3, heads, head_dim, generator=generator)
    table = table_within_view(GRID, head_dim, 100.0, torch.device(device)) if turned else None
    return attention.to(device), qkv.to(device), table


def decode_window(model: Model) -> tuple[nn.Module, list[Tensor]]:
    """A window of three views, two of them wanted, and tokens like those that stand for views."""
    assert isinstance(model, AnyView)
    generator, config = torch.Generator().manual_seed(1), model.config.backbone
    early = sum(i < model.backbone.first_window_block for i in config.out_layers)
    tokens = [torch.randn(3, 1 + GRID[0] * GRID[1], config.embed_dim, generator=generator) for _ in range(1 + early)]
    camera_tokens = torch.randn(3, config.embed_dim, generator=generator)
    return DecodeWindow(model, SIZE), [torch.tensor([2, 0, 1]), torch.tensor([1, 2]), camera_tokens, *tokens]


def operations(part: nn.Module, inputs: list[Tensor], named: str = "da3") -> list[str]:
    return [str(node.target) for node in export(part, inputs).graph.nodes if named in str(node.target)]


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("turned", [True, False])
@pytest.mark.parametrize("read", [None, torch.tensor([3, 0, 6, 6])])
@pytest.mark.parametrize("head_dim", [16, 24])  # the kernel has powers of two only
def test_attention_is_split_as_the_module_splits_it(norm: bool, turned: bool, read: Tensor | None, head_dim: int) -> None:
    attention, qkv, table = attention_case(2, norm, turned, head_dim=head_dim)
    wanted = attention.split(qkv, table, read)
    with using(attention):
        found = attention.split(qkv, table, read)
    assert "split" not in vars(attention)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
def test_the_kernel_in_tritons_interpreter() -> None:
    program = Path(__file__).with_name("interpreted_kernel.py")
    done = subprocess.run([sys.executable, program], env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_window_and_its_views_are_what_they_were(shallow_of: Callable[[str], Model]) -> None:
    model = shallow_of("da3-small")
    assert isinstance(model, AnyView)
    images = torch.randint(0, 255, (2, 3, *SIZE), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    for part, inputs in (decode_window(model), (EncodeViews(model), [images])):
        with torch.no_grad():
            wanted = part(*inputs)
            with using(part):
                found = export(part, inputs).module()(*inputs)
        for a, b in zip(found, wanted, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_a_graph_has_each_kernel_where_it_belongs(shallow_of: Callable[[str], Model]) -> None:
    part, inputs = decode_window(shallow_of("da3-small"))
    assert operations(part, inputs) == []
    with using(part):
        found = operations(part, inputs)
    assert found.count("da3.queries_and_keys.default") == 2  # the blocks that see the window
    with using(part.bfloat16(), ["linear_gelu"]):
        found = operations(part, [x.bfloat16() if x.is_floating_point() else x for x in inputs])
    assert set(found) == {"da3.linear_gelu.default"}


def test_patches_are_embedded_by_a_product(shallow_of: Callable[[str], Model]) -> None:
    model, images = shallow_of("da3-small"), torch.zeros(2, 3, *SIZE, dtype=torch.uint8)
    assert isinstance(model, AnyView)
    part = EncodeViews(model)
    assert len(operations(part, [images], "conv")) == 1
    with using(part):
        assert operations(part, [images], "conv") == []


def test_the_tanh_form_of_gelu_is_near_the_other() -> None:
    generator = torch.Generator().manual_seed(0)
    x, weight, bias = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((2, 5, 8), (16, 8), (16,)))
    wanted = F.gelu(F.linear(x, weight, bias))
    found = torch.ops.da3.linear_gelu(x, weight, bias)
    assert 0 < (found - wanted).abs().max() < 5e-4


@pytest.mark.skipif(shutil.which("g++") is None, reason="Inductor needs a C++ compiler")
def test_a_package_with_kernels_is_loaded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Part(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention, _, self.table = attention_case(2, norm=True, turned=True)
            self.stack = OutputStack(32, 2).requires_grad_(False)

        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            return (self.stack(self.attention(x, self.table).mT.unsqueeze(-1)),)

    part, x = Part(), torch.randn(2, 7, 32, generator=torch.Generator().manual_seed(0))
    for _ in range(2):
        (found,) = Packages(ArtifactCache(part, tmp_path), CPU, kernels=KERNELS).build(part, [x])(x)
        torch.testing.assert_close(found, part(x)[0])
        monkeypatch.setattr(compiled, "export", None)


@gpu
@pytest.mark.gpu
@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.bfloat16, 1e-2), (torch.float16, 2e-3)])
@pytest.mark.parametrize("heads", [3, 16])
@pytest.mark.parametrize("read", [None, [3, 0, 6, 6]])
def test_the_kernel_on_a_gpu(dtype: torch.dtype, tolerance: float, heads: int, read: list[int] | None) -> None:
    attention, qkv, table = attention_case(heads, norm=True, turned=True, device="cuda", head_dim=64)
    qkv, indices = qkv.to(dtype), None if read is None else torch.tensor(read, device="cuda")
    wanted = attention.split(qkv.float(), table, indices)
    with using(attention.to(dtype)):
        found = attention.split(qkv, table, indices)
    for a, b in zip(found, wanted, strict=True):
        assert a.dtype == dtype and (a - b).norm() <= tolerance * b.norm()
