from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

SHARED = Path(__file__).resolve().parents[3] / ".." / "shared"


@pytest.fixture(scope="session")
def random_rotation() -> Callable[..., Tensor]:
    """(*shape, 3, 3) float64 rotations by up to `most` radians, as matrix exponentials: none of the code under test."""

    def make(seed: int, *shape: int, most: float = 3.1) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        axis = torch.nn.functional.normalize(torch.randn(*shape, 3, generator=generator, dtype=torch.float64), dim=-1)
        angle = most * torch.rand(*shape, 1, generator=generator, dtype=torch.float64)
        x, y, z = (axis * angle).unbind(-1)
        o = torch.zeros_like(x)
        return torch.linalg.matrix_exp(torch.stack([o, -z, y, z, o, -x, -y, x, o], -1).reshape(*shape, 3, 3))

    return make


@pytest.fixture(scope="session")
def random_rigid(random_rotation: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """(*shape, 4, 4) float64 transforms."""

    def make(seed: int, *shape: int, most: float = 3.1) -> Tensor:
        T = torch.eye(4, dtype=torch.float64).repeat(*shape, 1, 1)
        T[..., :3, :3] = random_rotation(seed, *shape, most=most)
        T[..., :3, 3] = torch.randn(*shape, 3, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64)
        return T

    return make


@pytest.fixture(scope="session")
def parity() -> Callable[[str], dict[str, Tensor]]:
    """Reads a file of the shared camera parity cases; skips where they are not at hand."""

    def read(name: str) -> dict[str, Tensor]:
        from safetensors.torch import load_file

        path = SHARED / "parity" / "cameras" / f"{name}.safetensors"
        if not path.exists():
            pytest.skip(f"the shared parity cases are not at {SHARED}")
        return load_file(path)

    return read
