"""Where outputs go: never on the input or on each other, and by force only where their like is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, product
from pathlib import Path
from typing import Literal

from .recording import BagError

MARKS = {"bag": "metadata.yaml", "data set": "rgb.txt"}  # the file by which a directory is known


@dataclass(frozen=True)
class Place:
    """The name that an output takes when it is complete."""

    path: Path
    kind: Literal["file", "bag", "data set"] = "file"


def refuse_places(input: Path, places: Sequence[Place], force: bool) -> None:
    """Raises BagError where an output would fall on the input, on another output, or on what `force` does not replace."""
    parts = [input, *(input.iterdir() if input.is_dir() else ())]  # files of a bag may lie elsewhere, and be linked
    for place, part in product(places, parts):
        if _overlap(place.path, part):
            raise BagError(f"{place.path} would replace or grow into the input {part}; take another place")
    for one, other in combinations(places, 2):
        if _overlap(one.path, other.path):
            raise BagError(f"{one.path} and {other.path} would fall on each other; take places beside each other")
    for place in places:
        if place.path.exists():
            _refuse_existing(place, force)


def _refuse_existing(place: Place, force: bool) -> None:
    path, mark = place.path, MARKS.get(place.kind)
    if not force:
        raise BagError(f"{path} exists; --force replaces it")
    if not path.is_dir():
        return
    if mark is None:
        raise BagError(f"{path} is a directory, where a file goes; take another place")
    if not (path / mark).is_file() and any(path.iterdir()):
        raise BagError(f"{path} is no {place.kind}, it has no {mark}: --force does not replace it; remove it or take another place")


def _overlap(one: Path, other: Path) -> bool:
    return any(a == b or a in b.parents or b in a.parents for a, b in product(_spots(one), _spots(other)))


def _spots(path: Path) -> set[Path]:
    """The name itself, which a link may have, and what it leads to."""
    return {path.parent.resolve() / path.name, path.resolve()}
