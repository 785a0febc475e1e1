"""The device that engines run on."""

from __future__ import annotations

from contextlib import suppress
from threading import Thread

import torch
import torch.nn.functional as F

DEVICES = "auto, cpu, cuda or cuda:N"


def device_of(name: str) -> torch.device:
    """What a name stands for; "auto" for a GPU where there is one. Raises ValueError, saying what helps, where there is no such device."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"there is no device {name!r}: take {DEVICES}") from error
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"engines do not run on the device {name!r}: take {DEVICES}")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f"there is no GPU for {name!r} that this PyTorch can use: take auto or cpu, or install the driver and a PyTorch for it"
        )
    if device.type == "cuda" and device.index is not None and device.index >= torch.cuda.device_count():
        raise ValueError(f"there is no GPU {device.index}: the last one is cuda:{torch.cuda.device_count() - 1}")
    return device


def wake_up(name: str) -> None:
    """Has another thread load what a GPU loads when it is first used, which takes half a second: call it before weights are read.

    That is the driver's context, and the libraries of products, convolutions and attention. What fails here will fail, and be reported,
    where it is needed. Raises ValueError as `device_of` does.
    """
    device = device_of(name)
    if device.type == "cuda":
        Thread(target=_try_to_use, args=(device,), daemon=True).start()


def _try_to_use(device: torch.device) -> None:
    with suppress(RuntimeError, AssertionError):  # the latter from a PyTorch without CUDA
        use(device)


@torch.no_grad()
def use(device: torch.device) -> None:
    """A little of everything that networks are made of."""
    x = torch.ones(1, 64, 64, 64, dtype=torch.bfloat16, device=device)
    F.linear(x, x[0, 0], x[0, 0, 0])
    F.conv2d(x.to(memory_format=torch.channels_last), x[0, :, :3, :3].expand(64, 64, 3, 3).contiguous())
    F.scaled_dot_product_attention(x, x, x)
    F.layer_norm(x, (64,))
    if device.type == "cuda":
        torch.cuda.synchronize(device)
