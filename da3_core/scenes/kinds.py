"""Kinds of worlds and the one way to make them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from da3_core.scenes.objects import make_objects
from da3_core.scenes.outdoors import make_outdoors
from da3_core.scenes.rng import Draws
from da3_core.scenes.rooms import make_abstract, make_rooms
from da3_core.scenes.worlds import Worlds, interleave

MAKERS: dict[str, Callable[[Tensor, int], Worlds]] = {
    "room": partial(make_rooms, is_corridor=False),
    "corridor": partial(make_rooms, is_corridor=True),
    "outdoor": make_outdoors,
    "object": make_objects,
    "abstract": make_abstract,
}
KINDS = tuple(MAKERS)
SIZELESS = frozenset({KINDS.index("object")})  # of `KINDS`, those whose images do not show how large things are
# What is drawn from by default: abstract rooms have to be asked for.
MIX = ("room",) * 5 + ("corridor",) + ("outdoor",) * 3 + ("object",) * 2


def check_mix(name: str, mix: Sequence[str]) -> None:
    """Raises ValueError, naming the setting, for names that are no kinds of worlds, or none."""
    if not mix or not set(mix) <= set(KINDS):
        raise ValueError(f"{name} {list(mix)} must list kinds of worlds: name some of {', '.join(KINDS)}")


def draw_kinds(seeds: Tensor, mix: Sequence[str] = MIX) -> list[str]:
    """The kind of each world (B,), mixed as `mix` says: names of `KINDS`, each as often as its share."""
    return [mix[i] for i in Draws(seeds, "kind", 1).integers(len(mix)).tolist()]


def make_worlds(seeds: Tensor, kinds: Sequence[str] | str | None = None, device: torch.device | str = "cpu") -> Worlds:
    """Worlds from seeds (B,) int64; every world depends on its own seed (and kind) only.

    kinds: one name of `KINDS` for all, one per world, or None for a mixture by seed. Seeds on the CPU spare the GPU a wait.
    """
    if kinds is None:
        kinds = draw_kinds(seeds.cpu())
    elif isinstance(kinds, str):
        kinds = [kinds] * len(seeds)
    kind = torch.tensor([KINDS.index(name) for name in kinds])
    groups, places = [], []
    for i, make in enumerate(MAKERS.values()):
        at = torch.nonzero(kind == i)[:, 0]
        if len(at):
            groups.append(make(seeds[at.to(seeds.device)].to(device), i))
            places.append(at.to(device))
    return interleave(groups, places)
