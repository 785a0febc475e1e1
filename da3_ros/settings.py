"""The live node's settings, beside those of da3_core; ROS parameters are derived from all of them in parameters.py."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from da3_core import ModelConfig, StreamConfig, replace_setting, setting, settings

from .to_msg import OWN_WORLD, OutputConfig


@dataclass(frozen=True)
class NodeConfig:
    """What only the live node has to know."""

    cameras: tuple[str, ...] = setting(("camera",), "names of cameras; each has parameters <name>.image_topic and so on", read_only=True)
    autostart: bool = setting(True, "configure and activate without a lifecycle manager, and again after an error", read_only=True)
    build_only: bool = setting(False, "build the engine, then end", read_only=True)
    image_width_px: int = setting(
        0, "of the images: the engine is built for it in configure; 0: by the first image", range=(0, 16384), read_only=True
    )
    image_height_px: int = setting(0, "of the images, as the width", range=(0, 16384), read_only=True)
    image_transport: str = setting("raw", "how images come", choices=("raw", "compressed"), read_only=True)
    rectified: bool = setting(False, "images are rectified already: camera_info's P holds, K and D do not", read_only=True)
    require_camera_info: bool = setting(True, "drop a camera's images until its camera_info has come")
    pose_source: str = setting("tf", "where camera poses come from", choices=("tf", "odometry", "none"), read_only=True)
    world_frame: str = setting(
        "",
        "frame of poses and odometry, which must not move with the robot; empty: odom, or da3_world without a pose_source",
        read_only=True,
    )
    odometry_topic: str = setting("odom", "nav_msgs/Odometry, read when pose_source is odometry", read_only=True)
    pose_timeout_s: float = setting(0.2, "an image waits this long for its pose, then goes without", range=(0.0, 5.0), read_only=True)
    publish_tf: bool = setting(True, "publish our camera poses as own frames in TF")
    silent_after_s: float = setting(2.0, "a camera without images for this long is reported", range=(0.1, 60.0))
    engine_failures: int = setting(5, "failures in a row after which the engine is built anew", range=(1, 1000))
    restart_interval_s: float = setting(5.0, "time between attempts of autostart after an error", range=(0.1, 600.0), read_only=True)
    memory_retry_s: float = setting(60.0, "after GPU memory ran out, the whole window is tried again after this", range=(0.1, 3600.0))
    save_directory: str = setting("da3_saved", "where the save service writes")
    save_voxel_m: float = setting(0.05, "edge of the voxels of the saved cloud; 0 accumulates none", range=(0.0, 10.0), read_only=True)
    save_interval_s: float = setting(1.0, "time between images that go into the saved cloud", range=(0.0, 3600.0))
    save_max_points: int = setting(2_000_000, "the saved cloud stops growing here", range=(1, 100_000_000), read_only=True)


@dataclass(frozen=True)
class CameraConfig:
    """One camera's topics and place; an empty topic follows from the camera's name."""

    image_topic: str = setting("", "sensor_msgs/Image; empty: <name>/image_raw; /compressed is appended for that transport", read_only=True)
    camera_info_topic: str = setting("", "sensor_msgs/CameraInfo; empty: <name>/camera_info", read_only=True)
    extrinsics: str = setting(
        "", "'x y z qx qy qz qw' of the optical frame in odometry's child frame; empty: from /tf_static", read_only=True
    )


@dataclass(frozen=True)
class Parameters:
    """All of the node's settings. Their dotted names are those of the YAML files of the offline job, with no prefix but `output.`."""

    node: NodeConfig = field(default_factory=NodeConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    stream: StreamConfig = field(default_factory=StreamConfig)
    output: OutputConfig = field(default_factory=OutputConfig)
    cameras: Mapping[str, CameraConfig] = field(default_factory=dict)

    def flat(self) -> dict[str, tuple[dataclasses.Field[Any], Any]]:
        """Dotted name -> (field, value)."""
        cameras = {f"{name}.{key}": entry for name, camera in self.cameras.items() for key, entry in settings(camera).items()}
        return settings(self.node) | settings(self.model) | settings(self.stream) | settings(self.output, "output.") | cameras

    @property
    def world_frame(self) -> str:
        """The frame that poses are in: where none are given it is no frame of the robot's."""
        return self.node.world_frame or (OWN_WORLD if self.node.pose_source == "none" else "odom")

    @property
    def anchor_camera(self) -> str:
        """The camera whose images make sets, and whose pose is the odometry."""
        return self.stream.rig.anchor_camera or self.node.cameras[0]

    def with_setting(self, name: str, value: Any) -> Parameters:
        """A copy with one setting changed; raises ValueError with the reason when it may not have that value."""
        head, _, rest = name.partition(".")
        if head in self.cameras:
            return dataclasses.replace(self, cameras={**self.cameras, head: replace_setting(self.cameras[head], rest, value)})
        if head == "output":
            return dataclasses.replace(self, output=replace_setting(self.output, rest, value))
        for part in ("node", "model", "stream"):
            if name in settings(getattr(self, part)):
                return dataclasses.replace(self, **{part: replace_setting(getattr(self, part), name, value)})
        raise ValueError(f"unknown parameter {name!r}")
