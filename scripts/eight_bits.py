"""Whether products in eight bits would pay on a GPU: python scripts/eight_bits.py. Milliseconds of the products in a frame's blocks.

Weights are rounded beforehand, tokens on the way, each row with a scale of its own; all compiled and replayed from CUDA graphs. What it
costs in precision: scripts/precision.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from bench_gpu import event_ms
from torch import Tensor

from da3_core.model import PRESETS

TOKENS, VIEWS = 865, 8  # of an image of 336x504; of a window
NETWORKS = ("da3-base", "da3-large")


def main() -> None:
    torch._dynamo.config.recompile_limit = 500
    for name in NETWORKS:
        totals = dict.fromkeys(("bfloat16", "int8", "float8"), 0.0)
        for tokens, width_in, width_out, count in products_of_a_frame(name):
            for kind, product in products(tokens, width_in, width_out).items():
                totals[kind] += count * milliseconds(product)
        print(name, {kind: round(total, 2) for kind, total in totals.items()}, flush=True)


def products_of_a_frame(name: str) -> list[tuple[int, int, int, int]]:
    """Tokens, widths and how often: the first blocks see the new view alone, the others the whole window."""
    config: Any = PRESETS[name]
    width, alone = config.backbone.embed_dim, config.backbone.alt_start
    wide = ((width, 3 * width), (width, width), (width, 4 * width), (4 * width, width))
    blocks = ((TOKENS, alone), (TOKENS * VIEWS, config.backbone.depth - alone))
    return [(tokens, width_in, width_out, count) for width_in, width_out in wide for tokens, count in blocks]


def products(tokens: int, width_in: int, width_out: int) -> dict[str, Callable[[], Tensor]]:
    x, w, b = (
        torch.randn(shape, device="cuda", dtype=torch.bfloat16) for shape in ((tokens, width_in), (width_out, width_in), (width_out,))
    )
    (w_int8, s_int8), (w_float8, s_float8) = as_int8(w), as_float8(w)
    return {
        "bfloat16": lambda: in_bfloat16(x, w, b),
        "int8": lambda: in_int8(x, w_int8.t(), s_int8.view(1, -1), b),
        "float8": lambda: in_float8(x, w_float8.t(), s_float8.view(1, -1), b),
    }


def as_int8(x: Tensor) -> tuple[Tensor, Tensor]:
    scale = x.abs().amax(-1, keepdim=True).float().clamp(min=1e-12) / 127
    return (x / scale).round().clamp(-127, 127).to(torch.int8), scale


def as_float8(x: Tensor) -> tuple[Tensor, Tensor]:
    scale = x.abs().amax(-1, keepdim=True).float().clamp(min=1e-12) / 448
    return (x / scale).to(torch.float8_e4m3fn), scale


@torch.compile(dynamic=False)
def in_bfloat16(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return F.linear(x, w, b)


@torch.compile(dynamic=False)
def in_int8(x: Tensor, w: Tensor, w_scale: Tensor, b: Tensor) -> Tensor:
    rounded, scale = as_int8(x)
    return (torch._int_mm(rounded, w).float() * scale * w_scale + b).to(x.dtype)


@torch.compile(dynamic=False)
def in_float8(x: Tensor, w: Tensor, w_scale: Tensor, b: Tensor) -> Tensor:
    rounded, scale = as_float8(x)
    return torch._scaled_mm(rounded, w, scale, w_scale, bias=b, out_dtype=torch.bfloat16)


def milliseconds(run: Callable[[], Tensor]) -> float:
    for _ in range(5):
        run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return event_ms(graph.replay, repeats=30)


if __name__ == "__main__":
    main()
