"""A room whose depth is known in closed form, and an engine that predicts it as a network would: in a unit and a frame of its own.

What the stream makes of the predictions is compared with the room. Nothing here is part of the product.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from da3_core.config import PreprocessConfig, StreamConfig
from da3_core.geometry.pinhole import unproject
from da3_core.geometry.rigid import invert_rigid, rigid_from_rt
from da3_core.streaming import Stream
from da3_core.types import Calibration, EngineKind, Float64Array, Frame, FrameResult, Prediction, Uint8Array, View

CORNERS_M = np.array([[-3.0, -1.5, -4.0], [3.0, 1.5, 5.0]])
WIDTH_PX, HEIGHT_PX = 84, 56  # already the network's size
CALIBRATION = Calibration(WIDTH_PX, HEIGHT_PX, np.array([[60.0, 0, 41.5], [0, 60.0, 27.5], [0, 0, 1]]))
K = torch.tensor([[60.0, 0, 42], [0, 60.0, 28], [0, 0, 1]], dtype=torch.float64)
CONFIG = StreamConfig(preprocess=PreprocessConfig(size=WIDTH_PX))
CPU = torch.device("cpu")
Path = Sequence[Float64Array]


def pose(x: float = 0.0, y: float = 0.0, z: float = 0.0, yaw_deg: float = 0.0) -> Float64Array:
    """T_world_cam of a level camera at (x, y, z), turned about the vertical."""
    c, s = np.cos(np.deg2rad(yaw_deg)), np.sin(np.deg2rad(yaw_deg))
    return np.array([[c, 0, s, x], [0, 1, 0, y], [-s, 0, c, z], [0, 0, 0, 1]])


def room_rays(T_world_cam: Float64Array) -> Tensor:
    """(H, W, 3) in the world, of depth 1."""
    return unproject(torch.ones(HEIGHT_PX, WIDTH_PX, dtype=torch.float64), K) @ torch.from_numpy(T_world_cam[:3, :3]).T


def room_image(T_world_cam: Float64Array) -> Uint8Array:
    """(H, W, 3) of walls that are painted with waves of a metre or so."""
    x, y, z = (torch.from_numpy(T_world_cam[:3, 3]) + room_depth(T_world_cam)[..., None] * room_rays(T_world_cam)).unbind(-1)
    waves = [torch.sin(a * x + b * y + c * z + a * c) for a, b, c in ((5, 1, 3), (-2, 6, 2), (2, -3, 6), (1, 4, -2), (7, -5, 1))]
    grey = 128 + 24 * torch.stack(waves).sum(0)
    return np.ascontiguousarray(grey.clamp(0, 255).round().byte()[..., None].expand(-1, -1, 3).numpy())


def room_depth(T_world_cam: Float64Array) -> Tensor:
    """(H, W) z-depth in metres of the room's walls: along each ray the nearest of the three planes that it moves towards."""
    rays = room_rays(T_world_cam)
    ahead = torch.where(rays > 0, torch.from_numpy(CORNERS_M[1]), torch.from_numpy(CORNERS_M[0]))
    return ((ahead - torch.from_numpy(T_world_cam[:3, 3])) / rays).amin(-1)


