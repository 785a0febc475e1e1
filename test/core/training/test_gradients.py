"""Gradients in one tensor, and the same whether computed or replayed."""

from __future__ import annotations

import traceback
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from da3_core.model import build_model
from da3_core.training.anyview import AnyViewTraining
from da3_core.training.config import LossConfig, RuntimeConfig
from da3_core.training.gradients import FlatGradients, PlainGradients, RecordedGradients, make_gradients
from da3_core.training.labels import TeacherLabels
from da3_core.training.metric import MetricTraining
from da3_core.training.objective import Objective, ground_truth
from da3_core.training.processes import Processes
from da3_core.training.teacher import TeacherTraining

from .fixed_batch import ANY_VIEW, METRIC, fixed_draw, fixed_samples, on_gpu

ALONE = Processes(0, 1, torch.device("cpu"))


def anyview() -> AnyViewTraining:
    torch.manual_seed(0)
    return AnyViewTraining(build_model(ANY_VIEW).train(), LossConfig(matching=1.0, given_cameras=1.0), bf16=False, labels=ground_truth)  # type: ignore[arg-type]


def test_a_flat_tensor_holds_all_gradients_and_the_unused_have_none() -> None:
    layer = nn.Linear(3, 2)
    gradients = FlatGradients([layer.weight, layer.bias])
    gradients.give([True, True])
    layer(torch.ones(1, 3)).sum().backward()
    assert gradients.flat.tolist() == [1.0] * 8
    gradients.flat.zero_()
    layer(torch.full((1, 3), 2.0)).sum().backward()
    assert layer.weight.grad is not None and layer.weight.grad.tolist() == [[2.0] * 3] * 2
    gradients.give([False, True])
    assert layer.weight.grad is None and layer.bias.grad is not None


def test_plain_gradients_are_those_of_one_batch() -> None:
    objective, samples = anyview(), fixed_samples()
    gradients, draw = PlainGradients(objective), fixed_draw(samples)
    gradients(samples, draw)
    first = [None if p.grad is None else p.grad.clone() for p in objective.parameters()]
    values = gradients(samples, draw)
    for before, parameter in zip(first, objective.parameters(), strict=True):
        assert (before is None) == (parameter.grad is None)
        assert before is None or torch.equal(before, parameter.grad)
    assert not any(value.requires_grad for value in values.values())


def test_recording_without_a_gpu_is_refused() -> None:
    with pytest.raises(ValueError, match=r"runtime\.record needs a GPU"):
        make_gradients(anyview(), RuntimeConfig(record=True), ALONE)


def test_objectives_say_what_they_decide() -> None:
    samples = fixed_samples()
    posed, unposed = (fixed_draw(samples, chances=(chance, 0.9)) for chance in (0.0, 0.9))
    network = build_model(METRIC)
    metric = MetricTraining(network, LossConfig(metric_rotation=0.5), bf16=False, labels=ground_truth)  # type: ignore[arg-type]
    assert (anyview().variant(posed), anyview().variant(unposed)) == (True, False)
    assert [metric.variant(fixed_draw(samples, chances=c)) for c in ((0.9, 0.1), (0.1, 0.1), (0.1, 0.9))] == [0, 1, 3]
    labels = TeacherLabels(network, bf16=False, aligned=True)  # type: ignore[arg-type]
    taught = MetricTraining(network, LossConfig(), bf16=False, labels=labels)  # type: ignore[arg-type]
    teacher = TeacherTraining(network, LossConfig(), bf16=False, labels=ground_truth, objects=True)  # type: ignore[arg-type]
    assert taught.variant(posed) is None and teacher.variant(posed) is None


class HostWatch(TorchDispatchMode):
    """Notes what a CUDA graph cannot hold: values read back, and tensors made from numbers of the host (one number alone is a fill)."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        reads = func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)
        if reads or (func is torch.ops.aten.lift_fresh.default and args[0].ndim > 0):
            self.found.append("".join(traceback.format_stack(limit=6)))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("chances", [(0.0, 0.9), (0.9, 0.9), (0.0, 0.1)])
def test_a_step_does_not_touch_the_host(chances: tuple[float, float]) -> None:
    samples = fixed_samples()
    draw = fixed_draw(samples, chances=chances)
    metric = MetricTraining(build_model(METRIC), LossConfig(metric_rotation=0.5), bf16=False, labels=ground_truth)  # type: ignore[arg-type]
    for objective in (anyview(), metric):
        objective(samples, draw)  # what is made once is made now
        with HostWatch() as watch:
            objective(samples, draw)["loss"].backward()
        assert not watch.found, watch.found[0]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("posed", [True, False])
def test_replayed_gradients_are_the_computed_ones(posed: bool) -> None:
    objective: Objective = anyview().cuda()
    device = torch.device("cuda", torch.cuda.current_device())
    recorded = RecordedGradients(objective, Processes(0, 1, device))
    for seed in (1, 2, 3):
        samples = on_gpu(fixed_samples(seed=seed))
        draw = fixed_draw(samples, chances=(0.0 if posed else 0.9, 0.9), scene_chance=0.3 * seed)
        found = recorded(samples, draw)
        gradients = [None if p.grad is None else p.grad.clone() for p in objective.parameters()]
        wanted = PlainGradients(objective)(samples, draw)
        assert {k: v.item() for k, v in found.items()} == pytest.approx({k: v.item() for k, v in wanted.items()}, rel=1e-4)
        for gradient, parameter in zip(gradients, objective.parameters(), strict=True):
            assert (gradient is None) == (parameter.grad is None)
            if gradient is not None and parameter.grad is not None:
                torch.testing.assert_close(gradient, parameter.grad, rtol=1e-3, atol=1e-5)
