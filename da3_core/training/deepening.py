"""A deeper network that begins as a shallower, trained one: training goes on instead of starting anew. Not a part of the paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import Tensor

from da3_core.model.presets import BackboneConfig

NEW = 0.1  # share of its layer scale that a copied block begins with: it does little at first, and yet learns at once
BLOCKS = "backbone.blocks."


def deepen(weights: Mapping[str, Tensor], shallow: BackboneConfig, deep: BackboneConfig) -> dict[str, Tensor]:
    """Weights of a network with the backbone `deep` that computes nearly what the one with `shallow` computes, whose weights are given.

    Blocks that see one view are repeated evenly, and so are pairs of a block within and one across views. Of those that come from the same
    block the last is the block itself; those before it are copies that do little yet.
    Raises ValueError where `deep` differs in more than its depth, or does not read the blocks that `shallow` reads.
    """
    origins = origins_of_blocks(shallow, deep)
    deeper = {name: tensor for name, tensor in weights.items() if not name.startswith(BLOCKS)}
    for i, (origin, is_copy) in enumerate(origins):
        prefix = f"{BLOCKS}{origin}."
        for name in filter(lambda name: name.startswith(prefix), weights):
            part = name.removeprefix(prefix)
            deeper[f"{BLOCKS}{i}.{part}"] = weights[name] * (NEW if is_copy and part.endswith(".gamma") else 1.0)
    return deeper


def origins_of_blocks(shallow: BackboneConfig, deep: BackboneConfig) -> list[tuple[int, bool]]:
    """For every block of `deep`: which one of `shallow` it comes from, and whether it is a copy that comes before that one."""
    first, deep_first = shallow.first_window_block, deep.first_window_block
    singles = _spread(range(first), deep_first)
    pairs = _spread(range(first, shallow.depth, 2), (deep.depth - deep_first) // 2)
    origins = singles + [(origin + k, is_copy) for origin, is_copy in pairs for k in (0, 1)]
    read = tuple(i for i, (origin, is_copy) in enumerate(origins) if origin in shallow.out_layers and not is_copy)
    whole = len(origins) == deep.depth and {origin for origin, _ in origins} == set(range(shallow.depth))
    fits = whole and all(_kind(deep, i) == _kind(shallow, origin) for i, (origin, _) in enumerate(origins))
    starts = {name: getattr(shallow, name) for name in ("depth", "out_layers", "alt_start", "qknorm_start", "rope_start")}
    if not fits or replace(deep, **starts) != shallow:
        more = "it may have more blocks before alt_start and more pairs of blocks from there on, all else being equal"
        raise ValueError(f"{deep} cannot begin as {shallow}: {more}")
    if read != deep.out_layers:
        raise ValueError(f"to begin as {shallow}, a backbone of {deep.depth} blocks needs out_layers {read}, not {deep.out_layers}")
    return origins


def _spread(origins: Sequence[int], count: int) -> list[tuple[int, bool]]:
    """`count` of them, each about equally often, in order, with whether the same one follows; some are left out where `count` is less."""
    chosen = [origins[k * len(origins) // count] for k in range(count)] if origins else []
    return [(origin, origin in chosen[k + 1 :]) for k, origin in enumerate(chosen)]


def _kind(config: BackboneConfig, block: int) -> tuple[bool, ...]:
    """What sets blocks apart: whether it is past the starts, and attends across views."""
    starts = (config.alt_start, config.qknorm_start, config.rope_start)
    past = [start is not None and block >= start for start in starts]
    return (*past, past[0] and block % 2 == 1)
