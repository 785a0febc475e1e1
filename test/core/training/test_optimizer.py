from __future__ import annotations

import pytest
import torch
from torch import nn

from da3_core.training.config import OptimizerConfig, ScheduleConfig
from da3_core.training.optimizer import AveragedWeights, Muon, learning_rate_factor, make_optimizers, orthogonalise, set_learning_rate


@pytest.mark.parametrize("shape", [(3, 48, 64), (2, 96, 32), (1, 40, 40)])
def test_orthogonalise_keeps_the_singular_vectors_and_levels_the_values(shape: tuple[int, int, int]) -> None:
    g = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    u, _, vh = torch.linalg.svd(g, full_matrices=False)
    values = torch.diagonal(u.mT @ orthogonalise(g).float() @ vh.mT, dim1=-2, dim2=-1)
    assert values.min() > 0.3
    assert values.max() < 1.35


def test_muon_agrees_with_torch_muon() -> None:
    reference_class = getattr(torch.optim, "Muon", None)
    if reference_class is None:
        pytest.skip("torch.optim.Muon needs torch >= 2.9")
    g = torch.Generator().manual_seed(0)
    start = [torch.randn(48, 64, generator=g), torch.randn(48, 64, generator=g), torch.randn(64, 32, generator=g)]
    ours = [nn.Parameter(w.clone()) for w in start]
    theirs = [nn.Parameter(w.clone()) for w in start]
    a = Muon(ours, lr=0.01, weight_decay=0.1)
    b = reference_class(theirs, lr=0.01, weight_decay=0.1, momentum=0.95, nesterov=True, adjust_lr_fn="match_rms_adamw")
    for _ in range(3):
        for p, q in zip(ours, theirs, strict=True):
            p.grad = torch.randn(p.shape, generator=g)
            q.grad = p.grad.clone()
        a.step()
        b.step()
    for p, q, w in zip(ours, theirs, start, strict=True):
        assert (p - q).norm() < 0.05 * (q - w).norm()  # bfloat16 in another order


class TwoBlocks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(32, 32) for _ in range(2)])
        self.head = nn.Linear(32, 1)


def test_muon_takes_hidden_matrices_and_adamw_the_rest() -> None:
    network = TwoBlocks()
    adam, muon = make_optimizers(network, OptimizerConfig(name="muon"))
    assert {id(p) for g in muon.param_groups for p in g["params"]} == {id(b.weight) for b in network.blocks}
    assert sum(len(g["params"]) for g in adam.param_groups) == 4
    by_decay = {g["weight_decay"]: len(g["params"]) for g in adam.param_groups}
    assert by_decay == {0.05: 1, 0.0: 3}  # vectors are not decayed


def test_backbone_rate_is_a_share_of_the_decoders() -> None:
    network = nn.ModuleDict({"backbone": nn.Linear(4, 4), "head": nn.Linear(4, 4)})
    (adam,) = make_optimizers(network, OptimizerConfig(lr=5e-5, backbone_lr_factor=0.1))
    set_learning_rate([adam], 0.5)
    rates = {id(p): g["lr"] for g in adam.param_groups for p in g["params"]}
    assert rates[id(network["head"].weight)] == pytest.approx(2.5e-5)
    assert rates[id(network["backbone"].weight)] == pytest.approx(2.5e-6)


def test_learning_rate_warms_up_by_steps_and_decays_by_progress() -> None:
    config = ScheduleConfig(warmup_steps=10, decay="linear", decay_from=0.5)
    assert learning_rate_factor(0, 0.0, config) == pytest.approx(0.1)
    assert learning_rate_factor(9, 0.5, config) == pytest.approx(1.0)
    assert learning_rate_factor(99, 0.75, config) == pytest.approx(0.5)
    assert learning_rate_factor(99, 1.2, config) == 0.0
    assert learning_rate_factor(99, 0.5, ScheduleConfig(warmup_steps=0, decay="cosine")) == pytest.approx(0.5)


def test_averaged_weights_by_hand_and_swap() -> None:
    network = nn.Linear(1, 1, bias=False)
    nn.init.constant_(network.weight, 1.0)
    average = AveragedWeights(network, decay=0.5)
    nn.init.constant_(network.weight, 3.0)
    average.update(step=0)  # warm-up: 1/10 of the old
    assert average.averaged["weight"].item() == pytest.approx(0.1 * 1 + 0.9 * 3)
    average.update(step=100)
    assert average.averaged["weight"].item() == pytest.approx(0.5 * 2.8 + 0.5 * 3)
    average.swap()
    assert network.weight.item() == pytest.approx(2.9)
    average.swap()
    assert network.weight.item() == 3.0
    assert average.averaged["weight"].item() == pytest.approx(2.9)
