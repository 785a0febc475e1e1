"""Counter-based random numbers: a world's draws depend on its seed and the stream's name, never on the batch or the device."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF
_GOLDEN = 0x1E3779B9


def mix(x: Tensor) -> Tensor:
    """A 32-bit integer hash in int64 arithmetic that never overflows (two multiply-xorshift rounds, C. Wellons' hash prospector)."""
    x = x & _MASK
    x = ((x ^ (x >> 16)) * 0x21F0AAAD) & _MASK
    x = ((x ^ (x >> 15)) * 0x735A2D97) & _MASK
    return x ^ (x >> 15)


def stream_key(seeds: Tensor, stream: str) -> Tensor:
    """(B,) int64 seeds -> (B,) int64 keys of a named stream."""
    return mix(mix(mix(seeds) + (seeds >> 32)) ^ zlib.crc32(stream.encode()))


class Draws:
    """Random numbers of one stream for B worlds, handed out in the order they are asked for; shapes are (B, *shape)."""

    def __init__(self, seeds: Tensor, stream: str, block: int = 512) -> None:
        self._key = stream_key(seeds, stream)
        self._block = block
        self._next = 0
        self._bits = self._key.new_empty((len(seeds), 0))

    @property
    def device(self) -> torch.device:
        return self._key.device

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """float32 in [low, high)."""
        return low + (high - low) * self._unit(shape)

    def log_uniform(self, *shape: int, low: float, high: float) -> Tensor:
        return torch.exp(self.uniform(*shape, low=math.log(low), high=math.log(high)))

    def normal(self, *shape: int, std: float = 1.0) -> Tensor:
        """Box-Muller."""
        radius = torch.sqrt(-2.0 * torch.log(1.0 - self._unit(shape)))
        return std * radius * torch.cos(2.0 * math.pi * self._unit(shape))

    def chance(self, probability: float | Tensor, *shape: int) -> Tensor:
        """bool, true with the given probability."""
        return self._unit(shape) < probability

    def integers(self, high: int, *shape: int) -> Tensor:
        """int64 in [0, high)."""
        return (self._unit(shape) * high).long()

    def choice(self, options: Sequence[int], *shape: int) -> Tensor:
        """One of the integers, each as often as it is listed."""
        return torch.tensor(options, device=self._key.device)[self.integers(len(options), *shape)]

    def sign(self, *shape: int) -> Tensor:
        return torch.where(self.chance(0.5, *shape), 1.0, -1.0)

    def _unit(self, shape: tuple[int, ...]) -> Tensor:
        count = math.prod(shape)
        while self._next + count > self._bits.shape[1]:
            index = torch.arange(self._bits.shape[1], self._bits.shape[1] + self._block, device=self._key.device)
            self._bits = torch.cat((self._bits, mix(self._key[:, None] + (index + 1) * _GOLDEN)), 1)
        bits = self._bits[:, self._next : self._next + count]
        self._next += count
        return ((bits >> 8).float() * 2.0**-24).reshape(-1, *shape)
