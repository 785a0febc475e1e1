"""What every objective is: a network with its losses, and the parts that objectives share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from da3_core.scenes.sample import Samples
from da3_core.training.data import Draw

Values = dict[str, Tensor]
Labels = Callable[[Samples, Draw], tuple[Samples, Tensor]]  # what is to be learned, and of which views (B, N) the sky is known


class Objective(nn.Module):
    """A module that the loop trains. `network` is what is saved; parameters that do not require gradients stay as they are."""

    network: nn.Module

    @abstractmethod
    def forward(self, samples: Samples, draw: Draw) -> Values:
        """Scalars of a batch; "loss" is what is minimised. What the batch has nothing to measure of is left out."""

    def variant(self, draw: Draw) -> Hashable | None:
        """What `forward` decides on the host: steps alike in this, and in shape, run the same kernels. None: it may be anything."""
        return None

    @abstractmethod
    def validate(self, samples: Samples, draw: Draw) -> Values:
        """Scalars of a validation batch."""

    @abstractmethod
    def pictures(self, samples: Samples, draw: Draw) -> Values:
        """Pictures (3, H, W) in 0..1."""


def given(tensor: Tensor | None) -> Tensor:
    """A prediction that was asked for; raises ValueError when the network has none."""
    if tensor is None:
        raise ValueError("the network has no such output: choose a model that fits the objective")
    return tensor


def ground_truth(samples: Samples, draw: Draw) -> tuple[Samples, Tensor]:
    """Labels as they are."""
    return samples, masks_known(samples)


def masks_known(samples: Samples) -> Tensor:
    """Views (B, N) whose sky and objects are known: those of rendered worlds. Recordings know neither, though their masks are empty."""
    return (samples.kind >= 0)[:, None].expand(samples.images.shape[:2])


def autocast(bf16: bool, device: torch.device) -> AbstractContextManager[None]:
    """bfloat16 inside where asked for and on a GPU; losses are to be computed outside."""
    return torch.autocast(device.type, torch.bfloat16, enabled=bf16 and device.type == "cuda")


def depth_picture(depth: Tensor, valid: Tensor) -> Tensor:
    """Depth (H, W) as a picture (3, H, W): inverse depth from far (dark) to near (bright), 0 where not valid."""
    inverse = torch.where(valid, depth.detach().float().clamp(min=1e-6).reciprocal(), 0)
    low, high = inverse[valid].quantile(torch.tensor([0.02, 0.98], device=depth.device)) if valid.any() else (0.0, 1.0)
    grey = ((inverse - low) / (high - low + 1e-9)).clamp(0, 1) * valid
    return grey.expand(3, *grey.shape)
