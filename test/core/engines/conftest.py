"""Small networks with the structure of every preset, and streams of views for them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch

from da3_core.geometry.rigid import rigid_from_rt, rotation_from_quaternion
from da3_core.model import PRESETS, build_model
from da3_core.model.checkpoint import Model
from da3_core.model.presets import AnyViewConfig, DPTConfig, ModelConfig, MonoConfig, NestedConfig
from da3_core.types import View

TINY_HEAD = DPTConfig(8, (8, 8, 16, 16))


def tiny(config: ModelConfig) -> ModelConfig:
    """The same blocks in the same order, a few channels wide."""
    if isinstance(config, NestedConfig):
        any_view, metric = tiny(config.any_view), tiny(config.metric)
        assert isinstance(any_view, AnyViewConfig) and isinstance(metric, MonoConfig)
        return NestedConfig(any_view, metric)
    backbone = dataclasses.replace(config.backbone, embed_dim=32, heads=2, position_grid=3)
    if isinstance(config, AnyViewConfig):
        return dataclasses.replace(config, backbone=backbone, head=TINY_HEAD, camera_encoder_heads=2, gaussian_head=None)
    return dataclasses.replace(config, backbone=backbone, head=TINY_HEAD)


def tiny_model(config: ModelConfig) -> Model:
    """Random weights of the order of one over the square root of the fan-in, so that every part has a say in the result."""
    torch.manual_seed(0)
    model = build_model(tiny(config)).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1 and parameter.shape[0] > 1:
            torch.nn.init.normal_(parameter, std=(parameter[0].numel()) ** -0.5)
    return model


def random_views(count: int, size: tuple[int, int], seed: int = 0) -> list[View]:
    """Views of noise of different brightness, along a path, with ids 0, 1, 2…"""
    generator = torch.Generator().manual_seed(seed)
    H, W = size
    K = torch.tensor([[0.9 * W, 0, W / 2], [0, 0.9 * W, H / 2], [0, 0, 1]], dtype=torch.float64)
    views = []
    for i in range(count):
        image = torch.randint(0, 255, (3, H, W), generator=generator) * torch.rand(3, 1, 1, generator=generator)
        q = torch.tensor([0, 0, 0, 1.0], dtype=torch.float64) + 0.2 * torch.randn(4, generator=generator, dtype=torch.float64)
        t = torch.tensor([0.3 * i, 0, 0], dtype=torch.float64) + 0.1 * torch.randn(3, generator=generator, dtype=torch.float64)
        T_world_cam = rigid_from_rt(rotation_from_quaternion(q), t)
        views.append(View(id=i, camera="front", stamp_ns=i, image=image.to(torch.uint8), K=K, T_world_cam=T_world_cam))
    return views


def shallow_model(preset: str) -> Model:
    """Networks of four blocks, two of which see the window where there is one, and of one block where there are cameras."""
    config = PRESETS[preset]
    assert isinstance(config, AnyViewConfig | MonoConfig)
    start = None if isinstance(config, MonoConfig) else 2
    backbone = dataclasses.replace(config.backbone, depth=4, out_layers=(0, 1, 2, 3), alt_start=start, qknorm_start=start, rope_start=start)
    if isinstance(config, AnyViewConfig):
        return tiny_model(dataclasses.replace(config, backbone=backbone, camera_encoder_depth=1))
    return tiny_model(dataclasses.replace(config, backbone=backbone))


@pytest.fixture(scope="session")
def shallow_of() -> Callable[[str], Model]:
    return shallow_model


@pytest.fixture
def model_of() -> Callable[[str], Model]:
    return lambda preset: tiny_model(PRESETS[preset])


@pytest.fixture
def views_of() -> Callable[..., list[View]]:
    return random_views
