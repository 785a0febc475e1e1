from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from da3_core.model.presets import AnyViewConfig, BackboneConfig, DPTConfig, MonoConfig

H, W = 42, 56


@pytest.fixture(scope="session")
def shared() -> Path:
    folder = Path(__file__).resolve().parents[3] / ".." / "shared"
    if not folder.is_dir():
        pytest.skip("the folder `shared` with specification and parity cases is not beside the repository")
    return folder


@pytest.fixture(scope="session")
def relative_error() -> Callable[[Tensor, Tensor], float]:
    return lambda ours, truth: float((ours.double() - truth.double()).norm() / truth.double().norm())


@pytest.fixture(scope="session")
def any_view_config() -> AnyViewConfig:
    backbone = BackboneConfig(32, 6, 2, (2, 3, 4, 5), alt_start=2, qknorm_start=2, rope_start=2, position_grid=3)
    return AnyViewConfig(backbone, DPTConfig(16, (8, 8, 16, 16)), camera_encoder_heads=4, camera_encoder_depth=2)


@pytest.fixture(scope="session")
def mono_config(any_view_config) -> MonoConfig:
    alone = replace(any_view_config.backbone, alt_start=None, qknorm_start=None, rope_start=None)
    return MonoConfig(alone, any_view_config.head, metric=True)


@pytest.fixture
def images() -> Tensor:
    return torch.randn(1, 4, 3, H, W, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def lively() -> Callable[[torch.nn.Module], torch.nn.Module]:
    """Gives a network weights so large that everything in it shows in its output; fresh ones hardly move its features."""

    def enliven(model: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
        generator = torch.Generator().manual_seed(seed)
        for p in model.parameters():
            p.data += 0.1 * torch.randn(p.shape, generator=generator)
        return model.eval().requires_grad_(False)

    return enliven
