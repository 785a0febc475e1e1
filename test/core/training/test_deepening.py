"""A deepened network begins as the shallow one, and all of it learns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
import torch

from da3_core.model import AnyView, build_model, load_model, save_model
from da3_core.model.backbone import Backbone
from da3_core.model.presets import BackboneConfig, DPTConfig, ModelConfig, NestedConfig
from da3_core.training import deepening
from da3_core.training.config import TrainConfig
from da3_core.training.deepening import deepen, origins_of_blocks
from da3_core.training.make import make_network

from .fixed_batch import ALTERNATING, ANY_VIEW, METRIC, PLAIN, WITH_GAUSSIANS, fixed_samples

SHALLOW = replace(ALTERNATING, depth=6, out_layers=(0, 1, 3, 5))
DEEP = replace(SHALLOW, depth=10, alt_start=4, qknorm_start=4, rope_start=4, out_layers=(1, 3, 7, 9))


def folder_of(backbone: BackboneConfig, folder: Path) -> Path:
    torch.manual_seed(0)
    save_model(build_model(replace(ANY_VIEW, backbone=backbone)), folder)
    return folder


def test_blocks_come_from_blocks_of_their_kind() -> None:
    per_view = [(0, True), (0, False), (1, True), (1, False)]
    assert origins_of_blocks(SHALLOW, DEEP) == [*per_view, (2, True), (3, True), (2, False), (3, False), (4, False), (5, False)]
    twice = replace(PLAIN, depth=8, out_layers=(1, 3, 5, 7))
    assert origins_of_blocks(PLAIN, twice) == [(i // 2, i % 2 == 0) for i in range(8)]
    assert origins_of_blocks(SHALLOW, SHALLOW) == [(i, False) for i in range(6)]


def test_it_begins_as_the_shallow_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shallow, deep = folder_of(SHALLOW, tmp_path / "shallow"), folder_of(DEEP, tmp_path / "deep")
    images = fixed_samples(n=3).images
    config = TrainConfig(model=str(deep), init_from=str(shallow))
    truth = load_model(shallow)(images, reference_view="first")
    found = {}
    for share in (0.0, 0.1, 1.0):
        monkeypatch.setattr(deepening, "NEW", share)
        prediction = make_network(config)(images, reference_view="first")
        found[share] = float((prediction.depth / truth.depth).log().abs().mean().detach())
        if share == 0:
            torch.testing.assert_close(prediction.T_cam_world, truth.T_cam_world)
    assert found[0.0] < 1e-6 < found[0.1] < 0.5 * found[1.0]


def test_every_block_learns_at_once(tmp_path: Path) -> None:
    shallow, deep = folder_of(SHALLOW, tmp_path / "shallow"), folder_of(DEEP, tmp_path / "deep")
    network = cast(AnyView, make_network(TrainConfig(model=str(deep), init_from=str(shallow))))
    network(fixed_samples().images, reference_view="first").depth.log().sum().backward()
    for block in cast(Backbone, network.backbone).blocks:
        assert all(p.grad is not None and p.grad.abs().max() > 0 for name, p in block.named_parameters() if name.endswith("weight"))


@pytest.mark.parametrize(
    ("shallow", "deep"),
    [
        (SHALLOW, replace(DEEP, heads=4)),
        (SHALLOW, replace(DEEP, rope_start=5)),
        (SHALLOW, replace(DEEP, depth=9)),
        (SHALLOW, replace(DEEP, alt_start=3, qknorm_start=3, rope_start=3)),
        (SHALLOW, replace(DEEP, alt_start=None, qknorm_start=None, rope_start=None)),
        (PLAIN, DEEP),
        (DEEP, SHALLOW),
    ],
)
def test_what_cannot_begin_so_is_refused(shallow: BackboneConfig, deep: BackboneConfig) -> None:
    with pytest.raises(ValueError, match=r"cannot begin as .*: it may have more blocks before alt_start and more pairs"):
        deepen({}, shallow, deep)


def test_blocks_that_are_read_must_be_the_shallow_ones() -> None:
    with pytest.raises(ValueError, match=r"needs out_layers \(1, 3, 7, 9\)"):
        deepen({}, SHALLOW, replace(DEEP, out_layers=(0, 3, 7, 9)))


@pytest.mark.parametrize(
    "other", [METRIC, replace(ANY_VIEW, head=DPTConfig(16, (4, 8, 8, 8))), WITH_GAUSSIANS, NestedConfig(ANY_VIEW, METRIC)]
)
def test_another_networks_weights_are_refused(tmp_path: Path, other: ModelConfig) -> None:
    save_model(build_model(other), tmp_path / "other")
    save_model(build_model(ANY_VIEW), tmp_path / "network")
    for model, source in (("network", "other"), ("other", "network")):
        with pytest.raises(ValueError, match="begin"):
            make_network(TrainConfig(model=str(tmp_path / model), init_from=str(tmp_path / source)))
