"""What is done to a network from outside leaves its outputs as fine as they were."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from da3_core.model import build_model
from da3_core.training.anyview import AnyViewTraining
from da3_core.training.config import LossConfig, RuntimeConfig
from da3_core.training.objective import Objective, ground_truth
from da3_core.training.parallel import compile_parts, parallelise
from da3_core.training.processes import Processes
from da3_core.training.teacher import TeacherTraining

from .fixed_batch import ANY_VIEW, HEAD, MONO

ALONE = Processes(0, 1, torch.device("cpu"))


def outputs(objective: Objective) -> list[torch.Tensor]:
    """What the heads' last layers say under autocast."""
    head = objective.network.head
    layers = [getattr(objective, "object_output", None), getattr(head, "sky_output", None), *getattr(head, "ray_outputs", ())]
    with torch.autocast("cpu", torch.bfloat16):
        return [layer(torch.randn(1, HEAD.features // 2, 14, 14)) for layer in (head.depth_output, *filter(None, layers))]  # type: ignore[operator,union-attr]


@pytest.mark.parametrize("objects", [True, False])
def test_all_outputs_of_a_teacher_come_from_its_compiled_head(monkeypatch: pytest.MonkeyPatch, objects: bool) -> None:
    objective = TeacherTraining(build_model(MONO), LossConfig(), bf16=False, labels=ground_truth, objects=objects)  # type: ignore[arg-type]
    images = torch.rand(2, 2, 3, 28, 42, generator=torch.Generator().manual_seed(0))
    expected = objective.predict(images)
    inside: list[bool] = []

    def compiled(forward: Callable[..., Any], dynamic: bool | None) -> Callable[..., Any]:
        def run(*args: Any) -> Any:
            inside.append(True)
            result = forward(*args)
            inside.pop()
            return result

        return run

    monkeypatch.setattr(torch, "compile", compiled)
    compile_parts(objective)
    convolutions = [m for m in objective.modules() if isinstance(m, nn.Conv2d) and m is not objective.network.backbone.patch_embed]
    found: list[bool] = []
    for module in convolutions:
        module.register_forward_hook(lambda *_: found.append(bool(inside)))
    maps = objective.predict(images)
    assert len(found) == len(convolutions) and all(found)
    assert [m is None for m in maps] == [False, False, not objects]
    torch.testing.assert_close([m for m in maps if m is not None], [m for m in expected if m is not None])


@pytest.mark.parametrize("bf16", [True, False])
def test_outputs_are_float32_where_the_rest_is_bfloat16(bf16: bool) -> None:
    anyview = AnyViewTraining(build_model(ANY_VIEW), LossConfig(), bf16, labels=ground_truth)  # type: ignore[arg-type]
    teacher = TeacherTraining(build_model(MONO), LossConfig(), bf16, labels=ground_truth, objects=True)  # type: ignore[arg-type]
    for objective, count in ((anyview, 1 + 4), (teacher, 1 + 2)):
        parallelise(objective, RuntimeConfig(bf16=bf16), ALONE)
        found = outputs(objective)
        assert [x.dtype for x in found] == [torch.float32 if bf16 else torch.bfloat16] * count
