"""What is done to a network from outside leaves its outputs as fine as they were."""

from __future__ import annotations

import pytest
import torch

from da3_core.model import build_model
from da3_core.training.anyview import AnyViewTraining
from da3_core.training.config import LossConfig, RuntimeConfig
from da3_core.training.objective import Objective, ground_truth
from da3_core.training.parallel import parallelise
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


@pytest.mark.parametrize("bf16", [True, False])
def test_outputs_are_float32_where_the_rest_is_bfloat16(bf16: bool) -> None:
    anyview = AnyViewTraining(build_model(ANY_VIEW), LossConfig(), bf16, labels=ground_truth)  # type: ignore[arg-type]
    teacher = TeacherTraining(build_model(MONO), LossConfig(), bf16, labels=ground_truth, objects=True)  # type: ignore[arg-type]
    for objective, count in ((anyview, 1 + 4), (teacher, 1 + 2)):
        parallelise(objective, RuntimeConfig(bf16=bf16), ALONE)
        found = outputs(objective)
        assert [x.dtype for x in found] == [torch.float32 if bf16 else torch.bfloat16] * count
