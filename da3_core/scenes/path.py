"""A robot's drive through a room, as a recording would hold it: images, odometry that drifts, calibration, and the truth."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from da3_core.scenes.effects import add_noise, blur, tone
from da3_core.scenes.kinds import make_worlds
from da3_core.scenes.lens import lens_directions
from da3_core.scenes.primitives import distance_below
from da3_core.scenes.render import render_rays
from da3_core.scenes.rng import Draws
from da3_core.scenes.vec import Vec
from da3_core.scenes.worlds import Worlds
from da3_core.types import BoolArray, Calibration, DistortionModel, Float32Array, Float64Array, Uint8Array

START_NS = 1_700_000_000_000_000_000
NS = 1_000_000_000
LOOPS = 512  # candidates
ROBOT_RADIUS_M = 0.22
CAMERA_HEIGHT_M = 0.6
CAMERA_FORWARD_M = 0.12
CAMERA_PITCH_RAD = 0.06  # downward
EXPOSURE_LAG = 0.12  # share of the way to the right exposure that every frame goes


@dataclass(frozen=True)
class PathSettings:
    """Rates, sizes and flaws of the recording."""

    duration_s: float = 12.0
    image_hz: float = 15.0
    odometry_hz: float = 50.0
    size: tuple[int, int] = (480, 640)  # height, width
    focal: float = 0.7  # of the width
    distortion_model: DistortionModel = "none"
    D: tuple[float, ...] = ()
    speed_m_s: float = 0.45
    scale_error: float = 0.01  # standard deviation of the wheels' scale
    heading_drift_rad_s: float = 0.003  # standard deviation of the gyroscope's bias
    noise: float = 0.03  # standard deviation of velocities, relative


@dataclass(frozen=True)
class RobotFrame:
    """One image with its truth."""

    stamp_ns: int
    image: Uint8Array  # (H, W, 3) RGB, as the lens has it
    depth_m: Float32Array  # (H, W) z-depth of the same pixels, inf in the sky
    sky: BoolArray  # (H, W)
    T_world_cam: Float64Array  # (4, 4)


@dataclass(frozen=True)
class RobotOdometry:
    """One wheel odometry message with its truth; base is x forward, y left, z up on the floor."""

    stamp_ns: int
    T_odom_base: Float64Array  # (4, 4) integrated from flawed velocities, starts at the identity
    T_world_base: Float64Array  # (4, 4) the truth
    linear_m_s: float  # as measured
    angular_rad_s: float


class RobotPath:
    """A drive whose images are rendered one by one, as they are asked for."""

    def __init__(self, seed: int, settings: PathSettings) -> None:
        self.settings = settings
        self.calibration = _calibration(settings)
        self.T_base_cam = _camera_mount()
        self._seed = torch.tensor([seed])
        self._worlds = make_worlds(self._seed, "room")
        self._loop = _free_loop(self._worlds, Draws(self._seed, "path"))

    @property
    def image_stamps_ns(self) -> list[int]:
        count = int(self.settings.duration_s * self.settings.image_hz)
        return [START_NS + round((i + 0.5) * NS / self.settings.image_hz) for i in range(count)]

    def T_world_base(self, stamp_ns: int) -> Float64Array:
        """(4, 4) the truth at any time."""
        x, y, heading = self._planar((stamp_ns - START_NS) / NS)
        return _planar_rigid(x, y, heading)

    def odometry(self) -> list[RobotOdometry]:
        """From before the first image until after the last."""
        s = self.settings
        draws = Draws(self._seed, "odometry", 4 * int(s.duration_s * s.odometry_hz) + 64)
        gain, bias = 1.0 + float(draws.normal(std=s.scale_error)), float(draws.normal(std=s.heading_drift_rad_s))
        count = int(s.duration_s * s.odometry_hz) + 1
        jitter = draws.normal(count, 2, std=s.noise)[0].numpy()
        x, y, heading, messages = 0.0, 0.0, 0.0, []
        for i in range(count):
            stamp_ns = START_NS + round(i * NS / s.odometry_hz)
            speed, turn = self._velocity((i - 0.5) / s.odometry_hz)
            speed, turn = speed * (gain + jitter[i, 0]), turn * (1.0 + jitter[i, 1]) + bias * (speed > 0)
            step = 1.0 / s.odometry_hz if i else 0.0
            x += speed * step * math.cos(heading + 0.5 * turn * step)
            y += speed * step * math.sin(heading + 0.5 * turn * step)
            heading += turn * step
            messages.append(RobotOdometry(stamp_ns, _planar_rigid(x, y, heading), self.T_world_base(stamp_ns), speed, turn))
        return messages

    def frames(self) -> Iterator[RobotFrame]:
        """Images in order of time. Exposure follows the brightness with a lag, so it changes as the camera turns to windows."""
        K = self.calibration.K + np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])
        rays = lens_directions(K, self.settings.distortion_model, self.settings.D, self.settings.size)[None, None]
        focal = torch.full((1, 1), K[0, 0], dtype=torch.float32)
        gain: Tensor | None = None
        for i, stamp_ns in enumerate(self.image_stamps_ns):
            T_world_cam = self.T_world_base(stamp_ns) @ self.T_base_cam
            seen = render_rays(self._worlds, torch.from_numpy(T_world_cam).float()[None, None], rays, focal)
            wanted = 0.2 / torch.exp(torch.log(seen.radiance + 1e-3).mean())
            gain = wanted if gain is None else gain + EXPOSURE_LAG * (wanted - gain)
            image = self._photograph(seen.radiance * gain, i)
            yield RobotFrame(stamp_ns, image, seen.depth[0, 0].numpy(), seen.sky[0, 0].numpy(), T_world_cam)

    def _photograph(self, light: Tensor, index: int) -> Uint8Array:
        draws = Draws(self._seed, "camera")
        blurred = blur(light, torch.full((1, 1), 0.45))
        image = tone(add_noise(blurred, self._seed * 100_003 + index, draws), draws)
        return np.ascontiguousarray((255.0 * image[0, 0]).round().byte().permute(1, 2, 0).numpy())

    def _planar(self, time_s: float) -> tuple[float, float, float]:
        return self._loop.at(self._way(time_s))

    def _way(self, time_s: float) -> float:
        """Metres driven: a second at rest, a second of gathering speed, then steadily."""
        moving = time_s - 1.0
        return self.settings.speed_m_s * (0.5 * min(max(moving, 0.0), 1.0) ** 2 + max(moving - 1.0, 0.0))

    def _velocity(self, time_s: float) -> tuple[float, float]:
        """(metres, radians) per second."""
        d = 0.5e-3
        (x0, y0, a0), (x1, y1, a1) = self._planar(time_s - d), self._planar(time_s + d)
        return math.hypot(x1 - x0, y1 - y0) / (2 * d), math.remainder(a1 - a0, 2 * math.pi) / (2 * d)


def robot_path(seed: int, settings: PathSettings | None = None) -> RobotPath:
    """The drive of world `seed`, a room; take seeds of the demonstration from `splits.DEMO`.

    Raises ValueError when the room leaves no way free for a robot.
    """
    return RobotPath(seed, settings or PathSettings())


@dataclass(frozen=True)
class _Loop:
    """A closed curve by its length: points every few millimetres."""

    xy: Float64Array  # (M, 2)
    heading: Float64Array  # (M,) unwrapped
    way: Float64Array  # (M,) metres

    def at(self, way_m: float) -> tuple[float, float, float]:
        turns, rest = divmod(way_m, float(self.way[-1]))
        x, y, heading = (float(np.interp(rest, self.way, column)) for column in (self.xy[:, 0], self.xy[:, 1], self.heading))
        return x, y, heading + turns * float(self.heading[-1] - self.heading[0])


def _free_loop(worlds: Worlds, draws: Draws) -> _Loop:
    """The longest of many wobbly ellipses that keeps the robot clear of everything, in float64."""
    angle = torch.linspace(0, 2 * math.pi, 97)
    low, high = worlds.stay.low[0, :2], worlds.stay.high[0, :2]
    middle = low + (high - low) * draws.uniform(LOOPS, 2, low=0.2, high=0.8)[0]
    radius = 0.5 * (high - low) * draws.uniform(LOOPS, 2, low=0.15, high=0.9)[0]
    wobble = draws.uniform(LOOPS, 2, low=0.0, high=0.12)[0]
    phase = draws.uniform(LOOPS, 3, high=2 * math.pi)[0]
    xy = _curve(angle, middle, radius, wobble, phase)  # (LOOPS, 97, 2)
    clearance = torch.stack([_clearance(worlds, xy, height) for height in (0.25, 0.45, CAMERA_HEIGHT_M)]).amin((0, 2))
    length = (xy[:, 1:] - xy[:, :-1]).norm(dim=-1).sum(-1)
    score = torch.where(clearance > ROBOT_RADIUS_M, length, 0.0)
    best = int(score.argmax())
    if score[best] < 3.0:
        raise ValueError("this world leaves a robot no free loop of three metres: choose another seed")
    fine = torch.linspace(0, 2 * math.pi, 4001, dtype=torch.float64)
    return _by_length(_curve(fine, *(c[best : best + 1].double() for c in (middle, radius, wobble, phase)))[0].numpy())


def _curve(angle: Tensor, middle: Tensor, radius: Tensor, wobble: Tensor, phase: Tensor) -> Tensor:
    """angle (M,), the rest (L, ...) -> (L, M, 2)"""
    turned = angle + phase[:, :1]
    swell = 1.0 + wobble[:, :1] * torch.cos(2 * angle + phase[:, 1:2]) + wobble[:, 1:] * torch.cos(3 * angle + phase[:, 2:])
    return middle[:, None] + radius[:, None] * swell[..., None] * torch.stack((torch.cos(turned), torch.sin(turned)), -1)


def _clearance(worlds: Worlds, xy: Tensor, height_m: float) -> Tensor:
    """(L, M) to the nearest solid of the one world."""
    frames = worlds.solids.frames().map(lambda c: c[0, :, None, None])
    point = Vec(xy[None, ..., 0], xy[None, ..., 1], torch.full_like(xy[None, ..., 0], height_m))
    return distance_below(frames, point).amin(0)


def _by_length(xy: Float64Array) -> _Loop:
    steps = np.diff(xy, axis=0)
    way = np.concatenate(([0.0], np.cumsum(np.linalg.norm(steps, axis=1))))
    tangent = np.gradient(xy, axis=0)
    tangent[[0, -1]] = steps[0] + steps[-1]
    return _Loop(xy, np.unwrap(np.arctan2(tangent[:, 1], tangent[:, 0])), way)


def _calibration(settings: PathSettings) -> Calibration:
    h, w = settings.size
    f = settings.focal * w
    K = np.array([[f, 0.0, w / 2 - 0.5], [0.0, f, h / 2 - 0.5], [0.0, 0.0, 1.0]])
    return Calibration(w, h, K, settings.distortion_model, settings.D)


def _camera_mount() -> Float64Array:
    """T_base_cam: forward, a little downward."""
    c, s = math.cos(CAMERA_PITCH_RAD), math.sin(CAMERA_PITCH_RAD)
    forward, down = np.array([c, 0.0, -s]), np.array([-s, 0.0, -c])
    T = np.eye(4)
    T[:3, :3] = np.stack((np.array([0.0, -1.0, 0.0]), down, forward), 1)
    T[:3, 3] = CAMERA_FORWARD_M, 0.0, CAMERA_HEIGHT_M
    return T


def _planar_rigid(x: float, y: float, heading: float) -> Float64Array:
    c, s = math.cos(heading), math.sin(heading)
    return np.array([[c, -s, 0.0, x], [s, c, 0.0, y], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
