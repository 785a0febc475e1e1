"""Attention for layers that normalise queries and keys: where the norms' weights keep every logit small, no maximum has to be found."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from da3_core.model.layers import Attention

HEAD_DIM = 64
QUERY_SCALE = math.log2(math.e) / math.sqrt(HEAD_DIM)  # so that weights are powers of two
LARGEST_LOGIT = {torch.bfloat16: 60.0, torch.float16: 10.0}  # e^60 and sums of it are float32's; weights are held as float16 in float16


@torch.library.custom_op("da3::bounded_attention", mutates_args=(), schema="(Tensor q, Tensor k, Tensor qkv) -> Tensor")
def bounded_attention(q: Tensor, k: Tensor, qkv: Tensor) -> Tensor:
    """Values of qkv (B, L, 3, H, 64) averaged with weights 2^(q . k): q (B, Lq, H, 64), k (B, L, H, 64), result as q, all contiguous.

    Queries come with the factor `QUERY_SCALE`. Logits beyond `LARGEST_LOGIT` may give infinities: see `is_bounded`.
    """
    if not q.is_cuda:
        q, k, v = (x.transpose(1, 2) for x in (q, k, qkv[:, :, 2]))
        return F.scaled_dot_product_attention(q, k, v, scale=math.log(2)).transpose(1, 2).contiguous()
    from da3_core.engines.bounded_attention_kernel import launch

    out = torch.empty_like(q)
    with torch.cuda.device(q.device):
        launch(q, k, qkv, out)
    return out


@bounded_attention.register_fake
def _empty_attention(q: Tensor, k: Tensor, qkv: Tensor) -> Tensor:
    return torch.empty_like(q)


def is_bounded(attention: Attention) -> bool:
    """Whether the kernel is right for this layer, whatever its tokens are: by its precision, its heads' size and its norms."""
    limit = LARGEST_LOGIT.get(attention.qkv.weight.dtype, -1.0)
    heads_fit: bool = attention.qkv.in_features == attention.heads * HEAD_DIM
    return heads_fit and isinstance(attention.q_norm, nn.LayerNorm) and largest_logit(attention) <= limit


def largest_logit(attention: Attention) -> float:
    """A bound of |q . k| / sqrt(D) over all tokens and rotations, from the weights of LayerNorm over D channels.

    With x and y the normalised tokens, |x|, |y| <= sqrt(D), and R that turns channels in pairs p, D / 4 apart (`RotaryTable`):
    q . k = (Wq x + bq) . R (Wk y + bk), so |q . k| <= sum_p (wq_p |x_p| + |bq_p|) (wk_p |y_p| + |bk_p|), w_p the larger weight of a pair;
    by Cauchy-Schwarz this is at most D max_p(wq_p wk_p) + sqrt(D) (|wq bk| + |wk bq|) + sum_p |bq_p| |bk_p|.
    """
    norms = (attention.q_norm, attention.k_norm)
    (wq, wk), (bq, bk) = ([_of_pairs(getattr(norm, name)) for norm in norms] for name in ("weight", "bias"))
    wq, wk, bq, bk = wq.amax(1), wk.amax(1), bq.norm(dim=1), bk.norm(dim=1)
    root = math.sqrt(2 * wq.numel())
    return float(root * (wq * wk).max() + (wq * bk).norm() + (wk * bq).norm() + (bq * bk).sum() / root)


def _of_pairs(parameter: Tensor) -> Tensor:
    """Magnitudes (2, 2, D / 4), a pair of channels along the second dimension."""
    pairs: Tensor = parameter.detach().double().abs().unflatten(0, (2, 2, -1))
    return pairs
