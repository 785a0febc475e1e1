"""The network's image, on the host or on a GPU: the network wants it there, who comes after the engine on the host."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
import torch
from torch import Tensor

from da3_core.preprocess.on_device import OnDevice
from da3_core.preprocess.rectify import Rectifier
from da3_core.types import Uint8Array


class NetworkImage(Protocol):
    """One image of the network's size, uint8."""

    def planes(self) -> Tensor:
        """(3, h, w), where it lies."""

    def on_host(self) -> Uint8Array:
        """(h, w, 3)."""


@dataclass(frozen=True)
class HostImage:
    """See `NetworkImage`."""

    pixels: Uint8Array  # (h, w, 3)

    def planes(self) -> Tensor:
        """A copy, for which torch would wake its thread pool."""
        return torch.from_numpy(np.stack(cv2.split(self.pixels)))

    def on_host(self) -> Uint8Array:
        return self.pixels


@dataclass(frozen=True)
class DeviceImage:
    """See `NetworkImage`."""

    pixels: Tensor  # (h, w, 3)

    def planes(self) -> Tensor:
        """No copy: engines make one."""
        return self.pixels.permute(2, 0, 1)

    def on_host(self) -> Uint8Array:
        """Through pinned memory. Waits for the device, which has nothing left to do once the engine gave its depth."""
        pinned = torch.empty(self.pixels.shape, dtype=torch.uint8, pin_memory=True)
        return np.asarray(pinned.copy_(self.pixels).numpy(), np.uint8)


ToNetwork = Callable[[Uint8Array], NetworkImage]  # from (H, W, 3)


def make_to_network(rectifier: Rectifier, device: torch.device) -> ToNetwork:
    """`Rectifier.network_image` for an engine on this device: where it is a GPU, that does the work and has the result."""
    if device.type != "cuda":
        return lambda image: HostImage(rectifier.network_image(image))
    on_device = OnDevice(rectifier, device)
    return lambda image: DeviceImage(on_device(image))
