"""A rendered robot drive as a recording: what a robot would have recorded, and the truth in topics of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tqdm import tqdm

from da3_core import RobotFrame, RobotOdometry, RobotPath

from . import to_msg
from .bag.typestore import RosbagsTypes
from .bag.writer import MessageWriter

CAMERA = "/front"
OPTICAL, BASE, ODOM, WORLD = "front_optical", "base_link", "odom", "world"
TRUE_DEPTH, TRUE_POSE = "/truth/front/depth", "/truth/front/pose"
IMAGE_LATENCY_NS, ODOMETRY_LATENCY_NS = 30_000_000, 5_000_000  # from stamp to recording


def record_drive(bag: Path, path: RobotPath) -> None:
    """Writes the new bag directory: rgb8 images and camera_info, 50 Hz odometry in a topic and in TF, true depth and camera poses."""
    writer = _DriveWriter(bag)
    writer.mount(path)
    odometry = iter(path.odometry())
    upcoming = next(odometry, None)
    for frame in tqdm(path.frames(), total=len(path.image_stamps_ns), desc="rendering", unit="image", disable=None):
        while upcoming is not None and upcoming.stamp_ns + ODOMETRY_LATENCY_NS <= frame.stamp_ns + IMAGE_LATENCY_NS:
            writer.odometry(upcoming)
            upcoming = next(odometry, None)
        writer.frame(frame, path)
    while upcoming is not None:
        writer.odometry(upcoming)
        upcoming = next(odometry, None)
    writer.close()


class _DriveWriter(MessageWriter):
    def __init__(self, bag: Path) -> None:
        super().__init__(bag)
        self._types = RosbagsTypes(self._store)

    def mount(self, path: RobotPath) -> None:
        link = to_msg.transform_stamped(self._types, path.image_stamps_ns[0], BASE, OPTICAL, path.T_base_cam)
        self.write("/tf_static", to_msg.tf_message(self._types, [link]), path.image_stamps_ns[0] - 1_000_000_000)

    def odometry(self, odometry: RobotOdometry) -> None:
        stamp_ns, log_ns, T = odometry.stamp_ns, odometry.stamp_ns + ODOMETRY_LATENCY_NS, odometry.T_odom_base
        self.write("/odom", to_msg.stamped_odometry(self._types, stamp_ns, ODOM, BASE, T), log_ns)
        self.write("/tf", to_msg.tf_message(self._types, [to_msg.transform_stamped(self._types, stamp_ns, ODOM, BASE, T)]), log_ns)

    def frame(self, frame: RobotFrame, path: RobotPath) -> None:
        types, stamp_ns, log_ns = self._types, frame.stamp_ns, frame.stamp_ns + IMAGE_LATENCY_NS
        calibration = path.calibration
        info = to_msg.pinhole_info(types, stamp_ns, OPTICAL, calibration.K, (calibration.height_px, calibration.width_px))
        true_depth = np.where(np.isfinite(frame.depth_m), frame.depth_m, np.nan).astype(np.float32)
        self.write(f"{CAMERA}/camera_info", info, log_ns)
        self.write(f"{CAMERA}/image_raw", to_msg.colour_image(types, stamp_ns, OPTICAL, frame.image), log_ns)
        self.write(TRUE_DEPTH, to_msg.float_image(types, stamp_ns, OPTICAL, true_depth), log_ns)
        self.write(TRUE_POSE, to_msg.stamped_pose(types, stamp_ns, WORLD, frame.T_world_cam), log_ns)