@dataclass
class RoomEngine:
    """Predicts the room with errors and in a gauge that are drawn anew for each window, from the window's stamps."""

    kind: EngineKind = "any_view"
    device: torch.device = CPU
    unit: str = "random"  # of each window: random, scene (the mean distance of its points is 1), cameras (that of its cameras is 1)
    rotation_noise_deg: float = 0.5
    position_noise_m: float = 0.01
    depth_noise: float = 0.02  # of a pixel, as a share
    outliers: float = 0.0  # share of the pixels that are anything
    focal_error: float = 1.0  # by which the predicted focal length is too long
    believes_poses: bool = True
    camera_bias: float = 1.0  # of predicted motion
    unposed_rotation_noise_deg: float = 0.0  # more of it without poses
    textured: bool = False  # whether the room's images show anything
    truth: dict[tuple[str, int], Float64Array] = field(default_factory=dict)
    calls: list[tuple[int, tuple[int, ...], bool]] = field(default_factory=list)  # views, wanted, posed

    def infer(self, views: Sequence[View], wanted: Sequence[int], posed: bool) -> Prediction:
        self.calls.append((len(views), tuple(wanted), posed))
        true = torch.stack([torch.from_numpy(self.truth[v.camera, v.stamp_ns]) for v in views])
        depth = torch.stack([room_depth(T.numpy()) for T in true])
        generator = torch.Generator().manual_seed(sum(v.stamp_ns for v in views) // 100_000_000 * 2 + posed)
        if self.kind in ("mono", "metric"):
            return Prediction(depth=(depth * 300 / 60)[list(wanted)].float(), sky=torch.zeros(len(wanted), HEIGHT_PX, WIDTH_PX))
        believed = torch.stack([v.T_world_cam for v in views]) if posed and self.believes_poses else true
        reference = 0 if posed else int(torch.randint(len(views), (), generator=generator))
        sigma_deg = self.rotation_noise_deg + (0 if posed else self.unposed_rotation_noise_deg)
        T_reference_cam = invert_rigid(believed[reference]) @ believed @ self._noise(len(views), sigma_deg, generator)
        unit = self._unit(depth, true, generator)
        T_reference_cam[:, :3, 3] *= unit * self.camera_bias
        noisy, wild = self._noisy(depth, generator)
        return Prediction(
            depth=(noisy * unit)[list(wanted)].float() if wanted else None,
            confidence=torch.where(wild, 1.0, 3.0)[list(wanted)] if wanted else None,
            T_cam_world=invert_rigid(T_reference_cam).float(),
            K=(K * torch.tensor([[self.focal_error, 1, 1]] * 2 + [[1, 1, 1]])).float().expand(len(views), 3, 3),
            is_metric=self.kind == "nested",
        )

    def reset(self) -> None: ...

    def _noisy(self, depth: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        noisy = depth * (self.depth_noise * torch.randn(depth.shape, generator=generator)).exp()
        wild = torch.rand(depth.shape, generator=generator) < self.outliers
        return torch.where(wild, depth * (3 * torch.rand(depth.shape, generator=generator)), noisy), wild

    def _unit(self, depth: Tensor, T_world_cam: Tensor, generator: torch.Generator) -> float:
        """Network units per metre."""
        T_first_cam = invert_rigid(T_world_cam[:1]) @ T_world_cam
        if self.kind == "nested":
            return 1 / self.focal_error
        if self.unit == "random":
            return float(torch.empty(()).uniform_(-1, 1, generator=generator).exp())
        if self.unit == "scene":
            points = unproject(depth, K.expand(len(depth), 3, 3)) @ T_first_cam[:, None, :3, :3].mT + T_first_cam[:, None, None, :3, 3]
            return 1 / float(torch.linalg.vector_norm(points, dim=-1).mean())
        return 1 / float(torch.linalg.vector_norm(T_first_cam[:, :3, 3], dim=-1).median().clamp(min=0.1))

    def _noise(self, n: int, sigma_deg: float, generator: torch.Generator) -> Tensor:
        x, y, z = (np.deg2rad(sigma_deg) * torch.randn(n, 3, generator=generator, dtype=torch.float64)).unbind(-1)
        o = torch.zeros_like(x)
        R = torch.linalg.matrix_exp(torch.stack([o, -z, y, z, o, -x, -y, x, o], -1).reshape(n, 3, 3))
        return rigid_from_rt(R, self.position_noise_m * torch.randn(n, 3, generator=generator, dtype=torch.float64))


@dataclass(frozen=True)
class Drive:
    """A camera's way through the room, and what a stream made of it."""

    path: Path
    results: list[FrameResult]

    @property
    def depth_ratios(self) -> Float64Array:
        """Median of published over true depth, frame by frame; NaN where nothing was published."""
        medians = [np.nanmedian(r.depth_m / room_depth(T).numpy()) if np.isfinite(r.depth_m).any() else np.nan for r, T in self]
        return np.array(medians)

    @property
    def sources(self) -> list[str]:
        return [result.scale.source for result in self.results]

    @property
    def modes(self) -> list[str]:
        return [result.mode for result in self.results]

    def __iter__(self) -> Iterator[tuple[FrameResult, Float64Array]]:
        return iter(zip(self.results, self.path, strict=True))


class Room:
    """What tests need of it, in one place."""

    Engine = RoomEngine
    K, calibration, config = K, CALIBRATION, CONFIG
    pose, depth, image = staticmethod(pose), staticmethod(room_depth), staticmethod(room_image)

    @staticmethod
    def frame(engine: RoomEngine, k: int, T_true: Float64Array, T_given: Float64Array | None = None, camera: str = "front") -> Frame:
        """Frame number k, ten a second, which the engine knows the truth of."""
        image = room_image(T_true) if engine.textured else np.zeros((HEIGHT_PX, WIDTH_PX, 3), np.uint8)
        frame = Frame(camera, f"{camera}_optical", (k + 1) * 100_000_000, image, CALIBRATION, T_given)
        engine.truth[camera, frame.stamp_ns] = T_true
        return frame

    @staticmethod
    def view(id: int, T_world_cam: Float64Array | None = None, stamp_ns: int = 0, camera: str = "front") -> View:
        T = None if T_world_cam is None else torch.from_numpy(T_world_cam)
        image = np.zeros((HEIGHT_PX, WIDTH_PX, 3), np.uint8) if T_world_cam is None else room_image(T_world_cam)
        return View(id, camera, stamp_ns, torch.from_numpy(image).permute(2, 0, 1).contiguous(), K, T)

    @classmethod
    def drive(cls, engine: RoomEngine, path: Path, given: Sequence[Float64Array | None], config: StreamConfig = CONFIG) -> Drive:
        stream = Stream(engine, config)
        frames = (cls.frame(engine, k, T, T_given) for k, (T, T_given) in enumerate(zip(path, given, strict=True)))
        return Drive(path, [stream.register([frame])[0] for frame in frames])

    @staticmethod
    def jittered(path: Path, sigma_m: float, seed: int = 0) -> list[Float64Array]:
        """Poses as odometry would give them."""
        rng = np.random.default_rng(seed)
        return [pose(*(T[:3, 3] + rng.normal(0, sigma_m, 3))) @ np.block([[T[:3, :3], np.zeros((3, 1))], [np.zeros(3), 1]]) for T in path]

    @staticmethod
    def configured(**parts: object) -> StreamConfig:
        return replace(CONFIG, **parts)


@pytest.fixture(scope="session")
def room() -> type[Room]:
    return Room
