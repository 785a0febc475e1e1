"""All templates as tensors, so that one expression draws furniture for many worlds at once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from da3_core.scenes.fittings import FITTINGS
from da3_core.scenes.furniture import FURNITURE
from da3_core.scenes.materials import FAMILY_ID
from da3_core.scenes.parts import SHAPE_ID, Part, Template
from da3_core.scenes.street import STREET

TEMPLATES: dict[str, Template] = {**FURNITURE, **FITTINGS, **STREET}
TEMPLATE_ID = {name: i for i, name in enumerate(TEMPLATES)}
PARTS = max(len(template.parts) for template in TEMPLATES.values())


def ids(*names: str) -> list[int]:
    return [TEMPLATE_ID[name] for name in names]


@dataclass(frozen=True)
class TemplateTable:
    """`TEMPLATES` as tensors; T templates of at most K parts, absent ones with chance 0."""

    size_low: Tensor  # (T, 3)
    size_high: Tensor  # (T, 3)
    thickness_low: Tensor  # (T,)
    thickness_high: Tensor  # (T,)
    family: Tensor  # (T, 3) int64
    top: Tensor  # (T,)
    bounds: Tensor  # (T, K, 3 axes, 2 ends, 2: fraction and thicknesses)
    shape: Tensor  # (T, K) int64
    material: Tensor  # (T, K) int64
    chance: Tensor  # (T, K)
    tilt: Tensor  # (T, K) radians


@cache
def template_table(device: torch.device) -> TemplateTable:
    """Built once per device."""
    templates = list(TEMPLATES.values())
    absent = Part("box", (0, 0), (0, 0), (0, 0), chance=0.0)
    parts = [[*template.parts, *[absent] * (PARTS - len(template.parts))] for template in templates]
    bounds = torch.tensor([[[p.x, p.y, p.z] for p in row] for row in parts], dtype=torch.complex64)

    def floats(values: list[list[float]] | list[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=device)

    return TemplateTable(
        size_low=floats([[low for low, _ in template.size] for template in templates]),
        size_high=floats([[high for _, high in template.size] for template in templates]),
        thickness_low=floats([template.thickness[0] for template in templates]),
        thickness_high=floats([template.thickness[1] for template in templates]),
        family=torch.tensor([[FAMILY_ID[f] for f in template.families] for template in templates], device=device),
        top=floats([template.top for template in templates]),
        bounds=torch.view_as_real(bounds).to(device),
        shape=torch.tensor([[SHAPE_ID[p.shape] for p in row] for row in parts], device=device),
        material=torch.tensor([[p.material for p in row] for row in parts], device=device),
        chance=floats([[p.chance for p in row] for row in parts]),
        tilt=torch.deg2rad(floats([[p.tilt_deg for p in row] for row in parts])),
    )
