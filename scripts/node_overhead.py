"""What the node adds to the engine's time: from an image's callback to its last published message, minus the engine.

Between two processes over DDS, in ROS's environment (source scripts/ros_env.sh):  python scripts/node_overhead.py [--frames 100]
The engine answers at once with a plane, so that nothing else is measured. Prints a Markdown table of medians in milliseconds.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from array import array
from collections.abc import Sequence

import cv2
import numpy as np
import rclpy
import torch
from builtin_interfaces.msg import Time
from da3.msg import StreamStatus
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2

from da3_core import Prediction, View
from da3_ros.node import DepthNode
from da3_ros.process import main

WIDTH_PX, HEIGHT_PX, PERIOD_S = 640, 480, 0.1
NETWORK_WIDTH_PX, NETWORK_HEIGHT_PX = 336, 252
OUTPUTS = {
    "depth": ["depth"],
    "depth and confidence": ["depth", "confidence"],
    "depth, confidence and points": ["depth", "confidence", "points"],
}
LENSES = {"pinhole": [0.0] * 5, "distorted": [-0.3, 0.1, 0.001, 0.001, 0.0]}


class PlaneEngine:
    """A plane two metres ahead, in no time: by numpy, as torch's threads would spin on after it, on the cores that the rest needs."""

    kind = "metric"
    device = torch.device("cpu")
    description = "a plane"
    refusals: Sequence[str] = ()

    def infer(self, views: Sequence[View], wanted: Sequence[int], posed: bool) -> Prediction:
        plane = torch.from_numpy(np.full((len(wanted), *views[0].image.shape[1:]), 2.0, np.float32))
        return Prediction(depth=plane, confidence=plane, is_metric=True)

    def reset(self) -> None:
        """Nothing is kept."""


class Measurement:
    """One node with one listener, fed at a camera's rate."""

    def __init__(self, transport: str, lens: str, outputs: Sequence[str]) -> None:
        self.status: list[StreamStatus] = []
        command = [sys.executable, __file__, "--node", transport]
        self.process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "2"})
        self.node = rclpy.create_node("overhead")
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)
        self.node.create_subscription(StreamStatus, "/da3/status", self.status.append, 50)
        for output in outputs:
            kind, topic = (PointCloud2, "points") if output == "points" else (Image, f"{output}/image")
            self.node.create_subscription(kind, f"/da3/camera/{topic}", lambda message: None, qos_profile_sensor_data)
        kind, suffix = (Image, "") if transport == "raw" else (CompressedImage, "/compressed")
        self.images = self.node.create_publisher(kind, f"camera/image_raw{suffix}", qos_profile_sensor_data)
        self.infos = self.node.create_publisher(CameraInfo, "camera/camera_info", qos_profile_sensor_data)
        self.info = camera_info(LENSES[lens])
        self.message = image_message() if transport == "raw" else jpeg_message()

    def run(self, frames: int) -> None:
        while not self.images.get_subscription_count():
            self.executor.spin_once(timeout_sec=0.1)
        end = time.monotonic() + PERIOD_S * frames
        while time.monotonic() < end:
            stamp = Time(sec=int(time.time()), nanosec=time.time_ns() % 1_000_000_000)
            self.message.header.stamp = self.info.header.stamp = stamp
            self.infos.publish(self.info)
            self.images.publish(self.message)
            due = time.monotonic() + PERIOD_S
            while (left := due - time.monotonic()) > 0:
                self.executor.spin_once(timeout_sec=left)

    def close(self) -> None:
        self.process.send_signal(signal.SIGINT)
        self.process.wait()
        self.node.destroy_node()

    def row(self) -> list[float]:
        """Milliseconds of the warm half: preprocess, the rest of the stream, the node; all but the engine, and its 95th percentile."""
        warm = self.status[len(self.status) // 2 :]
        stages = [dict(zip(message.stages, message.stage_s, strict=True)) for message in warm]
        overhead = np.array([message.latency_s for message in warm]) - [stage["engine"] for stage in stages]
        preprocess = np.array([stage["preprocess"] for stage in stages])
        stream = np.array([stage["window"] + stage["anchor"] for stage in stages])
        medians = [np.median(values) for values in (preprocess, stream, overhead - preprocess - stream, overhead)]
        return [1e3 * float(value) for value in (*medians, np.percentile(overhead, 95))]


def picture() -> np.ndarray:
    """As hard to code as a photograph: noise over gradients."""
    noise = np.random.default_rng(0).normal(0, 8, (HEIGHT_PX, WIDTH_PX, 3))
    ramp = np.linspace(0, 200, WIDTH_PX)[None, :, None] + np.linspace(0, 50, HEIGHT_PX)[:, None, None]
    return np.clip(cv2.GaussianBlur(ramp + noise, (0, 0), 1.0), 0, 255).astype(np.uint8)


def image_message() -> Image:
    message = Image(height=HEIGHT_PX, width=WIDTH_PX, encoding="bgr8", step=3 * WIDTH_PX, data=array("B", picture().tobytes()))
    message.header.frame_id = "camera_optical"
    return message


def jpeg_message() -> CompressedImage:
    message = CompressedImage(format="jpeg", data=array("B", cv2.imencode(".jpg", picture())[1].tobytes()))
    message.header.frame_id = "camera_optical"
    return message


def camera_info(D: list[float]) -> CameraInfo:
    message = CameraInfo(width=WIDTH_PX, height=HEIGHT_PX, distortion_model="plumb_bob", d=D)
    message.k = np.array([[500.0, 0, 319.5], [0, 500.0, 239.5], [0, 0, 1]]).reshape(9)
    return message


def run_node(transport: str) -> None:
    parameters = {"image_transport": transport, "pose_source": "none", "save_voxel_m": 0.0, "preprocess.size": NETWORK_WIDTH_PX}
    words = [word for name, value in parameters.items() for word in ("-p", f"{name}:={value}")]
    sys.argv = [sys.argv[0], "--ros-args", *words]
    main(lambda: DepthNode(lambda parameters: PlaneEngine()))


def run_table(frames: int) -> None:
    rclpy.init()
    sizes = f"{WIDTH_PX}x{HEIGHT_PX} in, {NETWORK_WIDTH_PX}x{NETWORK_HEIGHT_PX} out"
    print(f"{sizes}; milliseconds; load {os.getloadavg()[0]:.1f} at the start\n")
    print("| images | lens | outputs listened to | preprocess | window, anchor | node | overhead | 95 % |")
    print("|---|---|---|---|---|---|---|---|")
    for transport, lens, outputs in (
        ("raw", "pinhole", "depth"),
        ("raw", "distorted", "depth"),
        ("raw", "distorted", "depth and confidence"),
        ("raw", "distorted", "depth, confidence and points"),
        ("compressed", "distorted", "depth"),
    ):
        measurement = Measurement(transport, lens, OUTPUTS[outputs])
        measurement.run(frames)
        measurement.close()
        print(f"| {transport} | {lens} | {outputs} | " + " | ".join(f"{value:.2f}" for value in measurement.row()) + " |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--node", metavar="TRANSPORT", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.node:
        run_node(given.node)
    else:
        run_table(given.frames)
