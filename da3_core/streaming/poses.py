"""Given poses at the images' stamps."""

from __future__ import annotations

from bisect import bisect_left
from contextlib import suppress

import numpy as np
import torch

from da3_core.config import PoseConfig
from da3_core.geometry.rigid import interpolate_rigid
from da3_core.streaming.clock import StaleStamp, is_restart
from da3_core.types import Float64Array

MAX_ORTHOGONALITY_ERROR = 1e-3  # of a rotation: more is no rotation


class PoseBuffer:
    """Stamped poses of one moving frame, for example an odometry topic's; keeps the last `memory_s` of them."""

    def __init__(self, config: PoseConfig | None = None) -> None:
        self._config = config or PoseConfig()
        self._stamps_ns: list[int] = []
        self._poses: list[Float64Array] = []

    def add(self, stamp_ns: int, T_world_body: Float64Array) -> None:
        """Adds a pose (4, 4).

        Raises ValueError on one that is no rigid transform (not finite, scaled, sheared), and StaleStamp on a stamp that is not
        after the last; a clock that went back by a second or more empties the buffer first.
        """
        T = np.array(T_world_body, np.float64)
        if not is_rigid(T):
            raise ValueError(f"a pose that is no rigid transform: {T.tolist()}; normalise its quaternion, or drop it")
        if is_restart(self.newest_ns, stamp_ns, "pose"):
            self.clear()
        self._stamps_ns.append(stamp_ns)
        self._poses.append(T)
        self._forget_before(stamp_ns - int(1e9 * self._config.memory_s))

    def at(self, stamp_ns: int) -> Float64Array | None:
        """T_world_body (4, 4) at a stamp; None where it is not known.

        Between two poses at most `max_gap_s` apart: interpolated, the position linearly, the rotation along the shortest way. Else the
        nearest pose when it is within `tolerance_s`. Nothing is ever extrapolated.
        """
        after = bisect_left(self._stamps_ns, stamp_ns)
        if 0 < after < len(self._stamps_ns):
            start_ns, end_ns = self._stamps_ns[after - 1 : after + 1]
            if end_ns - start_ns <= 1e9 * self._config.max_gap_s:
                T_start, T_end = (torch.from_numpy(T) for T in self._poses[after - 1 : after + 1])
                share = (stamp_ns - start_ns) / (end_ns - start_ns)
                return np.asarray(interpolate_rigid(T_start, T_end, share), np.float64)
        near = [i for i in (after - 1, after) if 0 <= i < len(self._stamps_ns)]
        nearest = min(near, key=lambda i: abs(self._stamps_ns[i] - stamp_ns), default=None)
        if nearest is None or abs(self._stamps_ns[nearest] - stamp_ns) > 1e9 * self._config.tolerance_s:
            return None
        return np.array(self._poses[nearest])

    @property
    def newest_ns(self) -> int | None:
        """A stamp beyond this one may still become known: wait for it."""
        return self._stamps_ns[-1] if self._stamps_ns else None

    def forget_other_runs(self, stamp_ns: int) -> None:
        """Empties the buffer when it reaches far beyond a clock that went back to `stamp_ns`; else it is of the new run already."""
        with suppress(StaleStamp):  # a little beyond: of this run
            if is_restart(self.newest_ns, stamp_ns, "pose"):
                self.clear()

    def clear(self) -> None:
        self._stamps_ns.clear()
        self._poses.clear()

    def _forget_before(self, stamp_ns: int) -> None:
        first = bisect_left(self._stamps_ns, stamp_ns)
        if 2 * first > len(self._stamps_ns):  # rarely, so that adding costs nothing
            del self._stamps_ns[:first], self._poses[:first]


def is_rigid(T: Float64Array | None) -> bool:
    """Whether T is a finite 4x4 rigid transform."""
    if T is None or T.shape != (4, 4) or not np.isfinite(T).all():
        return False
    R = T[:3, :3]
    is_rotation = np.abs(R @ R.T - np.eye(3)).max() < MAX_ORTHOGONALITY_ERROR and np.linalg.det(R) > 0
    return bool(is_rotation and (T[3] == (0, 0, 0, 1)).all())
