"""Kernels of our own, for what Inductor does poorly on a GPU, and where networks use them.

Each is an operation that compilers do not look into, `torch.ops.da3`; on a CPU it is plain PyTorch. Code that was compiled with them needs
this module imported before it is loaded.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from da3_core.engines.bounded_attention import QUERY_SCALE, is_bounded
from da3_core.model.backbone import Backbone
from da3_core.model.dpt import OutputStack
from da3_core.model.layers import Attention, Mlp
from da3_core.model.rope import RotaryTable, rotate

KERNELS = ("queries_and_keys", "linear_gelu", "patch_product", "channel_sum")
ON_HOPPER = (*KERNELS, "bounded_attention")  # elsewhere it has not been measured, and older chips have not what makes it fast
FEW_CHANNELS = 4
ALIGNED = 8  # numbers of two bytes, for a product's fastest loads


@torch.library.custom_op(
    "da3::queries_and_keys",
    mutates_args=(),
    schema="(Tensor qkv, Tensor? q_weight, Tensor? q_bias, Tensor? k_weight, Tensor? k_bias, Tensor? cos, Tensor? sin, Tensor? read,"
    " float eps, float scale=1.0) -> (Tensor, Tensor)",
)
def queries_and_keys(
    qkv: Tensor,
    q_weight: Tensor | None,
    q_bias: Tensor | None,
    k_weight: Tensor | None,
    k_bias: Tensor | None,
    cos: Tensor | None,
    sin: Tensor | None,
    read: Tensor | None,
    eps: float,
    scale: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Queries (B, Lq, H, D) of all tokens or those at `read` (Lq,), and keys (B, L, H, D), of contiguous qkv (B, L, 3, H, D).

    Normalised over D where there are weights, turned by the table (L, D) of `RotaryTable` where there is one, queries times `scale`, all in
    float32.
    """
    if qkv.is_cuda:
        from da3_core.engines.queries_and_keys_kernel import launch

        q, k = _empty_queries_and_keys(qkv, q_weight, q_bias, k_weight, k_bias, cos, sin, read, eps)
        with torch.cuda.device(qkv.device):
            launch(qkv, q, k, (q_weight, q_bias, k_weight, k_bias), (cos, sin), read, eps, scale)
        return q, k
    q, k, _ = qkv.float().unbind(2)
    if q_weight is not None and k_weight is not None and q_bias is not None and k_bias is not None:
        q = F.layer_norm(q, q.shape[-1:], q_weight.float(), q_bias.float(), eps)
        k = F.layer_norm(k, k.shape[-1:], k_weight.float(), k_bias.float(), eps)
    if cos is not None and sin is not None:
        table = RotaryTable(cos.unsqueeze(1), sin.unsqueeze(1))
        q, k = rotate(q, table), rotate(k, table)
    q = scale * (q if read is None else q.index_select(1, read))
    q, k = (x.to(qkv.dtype, memory_format=torch.contiguous_format, copy=True) for x in (q, k))
    return q, k


