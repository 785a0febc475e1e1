"""Depth Anything 3: the network, its engines, and the stream that places its predictions in the world. Knows nothing of ROS."""

from typing import TYPE_CHECKING

from .config import (
    FilterConfig,
    ModeConfig,
    ModelConfig,
    PoseConfig,
    PreprocessConfig,
    RigConfig,
    ScaleConfig,
    StreamConfig,
    WindowConfig,
    replace_setting,
    setting,
    settings,
)
from .datasets import TumRgbdWriter
from .engines import ENGINES, make_engine, wake_up
from .engines.bench import as_json as bench_as_json
from .engines.bench import bench_presets
from .engines.bench import table as bench_table
from .engines.choice import choose as choose_engine
from .engines.choice import export_graphs
from .evaluation.curves import draw_curves
from .evaluation.depth import depth_metrics
from .evaluation.material import RecordedWindows, ValidationWorlds
from .evaluation.run import evaluate
from .evaluation.trajectory import TrajectoryErrors, trajectory_errors
from .geometry.pinhole import K_from_ros, ros_from_K, unproject
from .geometry.rigid import interpolate_rigid, invert_rigid, quaternion_from_rotation, rotation_angle, rotation_from_quaternion
from .model import PRESETS, CheckpointError, Model, build_model, load_model, save_model
from .model.checkpoint import BUILT_IN_WEIGHTS
from .model.presets import HUB_REPOSITORIES, JOINED
from .preprocess import DepthRectifier, plan_resize
from .scenes import DEMO
from .scenes.path import PathSettings, RobotFrame, RobotOdometry, RobotPath, robot_path
from .streaming import PoseBuffer, StaleStamp, Stream, Synchronizer, UnusableFrame, is_restart
from .types import (
    BoolArray,
    Calibration,
    DistortionModel,
    Engine,
    EngineKind,
    Float32Array,
    Float64Array,
    Frame,
    FrameResult,
    Gaussians,
    Mode,
    Prediction,
    ScaleEstimate,
    Sim3,
    Uint8Array,
    View,
)

__all__ = [
    "BUILT_IN_WEIGHTS",
    "DEMO",
    "ENGINES",
    "HUB_REPOSITORIES",
    "JOINED",
    "PRESETS",
    "BoolArray",
    "Calibration",
    "CheckpointError",
    "DepthRectifier",
    "DistortionModel",
    "Engine",
    "EngineKind",
    "FilterConfig",
    "Float32Array",
    "Float64Array",
    "Frame",
    "FrameResult",
    "Gaussians",
    "K_from_ros",
    "Mode",
    "ModeConfig",
    "Model",
    "ModelConfig",
    "PathSettings",
    "PoseBuffer",
    "PoseConfig",
    "Prediction",
    "PreprocessConfig",
    "RecordedWindows",
    "RigConfig",
    "RobotFrame",
    "RobotOdometry",
    "RobotPath",
    "ScaleConfig",
    "ScaleEstimate",
    "Sim3",
    "StaleStamp",
    "Stream",
    "StreamConfig",
    "Synchronizer",
    "TrajectoryErrors",
    "TumRgbdWriter",
    "Uint8Array",
    "UnusableFrame",
    "ValidationWorlds",
    "View",
    "WindowConfig",
    "bench_as_json",
    "bench_presets",
    "bench_table",
    "build_model",
    "choose_engine",
    "depth_metrics",
    "draw_curves",
    "evaluate",
    "export_graphs",
    "interpolate_rigid",
    "invert_rigid",
    "is_restart",
    "load_model",
    "make_engine",
    "plan_resize",
    "quaternion_from_rotation",
    "replace_setting",
    "robot_path",
    "ros_from_K",
    "rotation_angle",
    "rotation_from_quaternion",
    "save_model",
    "setting",
    "settings",
    "train",
    "trajectory_errors",
    "unproject",
    "wake_up",
]

if TYPE_CHECKING:
    from .training.loop import train
else:

    def __getattr__(name: str) -> object:
        """`train` brings PyTorch's distributed parts along: seconds that nothing else needs."""
        if name != "train":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from .training.loop import train

        return train