@queries_and_keys.register_fake
def _empty_queries_and_keys(qkv: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
    B, L, _, H, D = qkv.shape
    read = others[6]
    return qkv.new_empty(B, L if read is None else len(read), H, D), qkv.new_empty(B, L, H, D)


@torch.library.custom_op("da3::linear_gelu", mutates_args=(), schema="(Tensor x, Tensor weight, Tensor bias) -> Tensor")
def linear_gelu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A linear layer and GELU in its tanh form, which cuBLASLt applies before it writes the product: (B, L, in) to (B, L, out)."""
    if not x.is_cuda:
        return F.gelu(F.linear(x, weight, bias), approximate="tanh")
    y: Tensor = torch._addmm_activation(bias, x.flatten(0, 1), weight.t(), use_gelu=True)
    return y.view(*x.shape[:2], -1)


@linear_gelu.register_fake
def _empty_linear_gelu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return x.new_empty(*x.shape[:-1], len(weight))


@contextlib.contextmanager
def using(part: nn.Module, kernels: Collection[str] = KERNELS) -> Iterator[None]:
    """Within, modules of `part` compute with these kernels: what is exported there has them in its graph."""
    methods = [(module, name, method) for kernel, module, name, method in _methods(part) if kernel in kernels]
    for module, name, method in methods:
        setattr(module, name, method)
    try:
        yield
    finally:
        for module, name, _ in methods:
            delattr(module, name)


def _methods(part: nn.Module) -> Iterator[tuple[str, nn.Module, str, Any]]:
    """Kernel, and the module and method that it stands in for."""
    for module in part.modules():
        if isinstance(module, Attention):
            yield "queries_and_keys", module, "split", partial(_split, module)
            if is_bounded(module):
                yield "bounded_attention", module, "attend", partial(_attend, module)
        elif isinstance(module, Backbone):
            yield "patch_product", module.patch_embed, "forward", partial(_patch_product, module.patch_embed)
        elif isinstance(module, OutputStack) and module.out.out_channels <= FEW_CHANNELS:
            yield "channel_sum", module.out, "forward", partial(_channel_sum, module.out)
        elif isinstance(module, Mlp) and module.fc1.weight.dtype == torch.bfloat16:
            yield "linear_gelu", module, "forward", partial(_mlp, module)


def _split(attention: Attention, qkv: Tensor, table: RotaryTable | None, read: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    nothing_to_do = table is None and isinstance(attention.q_norm, nn.Identity)
    if nothing_to_do or qkv.shape[-1].bit_count() > 1:  # Triton's ranges are powers of two
        return Attention.split(attention, qkv, table, read)
    q, k = _prepared(attention, qkv, table, read)
    return q.transpose(1, 2), k.transpose(1, 2), qkv[:, :, 2].transpose(1, 2)


def _attend(attention: Attention, qkv: Tensor, table: RotaryTable | None, read: Tensor | None) -> Tensor:
    q, k = _prepared(attention, qkv, table, read, QUERY_SCALE)
    y: Tensor = torch.ops.da3.bounded_attention(q, k, qkv)
    return y.transpose(1, 2)


def _prepared(
    attention: Attention, qkv: Tensor, table: RotaryTable | None, read: Tensor | None, scale: float = 1.0
) -> tuple[Tensor, Tensor]:
    """`queries_and_keys` as a layer wants them."""
    norms = [getattr(norm, name, None) for norm in (attention.q_norm, attention.k_norm) for name in ("weight", "bias")]
    cos, sin = (None, None) if table is None else table
    q, k = torch.ops.da3.queries_and_keys(qkv, *norms, cos, sin, read, getattr(attention.q_norm, "eps", 0.0), scale)
    return q, k


def _patch_product(conv: nn.Conv2d, images: Tensor) -> Tensor:
    """Patches that do not overlap: a product, of a length that tensor cores take, where cuDNN's convolution needs ten times as long."""
    patch = conv.kernel_size[0]
    grid = images.shape[-2] // patch, images.shape[-1] // patch
    pixels = (
        images.unflatten(3, (-1, patch)).unflatten(2, (-1, patch)).permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
    )  # (V, P, 3 * patch^2)
    missing = -pixels.shape[-1] % ALIGNED
    tokens: Tensor = F.linear(F.pad(pixels, (0, missing)), F.pad(conv.weight.flatten(1), (0, missing)), conv.bias)
    maps: Tensor = tokens.mT.unflatten(2, grid)
    return maps


def _channel_sum(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """A 1x1 convolution to few channels as sums that Inductor fuses with what is before and after them, in float32."""
    bias = cast(Tensor, conv.bias).float().unbind()
    return torch.stack([(x.float() * w).sum(1) + b for w, b in zip(conv.weight.float(), bias, strict=True)], 1)


def _mlp(mlp: Mlp, x: Tensor) -> Tensor:
    """GELU's tanh form moves trained da3-nano's depth by 8e-5 in the median, bfloat16 by 2e-3, but float16 by 1e-4 only."""
    y: Tensor = mlp.fc2(torch.ops.da3.linear_gelu(x, mlp.fc1.weight, mlp.fc1.bias))
    return y
